package migrate

import (
	"context"
	"errors"

	"github.com/wherry-kvm/wherry/agent/guard"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// Guards keep the copy here from running beside the one at the destination, in a
// process each, see package guard. Volumes that are not files they cannot hold:
// there it is left to [migration.halt], which comes after the fact.
type Guards interface {
	// Set sets one that outlives this process, unless there is one already.
	Set(ctx context.Context, s guard.Spec) error
	// Rest ends its listening, and tells what it has of the volumes.
	Rest(operation string) guard.Hold
	// Lift ends it. Where there is none it does nothing.
	Lift(operation string)
}

// setGuard has the migration guarded. underway: the guest may have been handed
// over before.
func (m *migration) setGuard(ctx context.Context, underway bool) {
	if m.Guards == nil || len(m.state.Sources) == 0 || !m.state.Ran {
		return // nothing to hold, or nothing that libvirt would start
	}
	s := guard.Spec{Operation: m.op.ID(), Name: m.ref.Name, UUID: m.state.UUID, Underway: underway, Before: m.state.SentBefore, Files: make([]volume.Owned, 0, len(m.state.Sources))}
	for _, v := range m.state.Sources {
		s.Files = append(s.Files, v.Owned)
	}
	if err := m.Guards.Set(ctx, s); err != nil {
		m.Log.Warn("nobody keeps libvirt from starting the instance here again, should the destination's answer get lost",
			"operation", m.op.ID(), "error", err)
	}
}

// noteBar ends the listening, and writes down that libvirt could not start the
// instance again: whoever finds it paused knows that it is to run, if it is to be
// this copy.
func (m *migration) noteBar() {
	if m.Guards == nil {
		return
	}
	hold := m.Guards.Rest(m.op.ID())
	if hold == guard.Free || m.state.Barred {
		return
	}
	m.state.Barred, m.state.Held = true, hold == guard.Held
	if err := m.save(); err != nil {
		m.Log.Error("journalling that the source's volumes are held", "operation", m.op.ID(), "error", err)
	}
}

// lift lets go, whoever has set it.
func (m *migration) lift() {
	if m.Guards != nil {
		m.Guards.Lift(m.operation())
	}
}

// liftUnless lets go, unless the agent stops and the next one is to go on, or
// libvirt did not answer to the end: it may start the instance here when it comes
// back. Then it is for the decision to let go.
func (m *migration) liftUnless(err error) {
	if errors.Is(err, operation.ErrShutdown) || m.unheard && api.CodeOf(err) == "needs-decision" {
		return
	}
	m.lift()
}

// ran tells whether libvirt would start the instance again, where its migration
// fails.
func ran(d hypervisor.Domain) bool { return d.State == hypervisor.Running }
