package hypervisor

import (
	"context"

	"github.com/digitalocean/go-qemu/qmp"
)

// HandedOver gives a channel that is closed once the domain's QEMU says that it
// has handed the guest over to another host whole: from then on QEMU itself does
// not run it again, and libvirt may. It listens until ctx ends or the connection
// to libvirt is lost; what was before is for [Client.Sent].
func (c *Client) HandedOver(ctx context.Context, name string) (<-chan struct{}, error) {
	events, err := c.Monitor(name).Events(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan struct{})
	go func() {
		for e := range events {
			if handsOver(e) {
				close(out)
				return
			}
		}
	}()
	return out, nil
}

// handsOver reads QEMU's event MIGRATION (qapi/migration.json), which libvirt has
// it send.
func handsOver(e qmp.Event) bool {
	return e.Event == "MIGRATION" && e.Data["status"] == "completed"
}
