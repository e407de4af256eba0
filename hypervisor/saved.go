package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Saved tells whether libvirt keeps the memory of a stopped domain (managed
// save). Its next start would go on from there, with the disks as that memory
// has them, and with the definition that was saved beside it.
func (c *Client) Saved(ctx context.Context, name string) (bool, error) {
	return withDomain(ctx, c, "look for saved memory of", name, func(_ *link, d *libvirt.Domain) (bool, error) {
		return d.HasManagedSaveImage(0)
	})
}
