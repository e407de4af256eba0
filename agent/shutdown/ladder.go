package shutdown

import (
	"context"
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

// Press presses the power button.
func (d direct) Press(ctx context.Context) error {
	err := d.Session.Press(ctx)
	// A libvirt that is there holds the monitor, and its word counts.
	if err == nil || d.up() || ctx.Err() != nil {
		return err
	}
	return d.monitor.Press(ctx, d.name, d.uuid)
}
