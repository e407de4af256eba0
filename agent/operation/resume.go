package operation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/wherry-kvm/wherry/http/api"
)

// loadUnfinished takes up the operations that an earlier process left, with
// their locks: from the moment the journal is open nobody else may touch their
// instances.
func (e *Engine) loadUnfinished() error {
	return e.store.List(bucketOperations, func(id string, value []byte) error {
		if last, err := ulid.ParseStrict(id); err == nil {
			e.last = last // the list is in order
		}
		r, err := decode(id, value)
		if err != nil {
			// One broken entry must not keep the agent from the others.
			e.log.Error("journal entry skipped", "operation", id, "error", err)
			return nil
		}
		if r.Ended() {
			e.noteUndecided(&r)
			return nil
		}
		en := e.newEntry(r)
		// Cancelling a recovery would leave the truth unknown; the recovery
		// opens the door where it can.
		en.recovered, en.cancelled, en.progress = true, r.CancelRequested, r.Progress
		e.lockAgain(en)
		e.live[id] = en
		return nil
	})
}

// Resume hands every unfinished operation to the recovery of its kind, in the
// background. One whose kind has no recovery ends as failed, "interrupted".
// It returns the store's errors; the operations concerned stay unfinished and
// locked.
func (e *Engine) Resume(ctx context.Context) error {
	var errs []error
	for _, en := range e.unresumed() {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		if err := e.resume(en); err != nil { //nolint:contextcheck // an operation outlives Resume: its context is the engine's
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// unresumed gives the entries to be recovered, in the order of their start.
func (e *Engine) unresumed() (out []*entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(e.live)) {
		if en := e.live[id]; en.recovered && !en.resumed {
			out = append(out, en)
		}
	}
	return out
}

func (e *Engine) resume(en *entry) error {
	e.order.Lock()
	defer e.order.Unlock()
	if e.closing() {
		return fmt.Errorf("operation %s: %w", en.id, ErrShutdown)
	}
	e.mu.Lock()
	recovery := e.recovery[en.kind]
	for _, s := range en.rec.Steps {
		if s.Status == StepRunning {
			en.interrupted = s.Name
		}
	}
	e.mu.Unlock()
	err := e.journalOrdered(en, "resumed", func(r *record) {
		r.Status = api.StatusRunning
		for i, s := range r.Steps {
			if s.Status == StepRunning {
				e.endStep(r, i, StepFailed, "interrupted: the agent stopped while this ran")
			}
		}
	}, nil)
	if err != nil {
		return err
	}
	e.mu.Lock()
	en.resumed = true
	e.mu.Unlock()
	if recovery == nil {
		recovery = noRecovery
	}
	e.work.Go(func() { e.run(en, recovery) })
	return nil
}

func noRecovery(_ context.Context, op *Op) (any, error) {
	if p := op.Failure(); p != nil {
		return nil, p
	}
	p := api.NewProblem("interrupted", "the agent stopped while the operation ran, and %q has no recovery", op.Kind())
	return nil, p.WithPhase(op.Interrupted()).WithHint("look at what the operation was about, then ask again")
}
