package operation_test

import (
	"context"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// An operation that waits for its turn is pending again in the middle of a
// phase, which goes on afterwards; what was done within it is among the steps.
func TestQueuedWithinAPhase(t *testing.T) {
	e := open(t, store.Memory())
	waits, turn := make(chan struct{}), make(chan struct{})
	op := start(t, e, operation.Spec{Kind: "k", Cancellable: true}, func(ctx context.Context, op *operation.Op) (any, error) {
		return nil, op.Step(ctx, "prepare", func(context.Context) error {
			goOn, err := op.Queued()
			if err != nil {
				return err
			}
			close(waits)
			<-turn
			if err := goOn(); err != nil {
				return err
			}
			return op.Note("converge", "for a reason")
		})
	})
	<-waits
	got, err := e.Get(t.Context(), op.ID)
	must(t, err)
	if got.Status != api.StatusPending || got.Phase != "queued" || !got.Cancellable {
		t.Errorf("while it waits: %s in %q, cancellable %v", got.Status, got.Phase, got.Cancellable)
	}
	close(turn)
	got = ended(t, e, op.ID)
	if got.Status != api.StatusSucceeded || got.Phase != "prepare" || len(got.Steps) != 2 || got.Steps[1].Name != "converge" ||
		got.Steps[1].Detail != "for a reason" || got.Steps[0].Status != operation.StepDone {
		t.Errorf("at the end: %+v", got)
	}
}

// Who tries to cancel is told why that cannot be.
func TestNotCancellableFor(t *testing.T) {
	e := open(t, store.Memory())
	closed, end := make(chan struct{}), make(chan struct{})
	op := start(t, e, operation.Spec{Kind: "k", Cancellable: true}, func(_ context.Context, op *operation.Op) (any, error) {
		op.NotCancellableFor("neither half can do without the other")
		close(closed)
		<-end
		return nil, nil
	})
	<-closed
	_, err := e.Cancel(t.Context(), op.ID)
	if p := problem(t, err, "conflict"); p.Status != 409 || !strings.Contains(p.Detail, "neither half can do without the other") {
		t.Errorf("problem %+v", p)
	}
	close(end)
	if got := ended(t, e, op.ID); got.Status != api.StatusSucceeded {
		t.Errorf("ended as %s", got.Status)
	}
}
