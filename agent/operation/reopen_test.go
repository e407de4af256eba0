package operation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

func doubtful(name string) operation.Spec {
	s := vm(name)
	s.Decidable = true
	return s
}

func inDoubt(context.Context, *operation.Op) (any, error) {
	return nil, api.NewProblem("needs-decision", "both paused")
}

// While nobody has decided where an instance goes on nothing is begun on it,
// also after a restart. It can be stopped, though, and others go on.
func TestUndecidedInstanceIsLeftAlone(t *testing.T) {
	s := store.Memory()
	e := open(t, s)
	op := run(t, e, doubtful("vm"), inDoubt)
	if op.Status != api.StatusNeedsDecision {
		t.Fatalf("operation %s", op.Status)
	}
	closeEngine(t, e)
	e = open(t, s)
	for _, claim := range []operation.Claim{"", operation.ClaimStart, operation.ClaimMigrate, operation.ClaimRestart, "delete"} {
		spec := vm("vm")
		spec.Claim = claim
		_, err := e.Start(t.Context(), spec, nothing)
		if p := problem(t, err, "busy"); p.Operation != op.ID || p.Hint == "" {
			t.Errorf("claim %q: %+v; want it to name the operation", claim, p)
		}
	}
	for _, claim := range []operation.Claim{operation.ClaimStop, operation.ClaimStopAtLast, operation.ClaimForceStop} {
		spec := vm("vm")
		spec.Claim = claim
		run(t, e, spec, nothing)
	}
	run(t, e, vm("other"), nothing)
}

// The continuation holds the instance, is journalled with what was decided, and
// frees the instance once there is no doubt any more.
func TestReopen(t *testing.T) {
	e := open(t, store.Memory())
	op := run(t, e, doubtful("vm"), inDoubt)
	release := make(chan struct{})
	again, err := e.Reopen(t.Context(), op.ID, "choice", "source", func(_ context.Context, op *operation.Op) (any, error) {
		<-release
		var choice string
		found, err := op.Load("choice", &choice)
		if err != nil || !found || choice != "source" {
			t.Errorf("choice %q, %v, %v", choice, found, err)
		}
		return "done", nil
	})
	must(t, err)
	if again.ID != op.ID || again.Status != api.StatusRunning || again.Error != nil {
		t.Errorf("taken up again: %+v", again)
	}
	_, err = e.Start(t.Context(), vm("vm"), nothing)
	if p := problem(t, err, "busy"); p.Operation != op.ID {
		t.Errorf("%+v; want it held", p)
	}
	_, err = e.Reopen(t.Context(), op.ID, "choice", "destination", nothing)
	code(t, err, "conflict")
	close(release)
	if op = ended(t, e, op.ID); op.Status != api.StatusSucceeded || string(op.Result) != `"done"` {
		t.Errorf("ended as %+v", op)
	}
	_, err = e.Reopen(t.Context(), op.ID, "choice", "source", nothing)
	code(t, err, "conflict")
	run(t, e, vm("vm"), nothing)
}

// What is no such operation cannot be taken up, and neither while another holds
// the instance.
func TestReopenIsRefused(t *testing.T) {
	e := open(t, store.Memory())
	plain := run(t, e, vm("plain"), inDoubt)
	for id, want := range map[string]string{"01JZZZZZZZZZZZZZZZZZABCDEF": "not-found", plain.ID: "conflict"} {
		_, err := e.Reopen(t.Context(), id, "choice", nil, nothing)
		code(t, err, want)
	}
	op := run(t, e, doubtful("vm"), inDoubt)
	stop := vm("vm")
	stop.Claim = operation.ClaimStop
	holder := start(t, e, stop, untilStopped)
	_, err := e.Reopen(t.Context(), op.ID, "choice", nil, nothing)
	if p := problem(t, err, "busy"); p.Operation != holder.ID {
		t.Errorf("%+v; want it to name the holder", p)
	}
}

