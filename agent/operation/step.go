package operation

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
)

// Statuses of a step.
const (
	StepRunning = "running"
	StepDone    = "done"
	StepFailed  = "failed"
	StepUndone  = "undone"
	StepSkipped = "skipped"
)

// Step runs one phase of the operation: journalled before it runs and after
// it ended. Where the journal cannot be written before, it does not run. A
// problem that do returns gets the phase's name if it has none; the error is
// otherwise returned as it is. If ctx has ended already, its cause is returned
// and nothing runs. When the agent shuts down, a phase that failed stays
// "running" in the journal: only the recovery can tell what became of it.
func (o *Op) Step(ctx context.Context, name string, do func(context.Context) error) error {
	if ctx.Err() != nil {
		return &phaseError{name, context.Cause(ctx)}
	}
	at := -1
	err := o.e.journal(o.en, name+": running", func(r *record) {
		at = len(r.Steps)
		r.Status = api.StatusRunning
		// "cancelling" stays the phase that readers see, unless it was too late.
		if !r.CancelRequested || o.e.late(o.en) {
			r.Phase = name
		}
		r.Steps = append(r.Steps, api.Step{Name: name, Status: StepRunning, StartedAt: o.e.now().UTC()})
	})
	if err != nil {
		return &phaseError{name, err}
	}
	return o.endStep(at, name, do(ctx))
}

// Skip journals a phase that was not needed, and why.
func (o *Op) Skip(name, why string) error {
	now := o.e.now().UTC()
	return o.e.journal(o.en, name+": skipped", func(r *record) {
		r.Steps = append(r.Steps, api.Step{Name: name, Status: StepSkipped, StartedAt: now, EndedAt: &now, Detail: why})
	})
}

func (o *Op) endStep(at int, name string, err error) error {
	err = inPhase(name, err)
	if err != nil && o.e.closing() {
		return err
	}
	status, detail := StepDone, ""
	if err != nil {
		status, detail = StepFailed, err.Error()
	}
	if jerr := o.e.journal(o.en, name+": "+status, func(r *record) { o.e.endStep(r, at, status, detail) }); jerr != nil {
		return errors.Join(err, &phaseError{name, jerr})
	}
	return err
}

func (e *Engine) endStep(r *record, at int, status, detail string) {
	now := e.now().UTC()
	r.Steps[at].Status, r.Steps[at].Detail, r.Steps[at].EndedAt = status, detail, &now
}

// phaseError carries the phase of an error that is no problem, without adding
// to its text: the text becomes the problem's detail.
type phaseError struct {
	phase string
	err   error
}

func (p *phaseError) Error() string { return p.err.Error() }
func (p *phaseError) Unwrap() error { return p.err }

func inPhase(name string, err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		if p.Phase == "" {
			p.Phase = name
		}
		return err
	}
	return &phaseError{name, err}
}

// guard turns a panic into an error: one job's bug must not end the others.
func guard(what string, onPanic func(any), fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			onPanic(r)
			err = fmt.Errorf("%s: panic: %v", what, r)
		}
	}()
	return fn()
}
