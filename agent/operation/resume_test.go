package operation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// interrupted leaves an operation in the journal that was running its second
// step when the agent stopped.
func interrupted(t *testing.T, s operation.Store, spec operation.Spec) api.Operation {
	t.Helper()
	e := open(t, s)
	begun := make(chan struct{})
	op := start(t, e, spec, func(ctx context.Context, op *operation.Op) (any, error) {
		op.Undo("all", func(context.Context) error { t.Error("undone because of a shutdown"); return nil })
		must(t, op.Step(ctx, "prepare", func(context.Context) error { return op.Save("volumes", []string{"/a"}) }))
		return nil, op.Step(ctx, "perform", func(ctx context.Context) error {
			close(begun)
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), operation.ErrShutdown) {
				t.Errorf("cause: %v", context.Cause(ctx))
			}
			return errors.New("call was interrupted")
		})
	})
	<-begun
	waited := make(chan api.Operation, 1)
	go func() {
		op, _ := e.Wait(context.Background(), op.ID, deadline)
		waited <- op
	}()
	closeEngine(t, e)
	if got := <-waited; got.Ended() {
		t.Errorf("ended as %s by a shutdown", got.Status)
	}
	return op
}

func TestShutdownLeavesOperationsToTheNextStart(t *testing.T) {
	s := store.Memory()
	spec := vm("vm1")
	spec.Request = "to b"
	left := interrupted(t, s, spec)

	e := open(t, s)
	ref := api.Ref{Name: "vm1"}
	if h := e.Holder(ref); h != left.ID {
		t.Errorf("before resume the instance is held by %q", h)
	}
	_, err := e.Start(t.Context(), vm("vm1"), nothing)
	code(t, err, "busy")
	before, err := e.Get(t.Context(), left.ID)
	must(t, err)
	if diff := cmp.Diff([]string{"prepare done", "perform running"}, steps(before)); diff != "" || before.Status != api.StatusRunning {
		t.Errorf("%s: %s", before.Status, diff)
	}

	proceed := make(chan struct{})
	e.Recover("test", func(ctx context.Context, op *operation.Op) (any, error) {
		<-proceed
		var volumes []string
		var request string
		found, err := op.Load("volumes", &volumes)
		must(t, errors.Join(err, op.Request(&request)))
		if !found || len(volumes) != 1 || request != "to b" || op.Ref() != (api.Ref{Project: "default", Name: "vm1"}) {
			t.Errorf("recovery got %v, %q, %+v", volumes, request, op.Ref())
		}
		if found, err := op.Load("other", &volumes); found || err != nil {
			t.Errorf("data never saved: %t, %v", found, err)
		}
		if !op.Recovered() || op.Interrupted() != "perform" || op.Cancelled() || op.Failure() != nil || len(op.Steps()) != 2 {
			t.Errorf("recovered %t, interrupted in %q, failure %v, steps %v", op.Recovered(), op.Interrupted(), op.Failure(), op.Steps())
		}
		return "done", op.Step(ctx, "finish", func(context.Context) error { return nil })
	})
	must(t, e.Resume(t.Context()))
	must(t, e.Resume(t.Context())) // again: nothing left to resume
	if n := e.InFlight(); n["test"] != 1 {
		t.Errorf("in flight: %v", n)
	}
	_, err = e.Cancel(t.Context(), left.ID)
	code(t, err, "conflict")
	close(proceed)
	got := ended(t, e, left.ID)
	if got.Status != api.StatusSucceeded || string(got.Result) != `"done"` || e.Holder(ref) != "" {
		t.Errorf("%s, %s, held by %q", got.Status, got.Result, e.Holder(ref))
	}
	if diff := cmp.Diff([]string{"prepare done", "perform failed", "finish done"}, steps(got)); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownKindIsInterrupted(t *testing.T) {
	s := store.Memory()
	left := interrupted(t, s, vm("vm1"))
	e := open(t, s)
	must(t, e.Resume(t.Context()))
	got := ended(t, e, left.ID)
	if got.Status != api.StatusFailed || got.Error.Code != "interrupted" || got.Error.Phase != "perform" {
		t.Errorf("%s, %+v", got.Status, got.Error)
	}
	run(t, e, vm("vm1"), nothing)
}

func TestCancelIsRememberedByTheRecovery(t *testing.T) {
	s := store.Memory()
	e := open(t, s)
	hang := make(chan struct{})
	defer close(hang)
	op := start(t, e, vm("vm1"), func(context.Context, *operation.Op) (any, error) { <-hang; return nil, nil })
	_, err := e.Cancel(t.Context(), op.ID)
	must(t, err)
	crashed := open(t, onDisk(t, s))
	crashed.Recover("test", func(ctx context.Context, op *operation.Op) (any, error) {
		if !op.Cancelled() || ctx.Err() != nil {
			t.Errorf("cancelled %t, context %v", op.Cancelled(), ctx.Err())
		}
		return nil, api.NewProblem("interrupted", "rolled back")
	})
	must(t, crashed.Resume(t.Context()))
	if got, err := crashed.Wait(t.Context(), op.ID, deadline); err != nil || got.Status != api.StatusCancelled {
		t.Errorf("%s, %v", got.Status, err)
	}
}

// A crash in the middle of undoing must lead to a roll back, with the first cause.
func TestFailureIsRememberedByTheRecovery(t *testing.T) {
	f := &faulty{Store: store.Memory()}
	e := open(t, f)
	op := run(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		op.Undo("volumes", func(context.Context) error { f.set(errBroken); return nil })
		return nil, op.Step(ctx, "perform", func(context.Context) error { return api.NewProblem("migration-failed", "no route") })
	})
	f.set(nil)

	e2 := open(t, f)
	e2.Recover("test", func(_ context.Context, op *operation.Op) (any, error) {
		if op.Interrupted() != "volumes" {
			t.Errorf("interrupted in %q", op.Interrupted())
		}
		return nil, op.Failure()
	})
	must(t, e2.Resume(t.Context()))
	got := ended(t, e2, op.ID)
	if got.Status != api.StatusFailed || got.Error.Code != "migration-failed" || got.Error.Phase != "perform" {
		t.Errorf("%s, %+v", got.Status, got.Error)
	}
}

func TestBrokenEntryDoesNotKeepTheOthers(t *testing.T) {
	s := store.Memory()
	must(t, s.Put("operations", "00BROKEN", []byte("{")))
	left := interrupted(t, s, vm("vm1"))
	e := open(t, s)
	must(t, e.Resume(t.Context()))
	ended(t, e, left.ID)
	ops, err := e.List(t.Context(), "", "")
	if err != nil || len(ops) != 1 {
		t.Errorf("%d operations, %v", len(ops), err)
	}
}

func TestCloseIsBounded(t *testing.T) {
	e := open(t, store.Memory())
	hang := make(chan struct{})
	op := start(t, e, vm("vm1"), func(context.Context, *operation.Op) (any, error) { <-hang; return nil, errors.New("late") })
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
	close(hang)
	closeEngine(t, e)
	if got, err := e.Get(t.Context(), op.ID); err != nil || got.Ended() {
		t.Errorf("an operation that failed after the shutdown: %s, %v", got.Status, err)
	}
}
