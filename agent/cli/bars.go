package cli

import (
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// barWidth leaves room for name, sizes, rate and ETA on 100 columns.
const barWidth = 30

// barRefresh is how often the screen is drawn anew; the figures come about
// once a second.
const barRefresh = 200 * time.Millisecond

// barView draws a bar for each disk and for the memory below a line that says
// in which phase the operation is.
type barView struct {
	w         io.Writer
	now       func() time.Time
	container *mpb.Progress // nil while the screen belongs to others
	head      *bar
	parts     map[string]*bar
}

// bar is one line on the screen. Its texts are read by the drawing goroutine.
type bar struct {
	bar   *mpb.Bar
	text  atomic.Pointer[string]
	meter meter
}

func newBarView(w io.Writer, now func() time.Time) *barView { return &barView{w: w, now: now} }

func (v *barView) update(op api.Operation) {
	if v.container == nil {
		v.open()
	}
	head := subject(op) + ": " + op.Phase
	if op.Ended() || op.Phase == "" {
		head = subject(op) + ": " + op.Status
	}
	if text := progressText(op.Progress); text != "" && !op.Ended() {
		head += "  " + text
	}
	v.head.say(head)
	for i, d := range op.Progress.Disks {
		v.part(d.Target, i, d)
	}
	if m := op.Progress.Memory; m != nil {
		// The memory goes last, below any number of disks.
		v.part("memory", math.MaxInt32, *m)
	}
}

// stop leaves what was drawn on the screen, and no goroutine behind.
func (v *barView) stop() {
	if v.container == nil {
		return
	}
	v.head.bar.Abort(false)
	for _, b := range v.parts {
		b.bar.Abort(false)
	}
	v.container.Wait()
	v.container, v.head, v.parts = nil, nil, nil
}

func (v *barView) open() {
	v.container = mpb.New(mpb.WithOutput(v.w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(barRefresh), mpb.WithWidth(barWidth))
	v.parts = map[string]*bar{}
	v.head = &bar{}
	v.head.say("")
	// Below the lowest priority there is: it stays on top.
	v.head.bar = v.container.New(0, mpb.NopStyle(), mpb.BarPriority(-1), mpb.PrependDecorators(v.head.decorator()))
}

func (v *barView) part(name string, priority int, p api.PartProgress) {
	b := v.parts[name]
	if b == nil {
		b = &bar{}
		b.say("")
		// A total of 0 keeps mpb from ending the bar by itself: memory that
		// was sent may become dirty again.
		b.bar = v.container.New(0, mpb.BarStyle(), mpb.BarPriority(priority),
			mpb.PrependDecorators(decor.Name("  "+name, decor.WCSyncSpaceR)), mpb.AppendDecorators(b.decorator()))
		v.parts[name] = b
	}
	b.meter.add(v.now(), p.BytesDone)
	b.bar.SetTotal(p.BytesTotal, false)
	b.bar.SetCurrent(min(p.BytesDone, p.BytesTotal))
	b.say(partText(p, &b.meter))
}

func (b *bar) say(text string) { b.text.Store(&text) }

func (b *bar) decorator() decor.Decorator {
	return decor.Any(func(decor.Statistics) string { return *b.text.Load() })
}

// partText is what stands beside a bar.
func partText(p api.PartProgress, m *meter) string {
	percent := 0.0
	if p.BytesTotal > 0 {
		percent = math.Floor(100 * float64(min(p.BytesDone, p.BytesTotal)) / float64(p.BytesTotal))
	}
	text := fmt.Sprintf(" %3.0f%%  %s of %s", percent, config.FormatSize(p.BytesDone), config.FormatSize(p.BytesTotal))
	if rate := m.rate(); rate > 0 && p.BytesDone < p.BytesTotal {
		text += "  " + config.FormatSize(rate) + "/s"
	}
	if eta, known := m.eta(p.BytesTotal); known && p.BytesDone < p.BytesTotal {
		text += "  " + durationText(eta) + " left"
	}
	return text
}
