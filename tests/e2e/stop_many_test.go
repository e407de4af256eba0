//go:build lab

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// kernelXML is what a domain boots.
var kernelXML = regexp.MustCompile(`(?s)<kernel>.*</cmdline>`)

// bootless starts instances that have nothing to boot, past the agent: their firmware
// waits for ever, and knows no power button.
func (w *world) bootless(on *side, n int) (names []string) {
	w.Helper()
	for i := range n {
		names = append(names, fmt.Sprintf("%s%d", w.unique("bare"), i))
	}
	w.each(names, func(i int) error {
		x := kernelXML.ReplaceAllString(harness.Domain{Name: names[i], MemoryMiB: 32}.XML(), "")
		return errors.Join(on.Define(w.ctx, x), on.Start(w.ctx, names[i]))
	})
	return names
}

// Twenty are stopped at once. Six guests are slow to go, fourteen never do and are
// forced when their time is over: all have begun before the first is down, none
// waits for another, and together they take about what one does.
func TestManyStopAtOnce(t *testing.T) {
	w := begin(t)
	w.atMost(2 * testTime)
	const guests, idle, each = 6, 14, 15
	var all []*stopped
	var names []string
	for i := range guests {
		s := w.toStop(fmt.Sprint("vm", i), options(fmt.Sprintf("wherry.slow=%ds wherry.pace=500ms", each)))
		all, names = append(all, s), append(names, s.name)
	}
	w.each(names, func(i int) error {
		op, err := w.a.api.Start(w.ctx, ref(names[i]), "")
		if err == nil {
			op, err = w.a.api.WaitOperation(w.ctx, op.ID, nil)
		}
		if err == nil && op.Status != api.StatusSucceeded {
			err = errors.New(describe(op.Error))
		}
		return err
	})
	for _, s := range all {
		s.booted(0)
		s.connect()
	}
	names = append(names, w.bootless(w.a, idle)...)

	events := w.heard(w.a)
	ids := make([]string, len(names))
	w.each(names, func(i int) error {
		r := api.StopRequest{Timeout: seconds(each), OnTimeout: "force"}
		if i < guests {
			r = api.StopRequest{}
		}
		op, err := w.a.api.Stop(w.ctx, ref(names[i]), r, "")
		ids[i] = op.ID
		return err
	})
	ours := map[string]bool{} // other tests' stops are told as well
	for _, id := range ids {
		ours[id] = true
	}
	begun := 0
	w.event(events, "the begin of the last stop", func(e api.Event) bool {
		if e.Operation == nil || !ours[e.Operation.ID] {
			return false
		}
		if e.Operation.Ended() {
			t.Fatalf("%d of %d were begun when %q was down", begun, len(names), e.Operation.Instance)
		}
		if e.Detail == "stop: running" {
			begun++
		}
		return begun == len(names)
	})
	metrics := w.scraped(w.a)
	if n := metrics[`wherry_operations_in_flight{kind="stop"}`]; n != guests+idle {
		t.Errorf("%v stops are in flight; want %d", n, guests+idle)
	}
	if n := metrics[`wherry_operation_lock_waiters{kind="stop"}`]; n != 0 {
		t.Errorf("%v operations wait for a stop; want none", n)
	}
	w.event(events, "the end of the first", func(e api.Event) bool {
		return e.Operation != nil && ours[e.Operation.ID] && e.Operation.Ended()
	})
	for _, s := range all { // which needs the whole ladder, not only its begin
		console, err := s.guest.Console(w.ctx, w.a.Host)
		w.must(err)
		if !console.Has(fmt.Sprintf("POWEROFF in %ds", each)) {
			t.Errorf("the guest of %q had not been told when the first was down", s.name)
		}
	}

	w.overlapped(ids, func(i int, r api.StopResult) {
		want := api.RungACPI
		if i >= guests {
			want = api.RungQuit
		}
		if r.Rung != want || len(r.Warnings) > 0 || r.Rungs[0].Rung != api.RungACPI {
			t.Errorf("result %+v of %q; want rung %q after the button", r, names[i], want)
		}
	})
	for _, s := range all {
		s.down(true)
	}
	for _, name := range names[guests:] {
		if state, err := w.a.State(w.ctx, name); err != nil || state != "shut off" {
			t.Errorf("%q is %q (%v); want it shut off", name, state, err)
		}
	}
	if left := w.exec(w.a, "sh", "-c", `pgrep -af -- "-name guest=$0" || true`, w.unique("")); strings.TrimSpace(left) != "" {
		t.Errorf("left: %s", left)
	}
}

// overlapped wants stops to succeed, and to have taken together much less than
// one after another.
func (w *world) overlapped(ids []string, check func(i int, r api.StopResult)) {
	w.Helper()
	var first, last time.Time
	var sum time.Duration
	for i, id := range ids {
		op := w.run(w.a, api.Operation{ID: id}, nil)
		var r api.StopResult
		w.must(json.Unmarshal(op.Result, &r))
		check(i, r)
		for _, rung := range r.Rungs {
			sum += rung.Took.Std()
		}
		for _, step := range op.Steps {
			if first.IsZero() || step.StartedAt.Before(first) {
				first = step.StartedAt
			}
			if step.EndedAt.After(last) {
				last = *step.EndedAt
			}
		}
	}
	took := last.Sub(first)
	w.Logf("%d stops took %s, one after another it would be %s", len(ids), took.Round(time.Millisecond), sum.Round(time.Millisecond))
	if 3*took > sum {
		w.Errorf("%d stops took %s, one after another it would be %s; want them to overlap", len(ids), took, sum)
	}
}
