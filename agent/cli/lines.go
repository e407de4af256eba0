package cli

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// lineEvery is how long a log of lines stays silent while bytes move.
const lineEvery = 5 * time.Second

// lineView prints progress as lines, few enough for a log.
type lineView struct {
	w    io.Writer
	now  func() time.Time
	what string
	last *shownLine
	// meter knows the rate where the agent does not tell it.
	meter meter
}

// shownLine is what the last line said, and when.
type shownLine struct {
	at   time.Time
	op   string
	tens int // percent, in steps of ten
	done int64
}

func newLineView(w io.Writer, now func() time.Time, what string) *lineView {
	return &lineView{w: w, now: now, what: what}
}

func (v *lineView) stop() {}

func (v *lineView) update(op api.Operation) {
	at := v.now()
	v.meter.add(at, op.Progress.BytesDone)
	next := shownLine{at: at, op: op.Status + op.Phase + op.Progress.Detail, tens: int(op.Progress.Percent / 10), done: op.Progress.BytesDone}
	if !lineDue(v.last, next) {
		return
	}
	v.last = &next
	fmt.Fprintln(v.w, lineText(subject(op, v.what), op, &v.meter))
}

// lineDue decides whether a line says something new: another phase, ten
// percent more, or bytes after a silence.
func lineDue(last *shownLine, next shownLine) bool {
	if last == nil || last.op != next.op || next.tens > last.tens {
		return true
	}
	return next.at.Sub(last.at) >= lineEvery && next.done != last.done
}

func lineText(subject string, op api.Operation, m *meter) string {
	parts := []string{subject}
	if op.Phase != "" && !op.Ended() {
		parts = append(parts, op.Phase)
	} else {
		parts = append(parts, strings.ReplaceAll(op.Status, "_", " "))
	}
	if text := progressText(m.complete(op.Progress), m.elapsed()); text != "" && !op.Ended() {
		parts = append(parts, text)
	}
	if op.Progress.Detail != "" && !op.Ended() {
		parts = append(parts, op.Progress.Detail)
	}
	return strings.Join(parts, ": ")
}

// subject says which operation it is: "migrate vm1 (ID)". One without an
// instance is told by what it is for, where that says more than its id.
func subject(op api.Operation, what string) string {
	if op.Instance == "" && what != "" && !strings.Contains(what, op.ID) {
		return fmt.Sprintf("%s (%s)", what, op.ID)
	}
	if name := about(op); name != "" {
		return fmt.Sprintf("%s %s (%s)", op.Kind, name, op.ID)
	}
	return fmt.Sprintf("%s (%s)", op.Kind, op.ID)
}

// progressText is empty while there is nothing to tell. Without a total there
// is no percent to tell, only how much has come, how fast and for how long.
func progressText(p api.Progress, elapsed time.Duration) string {
	switch {
	case p.BytesTotal <= 0 && p.BytesDone > 0:
		text := config.FormatSize(p.BytesDone) + rateText(p.Rate)
		if elapsed >= time.Second {
			text += ", for " + durationText(elapsed.Round(time.Second))
		}
		return text
	case p.BytesTotal <= 0 && p.Percent > 0:
		return fmt.Sprintf("%.0f%%", math.Floor(p.Percent))
	case p.BytesTotal <= 0:
		return ""
	}
	text := fmt.Sprintf("%.0f%%, %s of %s", math.Floor(p.Percent), config.FormatSize(p.BytesDone), config.FormatSize(p.BytesTotal)) + rateText(p.Rate)
	if p.ETA != nil {
		text += ", " + etaText(p.ETA.Std()) + " left"
	}
	return text
}

func rateText(rate int64) string {
	if rate <= 0 {
		return ""
	}
	return ", " + config.FormatSize(rate) + "/s"
}

// etaText is in whole seconds: it is an estimate.
func etaText(d time.Duration) string {
	return durationText(max(d.Round(time.Second), time.Second))
}

// durationText rounds to what a person reads: 230ms, 2.1s, 3m20s.
func durationText(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
