package hypervisor

import (
	"context"

	"github.com/digitalocean/go-qemu/qmp"
)

// HandedOver gives one value: nil once the domain's QEMU says that it has handed
// the guest over to another host whole, from when on QEMU itself does not run it
// again, and libvirt may. ErrDown when the connection to libvirt is lost or ctx
// has ended. What was before the call is for [Client.Sent].
func (c *Client) HandedOver(ctx context.Context, name string) (<-chan error, error) {
	events, err := c.Monitor(name).Events(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan error, 1)
	go func() {
		for e := range events {
			if handsOver(e) {
				out <- nil
				return
			}
		}
		out <- wrap("listen to", name, ErrDown)
	}()
	return out, nil
}

// handsOver reads QEMU's event MIGRATION (qapi/migration.json), which libvirt has
// it send.
func handsOver(e qmp.Event) bool {
	return e.Event == "MIGRATION" && e.Data["status"] == "completed"
}
