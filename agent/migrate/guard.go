package migrate

import (
	"context"

	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// guard keeps the copy here from running beside the one at the destination.
// Libvirt starts the guest here again when it does not hear that the destination
// has started it, although that may have happened. From the moment that QEMU has
// handed the guest over, the guard holds the source's volumes with QEMU's own
// locks: it cannot take them back, and so the guest stays paused until both hosts
// have been asked. Before that moment QEMU must be able to go on by itself, when
// the migration fails.
//
// Volumes that are not files, and an agent that is down at that moment, leave it
// to [migration.halt], which comes after the fact.
type guard struct {
	stop context.CancelFunc
	over chan struct{}
	bar  *volume.Bar // read when over
}

// newGuard begins to listen. underway: it may have been handed over before.
func (m *migration) newGuard(ctx context.Context, underway bool) *guard {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	g := &guard{stop: stop, over: make(chan struct{})}
	if len(m.state.Sources) == 0 || !m.state.Ran {
		close(g.over) // nothing to hold, or nothing that libvirt would start
		return g
	}
	handed, err := m.Power.HandedOver(ctx, m.ref.Name)
	if err != nil {
		m.Log.Warn("nobody keeps libvirt from starting the instance here again, should the destination's answer get lost",
			"operation", m.op.ID(), "error", err)
		close(g.over)
		return g
	}
	go func() {
		defer close(g.over)
		if sent := underway && m.sent(ctx); !sent {
			select {
			case <-handed:
			case <-ctx.Done():
				if !closed(handed) { // both may be ready
					return
				}
			}
		}
		g.hold(m)
	}()
	return g
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (m *migration) sent(ctx context.Context) bool {
	sent, err := m.Power.Sent(ctx, m.ref.Name)
	return sent && err == nil
}

// hold bars the volumes. Every millisecond counts: libvirt may hear that the
// answer is lost.
func (g *guard) hold(m *migration) {
	files := make([]volume.Owned, 0, len(m.state.Sources))
	for _, v := range m.state.Sources {
		files = append(files, v.Owned)
	}
	bar, err := volume.NewBar(files)
	if err != nil {
		m.Log.Warn("the source's volumes are not held", "operation", m.op.ID(), "error", err)
		return
	}
	g.bar = bar
}

// rest ends the listening, once libvirt's call has returned: what is held is
// held on. It tells whether anything is.
func (g *guard) rest() bool {
	g.stop()
	<-g.over
	return g.bar != nil
}

// noteBar ends the listening, and writes down that libvirt could not start the
// instance again: whoever finds it paused knows that it is to run, if it is to be
// this copy.
func (m *migration) noteBar() {
	if !m.guard.rest() || m.state.Barred {
		return
	}
	m.state.Barred = true
	if err := m.save(); err != nil {
		m.Log.Error("journalling that the source's volumes are held", "operation", m.op.ID(), "error", err)
	}
}

// lift lets go. With nil it does nothing.
func (g *guard) lift() {
	if g == nil {
		return
	}
	g.rest()
	g.bar.Lift()
}

// ran tells whether libvirt would start the instance again, where its migration
// fails.
func ran(d hypervisor.Domain) bool { return d.State == hypervisor.Running }
