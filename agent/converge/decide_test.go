package converge_test

import (
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/converge"
)

const mib = 1 << 20

// passes gives a history of passes of five seconds each with that much to send,
// in MiB, on a link of 10 MiB/s.
func passes(remaining ...int64) converge.History {
	var h converge.History
	for i, r := range remaining {
		h.Passes = append(h.Passes, converge.Iteration{Number: i + 1, Remaining: r * mib, Bandwidth: 10 * mib, DirtyRate: 20 * mib,
			Elapsed: time.Duration(i+1) * 5 * time.Second})
	}
	return h
}

func throttled(h converge.History, percent ...int) converge.History {
	for i, p := range percent {
		h.Passes[i].Throttle = p
	}
	return h
}

func quick(h converge.History, pass time.Duration) converge.History {
	for i := range h.Passes {
		h.Passes[i].Elapsed = time.Duration(i+1) * pass
	}
	return h
}

func TestDecide(t *testing.T) {
	raised := func(d time.Duration, number int) converge.Act {
		return converge.Act{Action: converge.RaiseDowntime, Downtime: d, Number: number, Elapsed: time.Duration(number) * 5 * time.Second}
	}
	did := func(a converge.Action, number int) converge.Act {
		return converge.Act{Action: a, Number: number, Elapsed: time.Duration(number) * 5 * time.Second}
	}
	refused := func(a converge.Act) converge.Act { a.Refused = true; return a }
	stuck := passes(100, 50, 50, 50, 50, 50, 50, 50)
	for _, c := range []struct {
		name    string
		history converge.History
		done    []converge.Act
		limits  converge.Limits
		action  converge.Action
		down    time.Duration
		why     string
	}{
		{"nothing known", converge.History{}, nil, converge.Limits{}, converge.Continue, 300 * time.Millisecond, "fewer than 3"},
		{"after two passes", passes(100, 100), nil, converge.Limits{Policy: converge.Abort}, converge.Continue, 300 * time.Millisecond, "fewer than 3"},
		{"less is left each time", passes(100, 60, 40), nil, converge.Limits{}, converge.Continue, 300 * time.Millisecond, "nearer"},
		{"what is left fits", passes(100, 2, 2, 2, 2, 2), nil, converge.Limits{}, converge.Continue, 300 * time.Millisecond, "fits"},
		{"one pass brought nothing", passes(100, 50, 50), nil, converge.Limits{MaxDowntime: time.Second}, converge.Continue, 300 * time.Millisecond, "waiting"},
		{"two brought nothing", passes(100, 50, 50, 50), nil, converge.Limits{MaxDowntime: time.Second}, converge.RaiseDowntime, 600 * time.Millisecond, "since pass 2"},
		{"by no more than noise", passes(100, 50, 49, 49), nil, converge.Limits{MaxDowntime: time.Second}, converge.RaiseDowntime, 600 * time.Millisecond, "since pass 2"},
		{"two that were over in no time", quick(passes(100, 50, 50, 50), time.Second), nil, converge.Limits{MaxDowntime: time.Second}, converge.Continue, 300 * time.Millisecond, "waiting"},
		{"more patience", passes(100, 50, 50, 50), nil, converge.Limits{MaxDowntime: time.Second, Patience: 11 * time.Second}, converge.Continue, 300 * time.Millisecond, "waiting"},
		{"less", quick(passes(100, 50, 50, 50), time.Second), nil, converge.Limits{MaxDowntime: time.Second, Patience: 2 * time.Second}, converge.RaiseDowntime, 600 * time.Millisecond, "since pass 2"},
		{"more before the last means", stuck, nil, converge.Limits{LastPatience: 31 * time.Second}, converge.Continue, 300 * time.Millisecond, "longest downtime"},
		{"less before the last means", passes(100, 50, 50, 50, 50), nil, converge.Limits{LastPatience: 15 * time.Second}, converge.GiveUp, 300 * time.Millisecond, "since pass 2"},
		{"just raised", passes(100, 50, 50, 50, 50), []converge.Act{raised(600*time.Millisecond, 4)}, converge.Limits{MaxDowntime: time.Second}, converge.Continue, 600 * time.Millisecond, "waiting"},
		{"the step is cut at the maximum", passes(100, 50, 50, 50, 50, 50), []converge.Act{raised(600*time.Millisecond, 4)}, converge.Limits{MaxDowntime: time.Second}, converge.RaiseDowntime, time.Second, "since pass 4"},
		{"the last step is given more time", passes(100, 50, 50, 50, 50, 50), []converge.Act{raised(time.Second, 4)}, converge.Limits{MaxDowntime: time.Second}, converge.Continue, time.Second, "longest downtime"},
		{"and then it is over", passes(100, 50, 50, 50, 50, 50, 50, 50), []converge.Act{raised(time.Second, 4)}, converge.Limits{MaxDowntime: time.Second}, converge.GiveUp, time.Second, "since pass 4"},
		{"the first is the longest", stuck, nil, converge.Limits{}, converge.GiveUp, 300 * time.Millisecond, "since pass 2"},
		{"a maximum below the first", stuck, nil, converge.Limits{MaxDowntime: 50 * time.Millisecond}, converge.GiveUp, 50 * time.Millisecond, "since pass 2"},
		{"to be paused", stuck, nil, converge.Limits{Policy: converge.Pause, MaxDowntime: time.Second}, converge.PauseGuest, time.Second, "since pass 2"},
		{"paused already", stuck, []converge.Act{did(converge.PauseGuest, 7)}, converge.Limits{Policy: converge.Pause}, converge.Continue, 300 * time.Millisecond, "pause was decided after pass 7"},
		{"to be aborted, without steps", stuck, nil, converge.Limits{Policy: converge.Abort, MaxDowntime: time.Second}, converge.GiveUp, time.Second, "since pass 2"},
		{"aborted already", stuck, []converge.Act{did(converge.GiveUp, 7)}, converge.Limits{}, converge.Continue, 300 * time.Millisecond, "abort was decided after pass 7"},
		{"post-copy comes first", passes(100, 50, 50, 50), nil, converge.Limits{PostCopy: true, MaxDowntime: time.Second}, converge.StartPostCopy, 300 * time.Millisecond, "since pass 2"},
		{"post-copy before a pause", stuck, nil, converge.Limits{PostCopy: true, Policy: converge.Pause}, converge.StartPostCopy, 300 * time.Millisecond, "since pass 2"},
		{"in post-copy nothing is done", stuck, []converge.Act{did(converge.StartPostCopy, 4)}, converge.Limits{PostCopy: true}, converge.Continue, 300 * time.Millisecond, "post-copy was decided after pass 4"},
		{"post-copy was refused", passes(100, 50, 50, 50, 50), []converge.Act{refused(did(converge.StartPostCopy, 4))}, converge.Limits{PostCopy: true, MaxDowntime: time.Second}, converge.RaiseDowntime, 600 * time.Millisecond, "since pass 2"},
		{"a pause was refused", stuck, []converge.Act{refused(did(converge.PauseGuest, 7))}, converge.Limits{Policy: converge.Pause}, converge.GiveUp, 300 * time.Millisecond, "since pass 2"},
		{"auto-converge still presses harder", throttled(passes(100, 50, 50, 50, 50), 0, 20, 30, 40, 50), nil, converge.Limits{}, converge.Continue, 300 * time.Millisecond, "nearer"},
		{"auto-converge can do no more", throttled(passes(100, 50, 50, 50, 50, 50, 50, 50, 50), 0, 20, 30, 99, 99, 99, 99, 99, 99), nil, converge.Limits{}, converge.GiveUp, 300 * time.Millisecond, "held for 99% of its time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := converge.Decide(c.history, c.done, c.limits)
			if got.Action != c.action || got.Downtime != c.down || !strings.Contains(got.Reason, c.why) {
				t.Errorf("%s with %s: %s\nwant %s with %s: ... %s ...", got.Action, got.Downtime, got.Reason, c.action, c.down, c.why)
			}
		})
	}
}

// Whoever reads the reason sees what it stands on.
func TestReasonHasTheFigures(t *testing.T) {
	got := converge.Decide(passes(100, 50, 50, 50, 50, 50, 50, 50), nil, converge.Limits{Policy: converge.Abort, MaxDowntime: time.Second})
	for _, figure := range []string{"pass 8", "50.0 MiB", "10.0 MiB/s", "20.0 MiB/s", "5s", "1s is allowed"} {
		if !strings.Contains(got.Reason, figure) {
			t.Errorf("reason %q lacks %q", got.Reason, figure)
		}
	}
}
