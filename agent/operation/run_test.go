package operation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestStartIsJournalledBeforeItRuns(t *testing.T) {
	s := store.Memory()
	e := open(t, s)
	var journalled string
	op := run(t, e, operation.Spec{Kind: "migrate", Instance: "vm1", Request: map[string]string{"to": "b"}},
		func(_ context.Context, op *operation.Op) (any, error) {
			value, err := s.Get("operations", op.ID())
			journalled = string(value)
			var request map[string]string
			if err := op.Request(&request); err != nil || request["to"] != "b" {
				t.Errorf("request = %v, %v", request, err)
			}
			if want := (api.Ref{Project: "default", Name: "vm1"}); op.Ref() != want || op.Kind() != "migrate" {
				t.Errorf("operation is %s of %+v", op.Kind(), op.Ref())
			}
			return map[string]int{"n": 7}, err
		})
	if !strings.Contains(journalled, op.ID) || !strings.Contains(journalled, `"to":"b"`) {
		t.Errorf("journal when the work began: %s", journalled)
	}
	if op.Status != api.StatusSucceeded || string(op.Result) != `{"n":7}` || op.Error != nil || op.Project != "default" {
		t.Errorf("ended as %+v", op)
	}
	if len(op.ID) != 26 {
		t.Errorf("id %q is no ULID", op.ID)
	}
}

func TestOutcome(t *testing.T) {
	gone := errors.New("socket gone")
	tests := map[string]struct {
		fn     operation.Func
		status string
		code   string
		detail string
		phase  string
	}{
		"nil": {fn: nothing, status: api.StatusSucceeded},
		"plain error": {
			fn:     func(context.Context, *operation.Op) (any, error) { return nil, fmt.Errorf("ask: %w", gone) },
			status: api.StatusFailed, code: "internal", detail: "ask: socket gone",
		},
		"plain error in a phase": {
			fn: func(ctx context.Context, op *operation.Op) (any, error) {
				return nil, fmt.Errorf("outer: %w", op.Step(ctx, "connect", func(context.Context) error { return gone }))
			},
			status: api.StatusFailed, code: "internal", detail: "outer: socket gone", phase: "connect",
		},
		"problem in a phase": {
			fn: func(ctx context.Context, op *operation.Op) (any, error) {
				return nil, op.Step(ctx, "prepare", func(context.Context) error { return api.NewProblem("no-space", "pool full") })
			},
			status: api.StatusFailed, code: "no-space", detail: "pool full", phase: "prepare",
		},
		"problem that knows its phase": {
			fn: func(ctx context.Context, op *operation.Op) (any, error) {
				return nil, op.Step(ctx, "prepare", func(context.Context) error {
					return api.NewProblem("peer-failed", "no").WithPhase("their phase")
				})
			},
			status: api.StatusFailed, code: "peer-failed", detail: "no", phase: "their phase",
		},
		"deadline": {
			fn:     func(context.Context, *operation.Op) (any, error) { return nil, context.DeadlineExceeded },
			status: api.StatusFailed, code: "timeout", detail: context.DeadlineExceeded.Error(),
		},
		"decision": {
			fn: func(context.Context, *operation.Op) (any, error) {
				return nil, api.NewProblem("needs-decision", "both paused")
			},
			status: api.StatusNeedsDecision, code: "needs-decision", detail: "both paused",
		},
		"panic": {
			fn:     func(context.Context, *operation.Op) (any, error) { panic("oops") },
			status: api.StatusFailed, code: "internal", detail: "operation test: panic: oops",
		},
		"result that is no JSON": {
			fn:     func(context.Context, *operation.Op) (any, error) { return make(chan int), nil },
			status: api.StatusFailed, code: "internal", detail: "result: json: unsupported type: chan int",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := store.Memory()
			e := open(t, s)
			op := run(t, e, vm("vm1"), tt.fn)
			if op.Status != tt.status {
				t.Fatalf("status %s, error %v", op.Status, op.Error)
			}
			if tt.code == "" {
				return
			}
			got := [3]string{op.Error.Code, op.Error.Detail, op.Error.Phase}
			if diff := cmp.Diff([3]string{tt.code, tt.detail, tt.phase}, got); diff != "" {
				t.Error(diff)
			}
			if op.Cancellable || e.Holder(api.Ref{Name: "vm1"}) != "" || len(e.InFlight()) != 0 {
				t.Errorf("after the end: cancellable %t, holder %q, in flight %v", op.Cancellable, e.Holder(api.Ref{Name: "vm1"}), e.InFlight())
			}
			// What another process reads is what was told.
			again, err := open(t, s).Get(t.Context(), op.ID)
			must(t, err)
			a, _ := json.Marshal(op)
			b, _ := json.Marshal(again)
			if diff := cmp.Diff(string(a), string(b)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStepsAreJournalledBeforeAndAfter(t *testing.T) {
	e := open(t, store.Memory())
	var during []string
	op := run(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		must(t, op.Step(ctx, "connect", func(context.Context) error { return nil }))
		must(t, op.Skip("stage", "nothing to stage"))
		err := op.Step(ctx, "prepare", func(context.Context) error {
			now, err := e.Get(ctx, op.ID())
			must(t, err)
			during = append(steps(now), now.Status, now.Phase)
			return errors.New("no")
		})
		return nil, err
	})
	if diff := cmp.Diff([]string{"connect done", "stage skipped", "prepare running", "running", "prepare"}, during); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"connect done", "stage skipped", "prepare failed"}, steps(op)); diff != "" {
		t.Error(diff)
	}
	if s := op.Steps[2]; s.Detail != "no" || s.EndedAt == nil || s.StartedAt.IsZero() {
		t.Errorf("failed step: %+v", s)
	}
}

func TestUndoRunsInReverseAndTellsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t, store.Memory(), func(o *operation.Options) { o.UndoTimeout = time.Second })
		var order []string
		op := run(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
			op.Undo("volumes", func(ctx context.Context) error {
				order = append(order, "volumes")
				return ctx.Err()
			})
			op.Undo("hangs", func(ctx context.Context) error {
				order = append(order, "hangs")
				<-ctx.Done()
				return ctx.Err()
			})
			op.Undo("panics", func(context.Context) error {
				order = append(order, "panics")
				panic("oops")
			})
			op.Undo("targets", func(context.Context) error {
				order = append(order, "targets")
				return errors.New("portal gone")
			})
			return nil, op.Step(ctx, "perform", func(context.Context) error { return errors.New("copy failed") })
		})
		if diff := cmp.Diff([]string{"targets", "panics", "hangs", "volumes"}, order); diff != "" {
			t.Error(diff)
		}
		want := []string{"perform failed", "targets failed", "panics failed", "hangs failed", "volumes undone"}
		if diff := cmp.Diff(want, steps(op)); diff != "" {
			t.Error(diff)
		}
		if op.Status != api.StatusFailed || op.Error.Detail != "copy failed" || op.Error.Phase != "perform" {
			t.Errorf("the cause was lost: %s, %+v", op.Status, op.Error)
		}
		for _, part := range []string{"undo targets: portal gone", "undo panics", "undo hangs: " + context.DeadlineExceeded.Error()} {
			if !strings.Contains(op.Error.Hint, part) {
				t.Errorf("hint %q lacks %q", op.Error.Hint, part)
			}
		}
	})
}

