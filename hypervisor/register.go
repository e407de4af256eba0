package hypervisor

import (
	"time"

	"libvirt.org/go/libvirt"
)

// register subscribes a new control connection to events. Lifecycle events are
// needed; the others only where the driver has them.
func (c *Client) register(l *link) error {
	id, err := l.conn.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
		action, detail := lifecycleText(e.Event, e.Detail)
		c.emit(d, Event{Kind: KindLifecycle, Action: action, Detail: detail})
	})
	if err != nil {
		return wrap("subscribe to", KindLifecycle, err)
	}
	l.undoEvent(id)

	id, err = l.conn.DomainEventJobCompletedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, _ *libvirt.DomainEventJobCompleted) {
		c.emit(d, Event{Kind: KindJobCompleted})
	})
	l.optional(id, err)

	id, err = l.conn.DomainEventMigrationIterationRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventMigrationIteration) {
		c.emit(d, Event{Kind: KindIteration, Iteration: e.Iteration})
	})
	l.optional(id, err)

	id, err = l.conn.DomainEventBlockJob2Register(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventBlockJob) {
		c.emit(d, Event{Kind: KindBlockJob, Target: e.Disk, Action: blockJobStatus(e.Status), Detail: blockJobType(e.Type)})
	})
	l.optional(id, err)
	return nil
}

// emit fills in whose event it is. The handle belongs to libvirt's callback,
// and its name and UUID are local: no round trip in the event loop.
func (c *Client) emit(d *libvirt.Domain, e Event) {
	e.At = time.Now()
	e.Name, _ = d.GetName()
	e.UUID, _ = d.GetUUIDString()
	c.hub.publish(e)
}

func (l *link) undoEvent(id int) {
	l.onClose = append(l.onClose, func() { _ = l.conn.DomainEventDeregister(id) })
}

func (l *link) optional(id int, err error) {
	if err != nil {
		l.log.Debug("event not available", "err", err)
		return
	}
	l.undoEvent(id)
}
