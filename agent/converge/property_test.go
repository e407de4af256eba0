package converge_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/converge"
)

func limits(t *rapid.T) converge.Limits {
	return converge.Limits{
		Policy:      rapid.SampledFrom([]string{"", converge.Downtime, converge.Pause, converge.Abort}).Draw(t, "policy"),
		MaxDowntime: time.Duration(rapid.IntRange(0, 60_000).Draw(t, "max downtime, ms")) * time.Millisecond,
		PostCopy:    rapid.Bool().Draw(t, "post-copy"),
	}
}

func final(a converge.Action) bool {
	return a == converge.StartPostCopy || a == converge.PauseGuest || a == converge.GiveUp
}

// Whatever a guest does: nothing happens within the first two passes, the
// downtime only rises and never above its maximum, only what was allowed is
// done, and after the last means nothing more.
func TestWhateverTheGuestDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits(t)
		most := max(l.MaxDowntime, 0)
		if most == 0 {
			most = converge.FirstDowntime
		}
		var h converge.History
		var done []converge.Act
		s := converge.Sample{Iteration: 1}
		downtime, over := l.First(), false
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			s.Iteration += rapid.IntRange(0, 2).Draw(t, "passes")
			s.Elapsed += time.Duration(rapid.IntRange(0, 30_000).Draw(t, "ms")) * time.Millisecond
			s.Transferred += rapid.Int64Range(0, 1<<40).Draw(t, "sent")
			s.Remaining = rapid.Int64Range(0, 1<<42).Draw(t, "remaining")
			s.DirtyRate = rapid.Int64Range(0, 1<<36).Draw(t, "dirty rate")
			s.Bandwidth = rapid.Int64Range(0, 1<<36).Draw(t, "bandwidth")
			s.Throttle = rapid.IntRange(0, 99).Draw(t, "throttle")
			if !h.Add(s) {
				continue
			}
			d := converge.Decide(h, done, l)
			switch {
			case d.Reason == "":
				t.Fatal("no reason")
			case d.Downtime < downtime || d.Downtime > most:
				t.Fatalf("downtime %s after %s; the maximum is %s", d.Downtime, downtime, most)
			case d.Action == converge.Continue && d.Downtime != downtime:
				t.Fatalf("downtime %s without raising it from %s", d.Downtime, downtime)
			case d.Action != converge.Continue && h.Passes[len(h.Passes)-1].Number <= 2:
				t.Fatalf("%s after pass %d", d.Action, h.Passes[len(h.Passes)-1].Number)
			case d.Action != converge.Continue && over:
				t.Fatalf("%s after the last means", d.Action)
			case d.Action == converge.PauseGuest && l.Policy != converge.Pause, d.Action == converge.StartPostCopy && !l.PostCopy:
				t.Fatalf("%s is not allowed by %+v", d.Action, l)
			case d.Action == converge.RaiseDowntime && (l.Policy == converge.Pause || l.Policy == converge.Abort):
				t.Fatalf("raised by policy %q", l.Policy)
			}
			downtime = d.Downtime
			if d.Action != converge.Continue {
				last := h.Passes[len(h.Passes)-1]
				refused := rapid.Bool().Draw(t, "refused") && d.Action != converge.RaiseDowntime
				over = final(d.Action) && !refused
				done = append(done, converge.Act{Action: d.Action, Downtime: d.Downtime, Number: last.Number, Elapsed: last.Elapsed, Refused: refused})
			}
		}
	})
}

// A guest that goes on writing faster than its memory crosses does not keep a
// migration going for ever, whatever is refused on the way.
func TestItEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits(t)
		refuse := map[converge.Action]bool{
			converge.StartPostCopy: rapid.Bool().Draw(t, "post-copy refused"),
			converge.PauseGuest:    rapid.Bool().Draw(t, "pause refused"),
		}
		pass := time.Duration(rapid.IntRange(100, 600_000).Draw(t, "ms of a pass, which nobody sees shorter")) * time.Millisecond
		bandwidth := rapid.Int64Range(1, 1<<34).Draw(t, "bandwidth")
		// More than fits into the longest downtime that may be allowed.
		working := rapid.Int64Range(61*bandwidth, 600*bandwidth).Draw(t, "working set")
		var h converge.History
		var done []converge.Act
		s := converge.Sample{Iteration: 1, Remaining: working, Bandwidth: bandwidth}
		// Eight doublings lead from 300 ms to more than 60 s.
		end := 100*pass + 10*time.Minute
		for ; s.Elapsed <= end; s.Elapsed += pass {
			if h.Add(s) {
				d := converge.Decide(h, done, l)
				if final(d.Action) && !refuse[d.Action] {
					return
				}
				if d.Action != converge.Continue {
					last := h.Passes[len(h.Passes)-1]
					done = append(done, converge.Act{Action: d.Action, Downtime: d.Downtime, Number: last.Number, Elapsed: last.Elapsed, Refused: refuse[d.Action]})
				}
			}
			s.Iteration++
		}
		t.Fatalf("it goes on after %s: %+v", end, done)
	})
}
