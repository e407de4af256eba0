package operation_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// next reads n events, failing if they do not come or their ids do not grow.
func next(t *testing.T, ch <-chan api.Event, n int) (out []api.Event) {
	t.Helper()
	for len(out) < n {
		select {
		case ev, ok := <-ch:
			if !ok {
				t.Fatalf("closed after %d of %d events", len(out), n)
			}
			if len(out) > 0 && ev.ID <= out[len(out)-1].ID {
				t.Fatalf("id %d after %d", ev.ID, out[len(out)-1].ID)
			}
			out = append(out, ev)
		case <-time.After(deadline):
			t.Fatalf("only %d of %d events", len(out), n)
		}
	}
	return out
}

func details(evs []api.Event) (out []string) {
	for _, ev := range evs {
		out = append(out, ev.Detail)
	}
	return out
}

func TestEventsFollowTheJournal(t *testing.T) {
	e := open(t, store.Memory())
	live, err := e.Events(t.Context(), operation.LiveOnly)
	must(t, err)
	e.Publish(api.Event{Kind: "instance", Instance: "vm9", Detail: "stopped"})
	op := run(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		return nil, op.Step(ctx, "perform", func(context.Context) error { return nil })
	})
	want := []string{"stopped", "accepted", "perform: running", "perform: done", "succeeded"}
	got := next(t, live, len(want))
	if diff := cmp.Diff(want, details(got)); diff != "" {
		t.Error(diff)
	}
	last := got[4]
	if last.Operation.ID != op.ID || last.Operation.Status != api.StatusSucceeded || last.Instance != "vm1" || last.At.IsZero() {
		t.Errorf("last event: %+v", last)
	}
	// Coming back with an id gives what came after it, then what is new.
	again, err := e.Events(t.Context(), got[1].ID)
	must(t, err)
	e.Publish(api.Event{Kind: "host", Detail: "new"})
	if diff := cmp.Diff(append(want[2:], "new"), details(next(t, again, 4))); diff != "" {
		t.Error(diff)
	}
	all, err := e.Events(t.Context(), 0)
	must(t, err)
	next(t, all, 6)
}

func TestEventIDsGoOnAfterARestart(t *testing.T) {
	for name, crash := range map[string]bool{"clean": false, "crash": true} {
		t.Run(name, func(t *testing.T) {
			s := store.Memory()
			e := open(t, s)
			live, err := e.Events(t.Context(), operation.LiveOnly)
			must(t, err)
			e.Publish(api.Event{Detail: "one"})
			e.Publish(api.Event{Detail: "two"})
			seen := next(t, live, 2)
			if !crash {
				closeEngine(t, e)
			}
			e = open(t, s)
			e.Publish(api.Event{Detail: "three"})
			back, err := e.Events(t.Context(), seen[1].ID)
			must(t, err)
			if !crash {
				if got := next(t, back, 1); got[0].Detail != "three" || got[0].ID <= seen[1].ID {
					t.Errorf("first event: %+v after %d", got[0], seen[1].ID)
				}
			}
			// One that missed events is told so.
			late, err := e.Events(t.Context(), seen[0].ID)
			must(t, err)
			got := next(t, late, 2)
			if got[0].ID <= seen[0].ID || !strings.Contains(got[0].Detail, "not kept") || got[1].Detail != "three" {
				t.Errorf("events: %+v", got)
			}
		})
	}
}

func TestEventsKeepTheLastOnes(t *testing.T) {
	e := open(t, store.Memory(), func(o *operation.Options) { o.Events = 3 })
	for _, d := range []string{"1", "2", "3", "4", "5"} {
		e.Publish(api.Event{Detail: d})
	}
	all, err := e.Events(t.Context(), 0)
	must(t, err)
	if diff := cmp.Diff([]string{"3", "4", "5"}, details(next(t, all, 3))); diff != "" {
		t.Error(diff)
	}
	for after, want := range map[uint64][]string{
		2: {"3", "4", "5"}, 4: {"5"}, 1: {"events after 1 are not kept up to 3: read the lists again", "3", "4", "5"},
		99: {"events after 99 are not kept up to 3: read the lists again", "3", "4", "5"},
	} {
		ch, err := e.Events(t.Context(), after)
		must(t, err)
		if diff := cmp.Diff(want, details(next(t, ch, len(want)))); diff != "" {
			t.Errorf("after %d: %s", after, diff)
		}
	}
}

func TestEventStreamsEnd(t *testing.T) {
	e := open(t, store.Memory())
	slow, err := e.Events(t.Context(), operation.LiveOnly)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	gone, err := e.Events(ctx, operation.LiveOnly)
	must(t, err)
	stop()
	for range gone { // ends because it is closed
	}
	for range 1000 {
		e.Publish(api.Event{})
	}
	n := 0
	for range slow {
		n++
	}
	if n == 0 || n == 1000 {
		t.Errorf("a reader that did not read got %d of 1000 events", n)
	}
	open, err := e.Events(t.Context(), 0)
	must(t, err)
	closeEngine(t, e)
	for range open {
	}
	_, err = e.Events(t.Context(), 0)
	code(t, err, "not-ready")
	e.Publish(api.Event{}) // to nobody
}
