package operation

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// phaseCancelling is shown from the cancel request to the end.
const phaseCancelling = "cancelling"

// Get gives an operation, also an ended one until it is swept; "not-found"
// after that.
func (e *Engine) Get(_ context.Context, id string) (api.Operation, error) {
	if en := e.find(id); en != nil {
		return e.read(en), nil
	}
	r, err := e.stored(id)
	return r.Operation, err
}

func (e *Engine) find(id string) *entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.live[id]
}

func (e *Engine) read(en *entry) api.Operation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return en.snapshot()
}

// List gives operations in the order of their creation. An empty instance or
// status means any; the instance may be given as project/name.
func (e *Engine) List(ctx context.Context, instance, status string) ([]api.Operation, error) {
	out := []api.Operation{}
	err := e.store.List(bucketOperations, func(id string, value []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r, err := decode(id, value)
		if err != nil {
			e.log.Error("journal entry skipped", "operation", id, "error", err)
			return nil
		}
		op := r.Operation
		if en := e.find(id); en != nil {
			op = e.read(en)
		}
		if matches(op, instance, status) {
			out = append(out, op)
		}
		return nil
	})
	return out, err
}

func matches(op api.Operation, instance, status string) bool {
	return (status == "" || op.Status == status) &&
		(instance == "" || op.Instance == instance || op.Instance != "" && op.Project+"/"+op.Instance == instance)
}

// Wait gives the operation when it has ended, or d is over, or the engine
// closes; an ended ctx is an error.
func (e *Engine) Wait(ctx context.Context, id string, d time.Duration) (api.Operation, error) {
	en := e.find(id)
	if en == nil {
		return e.Get(ctx, id)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-en.done:
	case <-timer.C:
	case <-e.base.Done():
	case <-ctx.Done():
		return e.read(en), context.Cause(ctx)
	}
	return e.read(en), nil
}

// Cancel asks an operation to stop and returns at once with the operation in
// phase "cancelling". Asking again, or asking an ended one, is no error. One
// that cannot be cancelled now gives a "conflict" that says why.
func (e *Engine) Cancel(ctx context.Context, id string) (api.Operation, error) {
	en := e.find(id)
	if en == nil {
		return e.Get(ctx, id)
	}
	e.mu.Lock()
	op := en.snapshot()
	if op.Ended() || en.cancelled || en.ending {
		e.mu.Unlock()
		return op, nil
	}
	if !en.cancellable {
		why := en.whyNot
		e.mu.Unlock()
		return op, e.notCancellable(en, op, why)
	}
	// Both under mu: after NotCancellable no cancel can come through, and one
	// that came before is already in the context.
	en.cancelled = true
	en.cancel(ErrCancelled)
	e.mu.Unlock()
	e.order.Lock()
	defer e.order.Unlock()
	if op = e.read(en); op.Ended() {
		return op, nil
	}
	err := e.journalOrdered(en, phaseCancelling, func(r *record) {
		e.requestCancel(en, r)
	}, nil)
	return e.read(en), err
}

// requestCancel notes in the record that the operation was cancelled. Where it has
// passed its point of no return before that could be noted, its phase stays the
// truth.
func (e *Engine) requestCancel(en *entry, r *record) {
	r.CancelRequested = true
	if !e.late(en) {
		r.Phase = phaseCancelling
	}
}

// late tells whether the operation is past its point of no return.
func (e *Engine) late(en *entry) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return en.late
}

func (e *Engine) notCancellable(en *entry, op api.Operation, told string) *api.Problem {
	why := "the operation cannot be cancelled"
	switch {
	case told != "":
		why = told
	case en.recovered:
		why = "the operation was interrupted and is being recovered"
	case op.Phase != "":
		why = "it is past the point where it can be undone, in phase " + op.Phase
	}
	return api.NewProblem("conflict", "operation %s (%s) cannot be cancelled: %s", op.ID, op.Kind, why).
		WithOperation(op.ID).WithPhase(op.Phase)
}
