package cli

import (
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// meterWindow is how far back a rate looks: long enough to be calm, short
// enough to follow a link that was slowed down.
const meterWindow = 10 * time.Second

// meter measures the rate of one disk or of the memory from its counts.
type meter struct {
	began   time.Time // of the first count ever
	samples []sample
}

type sample struct {
	at   time.Time
	done int64
}

// add takes a count. Memory is sent in rounds: a count that falls starts anew.
func (m *meter) add(at time.Time, done int64) {
	if m.began.IsZero() {
		m.began = at
	}
	if n := len(m.samples); n > 0 && done < m.samples[n-1].done {
		m.samples = nil
	}
	m.samples = append(m.samples, sample{at, done})
	for len(m.samples) > 2 && at.Sub(m.samples[1].at) >= meterWindow {
		m.samples = m.samples[1:]
	}
}

// rate is in bytes per second, 0 while it cannot be told.
func (m *meter) rate() int64 {
	if len(m.samples) < 2 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return int64(float64(last.done-first.done) / seconds)
}

// eta is how long the rest takes at the present rate, and whether that can be
// told.
func (m *meter) eta(total int64) (time.Duration, bool) {
	rate := m.rate()
	if rate == 0 {
		return 0, false
	}
	rest := max(0, total-m.samples[len(m.samples)-1].done)
	return time.Duration(float64(rest) / float64(rate) * float64(time.Second)), true
}

// elapsed is the time from the first count to the last.
func (m *meter) elapsed() time.Duration {
	if len(m.samples) == 0 {
		return 0
	}
	return m.samples[len(m.samples)-1].at.Sub(m.began)
}

// complete adds the rate and the ETA that the agent left out.
func (m *meter) complete(p api.Progress) api.Progress {
	if p.Rate == 0 && (p.BytesTotal <= 0 || p.BytesDone < p.BytesTotal) {
		p.Rate = m.rate()
	}
	if eta, known := m.eta(p.BytesTotal); known && p.ETA == nil && p.BytesDone < p.BytesTotal {
		p.ETA = new(api.Duration(eta))
	}
	return p
}
