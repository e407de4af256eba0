package shutdown

import (
	"context"
	"errors"
	"log/slog"

	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/monitor"
)

// HostLadder brings instances of this host down, with libvirt or without it: a
// guest can be asked through QEMU's own monitor while libvirt is not there.
type HostLadder struct {
	Client *hypervisor.Client
	Log    *slog.Logger
}

// Down climbs the ladder for one instance.
func (l HostLadder) Down(ctx context.Context, name, uuid string, o power.Options) (power.Result, error) {
	ladder := power.New(l.Client, l.Log)
	ladder.Status = func(ctx context.Context, name, uuid string) (string, error) {
		if l.Client.Up() {
			return "", errHeld
		}
		return monitor.Host{}.Status(ctx, name, uuid)
	}
	ladder.Session = func(name string) power.Session {
		return direct{Session: l.Client.Session(name), up: l.Client.Up, name: name, uuid: uuid}
	}
	return ladder.Down(ctx, name, uuid, o)
}

// direct is a session that does not need libvirt for what the monitor can do.
type direct struct {
	power.Session
	up         func() bool
	monitor    monitor.Host
	name, uuid string
}

// errHeld: a libvirt that is there holds the monitor, and its word counts.
var errHeld = errors.New("libvirt is there")

// Press presses the power button.
func (d direct) Press(ctx context.Context) error {
	return d.without(ctx, d.Session.Press(ctx), d.monitor.Press)
}

// Resume lets the CPUs run.
func (d direct) Resume(ctx context.Context) error {
	return d.without(ctx, d.Session.Resume(ctx), d.monitor.Resume)
}

// Wakeup wakes a guest that has suspended itself.
func (d direct) Wakeup(ctx context.Context) error {
	return d.without(ctx, d.Session.Wakeup(ctx), d.monitor.Wakeup)
}

// without does without libvirt what it failed to do, if it is not there.
func (d direct) without(ctx context.Context, err error, do func(ctx context.Context, name, uuid string) error) error {
	if err == nil || d.up() || ctx.Err() != nil {
		return err
	}
	return do(ctx, d.name, d.uuid)
}
