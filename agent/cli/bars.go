package cli

import (
	"fmt"
	"io"
	"math"
	"strings"
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
	what      string
	container *mpb.Progress // nil while the screen belongs to others
	head      *bar
	parts     map[string]*bar
}

// bar is one line on the screen. Its texts are read by the drawing goroutine.
type bar struct {
	bar   *mpb.Bar
	text  atomic.Pointer[string]
	meter meter
	// For the drawing goroutine too: bytes so far, and that their total is
	// not known.
	count   atomic.Int64
	unknown atomic.Bool
}

func newBarView(w io.Writer, now func() time.Time, what string) *barView {
	return &barView{w: w, now: now, what: what}
}

func (v *barView) update(op api.Operation) {
	if v.container == nil {
		v.open()
	}
	head := subject(op, v.what) + ": " + op.Phase
	if op.Ended() || op.Phase == "" {
		head = subject(op, v.what) + ": " + op.Status
	}
	whole, inParts := wholePart(op)
	if text := progressText(op.Progress, 0); text != "" && !op.Ended() && inParts {
		head += "  " + text
	}
	if op.Progress.Detail != "" && !op.Ended() {
		head += ": " + op.Progress.Detail
	}
	v.head.say(head)
	if !inParts && whole.BytesDone+whole.BytesTotal > 0 {
		v.part(whole.Target, 0, whole)
	}
	for i, d := range op.Progress.Disks {
		v.part(d.Target, i, d)
	}
	if m := op.Progress.Memory; m != nil {
		// The memory goes last, below any number of disks.
		v.part("memory", math.MaxInt32, *m)
	}
}

// wholePart is the one bar of an operation whose progress has no parts, such as
// a download.
func wholePart(op api.Operation) (p api.PartProgress, inParts bool) {
	name := "data"
	if op.Kind == templateKind || op.Kind == scrubKind {
		name = "image"
	}
	p = api.PartProgress{Target: name, BytesDone: op.Progress.BytesDone, BytesTotal: max(op.Progress.BytesTotal, 0)}
	return p, len(op.Progress.Disks) > 0 || op.Progress.Memory != nil
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
		b.bar = v.container.New(0, b, mpb.BarPriority(priority),
			mpb.PrependDecorators(decor.Name("  "+name, decor.WCSyncSpaceR)), mpb.AppendDecorators(b.decorator()))
		v.parts[name] = b
	}
	b.meter.add(v.now(), p.BytesDone)
	b.bar.SetTotal(p.BytesTotal, false)
	b.bar.SetCurrent(min(p.BytesDone, p.BytesTotal))
	b.count.Store(p.BytesDone)
	b.unknown.Store(p.BytesTotal == 0 && p.BytesDone > 0)
	b.say(partText(p, &b.meter))
}

// Build gives what fills the bar: of an unknown length, a mark that moves as
// bytes arrive and stands when they do not.
func (b *bar) Build() mpb.BarFiller {
	known := mpb.BarStyle().Build()
	return mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		if !b.unknown.Load() {
			return known.Fill(w, s)
		}
		_, err := io.WriteString(w, movingMark(min(s.AvailableWidth, s.RequestedWidth), b.count.Load()))
		return err
	})
}

// movingMark draws a mark that goes to and fro, one cell for each MiB.
func movingMark(width int, done int64) string {
	const mark = "<=>"
	room := width - len("[]") - len(mark)
	if room < 1 {
		return ""
	}
	at := int((done >> 20) % int64(2*room))
	at = min(at, 2*room-at)
	return "[" + strings.Repeat("-", at) + mark + strings.Repeat("-", room-at) + "]"
}

func (b *bar) say(text string) { b.text.Store(&text) }

func (b *bar) decorator() decor.Decorator {
	return decor.Any(func(decor.Statistics) string { return *b.text.Load() })
}

// partText is what stands beside a bar.
func partText(p api.PartProgress, m *meter) string {
	if p.BytesTotal <= 0 && p.BytesDone > 0 {
		text := "  " + config.FormatSize(p.BytesDone)
		if rate := m.rate(); rate > 0 {
			text += "  " + config.FormatSize(rate) + "/s"
		}
		return text + "  for " + durationText(m.elapsed().Round(time.Second))
	}
	percent := 0.0
	if p.BytesTotal > 0 {
		percent = math.Floor(100 * float64(min(p.BytesDone, p.BytesTotal)) / float64(p.BytesTotal))
	}
	text := fmt.Sprintf(" %3.0f%%  %s of %s", percent, config.FormatSize(p.BytesDone), config.FormatSize(p.BytesTotal))
	if rate := m.rate(); rate > 0 && p.BytesDone < p.BytesTotal {
		text += "  " + config.FormatSize(rate) + "/s"
	}
	if eta, known := m.eta(p.BytesTotal); known && p.BytesDone < p.BytesTotal {
		text += "  " + etaText(eta) + " left"
	}
	return text
}
