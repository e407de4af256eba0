package operation

import (
	"github.com/wherry-kvm/wherry/http/api"
)

// phaseQueued is shown while an operation waits for its turn.
const phaseQueued = "queued"

// Queued journals that the operation waits for its turn: it is pending again,
// in phase "queued", whatever phase it was in. The function that it gives
// journals that it goes on where it was. What it waits for is told by Progress.
func (o *Op) Queued() (goOn func() error, err error) {
	was := ""
	err = o.e.journal(o.en, phaseQueued, func(r *record) {
		was = r.Phase
		r.Status = api.StatusPending
		// "cancelling" stays the phase that readers see.
		if !r.CancelRequested {
			r.Phase = phaseQueued
		}
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		return o.e.journal(o.en, "its turn", func(r *record) {
			r.Status = api.StatusRunning
			if !r.CancelRequested {
				r.Phase = was
			}
		})
	}, nil
}

// Note journals something that was done within a phase, and why.
func (o *Op) Note(name, why string) error {
	now := o.e.now().UTC()
	return o.e.journal(o.en, name, func(r *record) {
		r.Steps = append(r.Steps, api.Step{Name: name, Status: StepDone, StartedAt: now, EndedAt: &now, Detail: why})
	})
}
