package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/wherry-kvm/wherry/http/api"
)

// undo is one thing to take back.
type undo struct {
	name string
	fn   func(context.Context) error
}

// run does the work of an operation and journals how it ended.
func (e *Engine) run(en *entry, fn Func) {
	defer en.cancel(nil)
	op := &Op{e, en}
	log := e.log.With("operation", op.ID(), "kind", op.Kind(), "instance", op.Ref().String())
	log.Info("operation begins", "recovered", en.recovered)
	var result json.RawMessage
	err := e.granted(en)
	if err == nil {
		err = guard("operation "+op.Kind(), func(r any) { log.Error("panic", "value", r, "stack", string(debug.Stack())) },
			func() error {
				v, err := fn(en.ctx, op)
				if err == nil && v != nil {
					if result, err = json.Marshal(v); err != nil {
						err = fmt.Errorf("result: %w", err)
					}
				}
				return err
			})
	}
	if err != nil && e.closing() {
		// What failed may have failed because of the shutdown. The operation
		// stays unfinished, its lock stays taken, and the next start decides.
		log.Info("operation left for the next start", "error", err)
		return
	}
	status, problem := outcome(err, op.ending())
	if status == api.StatusFailed || status == api.StatusCancelled {
		if left := op.rollBack(problem); left != nil {
			log.Error("undo incomplete", "error", left)
			if problem.Hint == "" {
				problem.Hint = fmt.Sprintf("not everything was undone: %v", left)
			}
		}
	}
	e.finish(en, status, result, problem)
	log.Info("operation ended", "status", status, "error", err)
}

// outcome decides how an operation ended, which was cancelled unless that is
// nil. A decision that someone must take comes before a cancel: nothing may be
// undone then.
func outcome(err error, cancelled *api.Problem) (status string, p *api.Problem) {
	if err == nil {
		return api.StatusSucceeded, nil
	}
	found, ok := errors.AsType[*api.Problem](err)
	switch {
	case ok:
		// A copy: the caller may hold on to its own.
		c := *found
		p = &c
	case errors.Is(err, context.DeadlineExceeded):
		p = api.NewProblem("timeout", "%w", err)
	default:
		p = api.AsProblem(err)
	}
	if in, ok := errors.AsType[*phaseError](err); ok && p.Phase == "" {
		p.Phase = in.phase
	}
	switch {
	case p.Code == "needs-decision":
		return api.StatusNeedsDecision, p
	case cancelled != nil:
		c := cancelled.WithDisk(p.Disk).WithPhase(p.Phase)
		// What the work said when it was stopped, unless it only said that.
		if p.Detail != c.Detail && p.Detail != ErrCancelled.Error() && p.Detail != context.Canceled.Error() {
			c.Detail += ": " + p.Detail
		}
		c.Hint, c.Reasons = p.Hint, p.Reasons
		return api.StatusCancelled, c
	}
	return api.StatusFailed, p
}

// ending closes the operation to Cancel, and gives what it ends with if one
// came before.
func (o *Op) ending() (cancelled *api.Problem) {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.en.ending = true
	if !o.en.cancelled || o.en.late {
		return nil
	}
	return o.en.cancelProblem()
}

// rollBack runs the undo functions in reverse, every one of them, and gives
// all their errors.
func (o *Op) rollBack(why *api.Problem) error {
	o.e.mu.Lock()
	todo := o.en.undo
	o.en.undo = nil
	o.e.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	// Journalled first: a crash in the middle of undoing must not make the
	// recovery go forward, nor lose why.
	failure := *why
	errs := []error{o.e.journal(o.en, "undoing", func(r *record) { r.Failure = &failure })}
	for i := len(todo) - 1; i >= 0; i-- {
		errs = append(errs, o.undoOne(todo[i]))
	}
	return errors.Join(errs...)
}

func (o *Op) undoOne(u undo) error {
	at := -1
	jerr := o.e.journal(o.en, "undo "+u.name+": running", func(r *record) {
		at = len(r.Steps)
		r.Steps = append(r.Steps, api.Step{Name: u.name, Status: StepRunning, StartedAt: o.e.now().UTC()})
	})
	// Undoing is owed even when the journal, or the request, is gone.
	ctx, stop := context.WithTimeout(context.WithoutCancel(o.en.ctx), o.e.undoTimeout)
	defer stop()
	err := guard("undo "+u.name, func(r any) { o.e.log.Error("panic", "value", r, "stack", string(debug.Stack())) },
		func() error { return u.fn(ctx) })
	status, detail := StepUndone, ""
	if err != nil {
		status, detail = StepFailed, err.Error()
		err = fmt.Errorf("undo %s: %w", u.name, err)
	}
	if jerr == nil {
		jerr = o.e.journal(o.en, "undo "+u.name+": "+status, func(r *record) { o.e.endStep(r, at, status, detail) })
	}
	return errors.Join(err, jerr)
}

// lastPhase is how far an operation has come: to where its problem arose, or,
// where it has succeeded, to its last step.
func lastPhase(r *record, p *api.Problem) string {
	switch {
	case p != nil:
		return p.Phase
	case len(r.Steps) > 0:
		return r.Steps[len(r.Steps)-1].Name
	}
	return ""
}

// finish journals the end, which lets go of the instance, and then wakes those
// who wait.
func (e *Engine) finish(en *entry, status string, result json.RawMessage, p *api.Problem) {
	e.order.Lock()
	defer e.order.Unlock()
	end := func(r *record) {
		r.Status, r.Result, r.Error, r.Cancellable = status, result, p, false
		if r.CancelRequested { // it is not "cancelling" any more
			r.Phase = lastPhase(r, p)
		}
	}
	err := e.journalOrdered(en, status, end, nil)
	if err != nil {
		// The end is true all the same, so readers see it. It stays in memory
		// until the journal takes it; after a crash it would be recovered.
		e.log.Error("end of operation not journalled", "operation", en.id, "error", err)
		e.mu.Lock()
		next := en.rec
		next.Progress, next.UpdatedAt = en.progress, e.now().UTC()
		e.mu.Unlock()
		end(&next)
		e.adopt(en, next, status)
	}
	e.mu.Lock()
	if err == nil {
		delete(e.live, en.id)
	}
	e.mu.Unlock()
	close(en.done)
	e.sweep()
}
