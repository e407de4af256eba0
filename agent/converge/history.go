package converge

import "time"

// Sample is one look at a migration's memory.
type Sample struct {
	Iteration   int   // the pass over memory that is under way, from 1
	Remaining   int64 // bytes still to be sent
	Transferred int64 // bytes sent so far
	DirtyRate   int64 // bytes per second that the guest writes, as last measured
	Bandwidth   int64 // bytes per second that cross, as last measured
	Throttle    int   // percent of its time that the guest is held by auto-converge
	// Elapsed is the time since the migration began. It never goes back.
	Elapsed time.Duration
}

// Iteration is a pass over memory that has ended.
type Iteration struct {
	Number    int
	Remaining int64 // the most that was left during it: what it had to send
	DirtyRate int64 // bytes per second, at its end
	Bandwidth int64 // bytes per second that crossed during it
	Throttle  int   // percent, the most
	Elapsed   time.Duration
}

// History is what was seen of a migration's passes over memory. The zero value
// is that of one that has just begun.
type History struct {
	Passes []Iteration // that have ended, oldest first

	begun    bool
	open     Iteration // the pass under way
	from, at Sample    // its first look and its last
}

// Add takes a look and tells whether a pass has ended since the one before: then
// [Decide] is to be asked. A pass that began and ended between two looks is not
// seen; those around it say the same.
func (h *History) Add(s Sample) (boundary bool) {
	if h.begun && s.Iteration > h.open.Number {
		h.Passes = append(h.Passes, h.ended(s))
		boundary = true
	}
	if !h.begun || boundary {
		h.begun, h.from = true, s
		h.open = Iteration{Number: s.Iteration}
	}
	h.at = s
	h.open.Remaining = max(h.open.Remaining, s.Remaining)
	h.open.Throttle = max(h.open.Throttle, s.Throttle)
	return boundary
}

// ended closes the pass under way at the first look at the one after it. What
// has crossed is counted from look to look: QEMU's own figure is that of its
// last tenth of a second.
func (h *History) ended(next Sample) Iteration {
	it := h.open
	it.DirtyRate, it.Bandwidth, it.Elapsed = next.DirtyRate, next.Bandwidth, next.Elapsed
	sent, took := next.Transferred-h.from.Transferred, next.Elapsed-h.from.Elapsed
	if sent > 0 && took >= steady {
		it.Bandwidth = int64(float64(sent) / took.Seconds())
	}
	return it
}

// steady is how long a pass has to be for its bytes and its time to tell a rate.
const steady = 200 * time.Millisecond

// Downtime is how long the guest would stand still if it were stopped for what
// the pass had to send; 0 when nothing is known of the bandwidth.
func (it Iteration) Downtime() time.Duration {
	if it.Bandwidth <= 0 {
		return 0
	}
	seconds := float64(it.Remaining) / float64(it.Bandwidth)
	return time.Duration(min(seconds, longest.Seconds()) * float64(time.Second))
}

// longest is what an estimate ends at: QEMU takes no more as a maximum.
const longest = 2000 * time.Second
