package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"
)

// WithDomain lets a test do to a domain what nobody else has to.
func (c *Client) WithDomain(ctx context.Context, name string, fn func(context.Context, *libvirt.Domain) error) error {
	return change(ctx, c, "test", name, func(d *libvirt.Domain) error { return fn(ctx, d) })
}
