package hypervisor

import (
	"context"
	"errors"

	"libvirt.org/go/libvirt"
)

// Checkpoints names the domain's checkpoints: points in time that incremental
// backups begin at, each kept as a bitmap in the images of the disks. None where
// the driver knows no such thing.
func (c *Client) Checkpoints(ctx context.Context, name string) ([]string, error) {
	names, err := withDomain(ctx, c, "list checkpoints of", name, func(_ *link, d *libvirt.Domain) ([]string, error) {
		all, err := d.ListAllCheckpoints(0)
		if err != nil {
			return nil, err
		}
		var names []string
		var errs []error
		for _, p := range all {
			n, err := p.GetName()
			names, errs = append(names, n), append(errs, err, p.Free())
		}
		return names, errors.Join(errs...)
	})
	if errors.Is(err, ErrUnsupported) {
		return nil, nil
	}
	return names, err
}
