package hypervisor

import (
	"context"
	"time"
)

// guardKeepAlive finds a dead destination in 15 to 18 s. It has to be sooner
// than the source's libvirt, which takes 25 to 30 s with the keepalive that
// qemu.conf has by default.
var guardKeepAlive = KeepAlive{Interval: 3 * time.Second, Count: 5}

// guard watches the destination's libvirt while disks are being copied there,
// and cuts the copies' connections when it is lost.
//
// libvirt notices the loss too, but then cancels the mirrors first, and QEMU
// waits for their sockets with its main loop: the guest would stand still for
// as long as TCP tries (see stopMigration). A connection that cannot be opened
// is no reason to stop: then there is no guard, and the caller's context is all.
func (c *Client) guard(ctx context.Context, name, destURI string) {
	l, err := dialLink(destURI, guardKeepAlive, c.log, &c.handles)
	if err != nil {
		c.log.Warn("migration is not guarded against a dead network", "domain", name, "err", err)
		return
	}
	defer l.close()
	select {
	case <-ctx.Done():
		return
	case <-l.lost:
	}
	c.log.Warn("lost the destination during the migration, cutting its disk copies", "domain", name)
	for ctx.Err() == nil {
		n, err := c.Yank(ctx, name)
		c.log.Info("yanked disk copies", "domain", name, "connections", n, "err", err)
		pause(ctx, guardKeepAlive.Interval)
	}
}