// A crash in the middle of the continuation: the recovery goes on with it. One
// that fails is open to another decision.
func TestReopenSurvivesACrash(t *testing.T) {
	s := store.Memory()
	e := open(t, s)
	op := run(t, e, doubtful("vm"), inDoubt)
	begun := make(chan struct{})
	_, err := e.Reopen(t.Context(), op.ID, "choice", "source", func(ctx context.Context, op *operation.Op) (any, error) {
		close(begun)
		return untilStopped(ctx, op)
	})
	must(t, err)
	<-begun
	left := onDisk(t, s)
	e = open(t, left)
	e.Recover("test", func(_ context.Context, op *operation.Op) (any, error) {
		var choice string
		if _, err := op.Load("choice", &choice); err != nil || choice != "source" {
			t.Errorf("choice %q, %v", choice, err)
		}
		return inDoubt(t.Context(), op)
	})
	must(t, e.Resume(t.Context()))
	if op = ended(t, e, op.ID); op.Status != api.StatusNeedsDecision {
		t.Fatalf("ended as %s", op.Status)
	}
	_, err = e.Reopen(t.Context(), op.ID, "choice", "destination", nothing)
	must(t, err)
	ended(t, e, op.ID)
}

// It is kept until someone has decided, however long that takes.
func TestUndecidedIsNotSwept(t *testing.T) {
	s, now := store.Memory(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func(o *operation.Options) { o.Now, o.Keep = func() time.Time { return now }, time.Hour }
	e := open(t, s, clock)
	op, plain := run(t, e, doubtful("vm"), inDoubt), run(t, e, vm("plain"), nothing)
	closeEngine(t, e)
	now = now.Add(48 * time.Hour)
	e = open(t, s, clock)
	_, err := e.Get(t.Context(), plain.ID)
	code(t, err, "not-found")
	_, err = e.Reopen(t.Context(), op.ID, "choice", nil, nothing)
	must(t, err)
}

// What operations name that have not ended, or need a decision, is told; what
// others have named is not.
func TestUnsettled(t *testing.T) {
	e := open(t, store.Memory())
	saves := func(ends operation.Func) operation.Func {
		return func(ctx context.Context, op *operation.Op) (any, error) {
			if err := op.Save("disks", []string{"/of/" + op.Ref().Name}); err != nil {
				return nil, err
			}
			return ends(ctx, op)
		}
	}
	run(t, e, vm("over"), saves(nothing))
	run(t, e, doubtful("doubt"), saves(inDoubt))
	begun := make(chan struct{})
	start(t, e, vm("running"), saves(func(ctx context.Context, op *operation.Op) (any, error) {
		close(begun)
		return untilStopped(ctx, op)
	}))
	<-begun
	named := map[string]bool{}
	must(t, e.Unsettled(func(_ string, value []byte) error { named[string(value)] = true; return nil }))
	for value, want := range map[string]bool{`["/of/over"]`: false, `["/of/doubt"]`: true, `["/of/running"]`: true} {
		if named[value] != want {
			t.Errorf("%s is told: %v; want %v", value, named[value], want)
		}
	}
}

// An end that the store has refused can be decided about as soon as the store
// takes it, and until then it is said what is in the way.
func TestReopenOfAnEndThatWasNotJournalled(t *testing.T) {
	s := &faulty{Store: store.Memory()}
	e := open(t, s)
	op := run(t, e, doubtful("vm"), func(ctx context.Context, op *operation.Op) (any, error) {
		s.set(errBroken)
		return inDoubt(ctx, op)
	})
	if op.Status != api.StatusNeedsDecision {
		t.Fatalf("operation %s", op.Status)
	}
	if _, err := e.Reopen(t.Context(), op.ID, "choice", "source", nothing); !errors.Is(err, errBroken) {
		t.Errorf("error %v; want the store's", err)
	}
	s.set(nil)
	_, err := e.Reopen(t.Context(), op.ID, "choice", "source", nothing)
	must(t, err)
	if op = ended(t, e, op.ID); op.Status != api.StatusSucceeded {
		t.Errorf("ended as %+v", op)
	}
}