func TestUndoOnlyWhereItIsOwed(t *testing.T) {
	tests := map[string]struct {
		err    error
		drop   bool
		undone bool
	}{
		"success":            {},
		"failure":            {err: errors.New("no"), undone: true},
		"point of no return": {err: errors.New("no"), drop: true},
		"decision":           {err: api.NewProblem("needs-decision", "both paused")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := open(t, store.Memory())
			undone := false
			op := run(t, e, vm("vm1"), func(_ context.Context, op *operation.Op) (any, error) {
				op.Undo("it", func(context.Context) error { undone = true; return nil })
				if tt.drop {
					op.DropUndo()
				}
				return nil, tt.err
			})
			if undone != tt.undone || slices.Contains(steps(op), "it undone") != tt.undone {
				t.Errorf("undone: %t, steps: %v", undone, steps(op))
			}
		})
	}
}

func TestJournalFailureStopsTheWork(t *testing.T) {
	f := &faulty{Store: store.Memory()}
	e := open(t, f)

	f.set(errBroken)
	if _, err := e.Start(t.Context(), vm("vm1"), func(context.Context, *operation.Op) (any, error) {
		t.Error("ran without a journal entry")
		return nil, nil
	}); !errors.Is(err, errBroken) {
		t.Fatalf("start: %v", err)
	}
	if h := e.Holder(api.Ref{Name: "vm1"}); h != "" {
		t.Errorf("a start that failed holds the instance: %q", h)
	}

	f.set(nil)
	undone := false
	op := run(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		op.Undo("it", func(context.Context) error { undone = true; return nil })
		f.set(errBroken)
		return nil, op.Step(ctx, "perform", func(context.Context) error {
			t.Error("a step ran that is not in the journal")
			return nil
		})
	})
	if op.Status != api.StatusFailed || op.Error.Phase != "perform" || !strings.Contains(op.Error.Detail, errBroken.Error()) {
		t.Errorf("ended as %s, %+v", op.Status, op.Error)
	}
	if !undone {
		t.Error("undoing is owed even when the journal fails")
	}
	// The end is readable although the journal never took it.
	if again, err := e.Get(t.Context(), op.ID); err != nil || again.Status != api.StatusFailed {
		t.Errorf("later: %s, %v", again.Status, err)
	}
	if n := e.InFlight(); len(n) != 0 {
		t.Errorf("in flight: %v", n)
	}
	// It is journalled as soon as that works again.
	f.set(nil)
	closeEngine(t, e)
	if again, err := open(t, f).Get(t.Context(), op.ID); err != nil || again.Status != api.StatusFailed {
		t.Errorf("after a restart: %s, %v", again.Status, err)
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.Memory()
		e := open(t, s)
		events, err := e.Events(t.Context(), operation.LiveOnly)
		must(t, err)
		nan := 0.0
		op := run(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
			return nil, op.Step(ctx, "perform", func(context.Context) error {
				for i := range 100 {
					op.Progress(api.Progress{BytesDone: int64(i), Percent: float64(i)})
					now, err := e.Get(ctx, op.ID())
					if err != nil || now.Progress.BytesDone != int64(i) {
						t.Errorf("progress is not seen at once: %+v, %v", now.Progress, err)
					}
					time.Sleep(100 * time.Millisecond) // of the bubble's clock
				}
				op.Progress(api.Progress{BytesDone: 100, Percent: nan / nan})
				return nil
			})
		})
		synctest.Wait()
		n := 0
		for range len(events) {
			if ev := <-events; ev.Detail == "progress" {
				n++
			}
		}
		if n < 19 || n > 21 {
			t.Errorf("%d progress events in 10 s", n)
		}
		if op.Progress.BytesDone != 100 || op.Progress.Percent != 0 {
			t.Errorf("last progress: %+v", op.Progress)
		}
	})
}
