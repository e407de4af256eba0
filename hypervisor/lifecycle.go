package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Define stores a domain's definition, or replaces the one of the same name
// and UUID.
func (c *Client) Define(ctx context.Context, xml string) error {
	_, err := onControl(ctx, c, "define domain", "", func(l *link) (none, error) {
		d, err := l.conn.DomainDefineXML(xml)
		if err != nil {
			return none{}, err
		}
		l.own(d)()
		return none{}, nil
	})
	return err
}

// Undefine removes a domain's definition, its managed save image and its NVRAM
// file. Snapshots stand in the way. A domain that runs becomes transient.
func (c *Client) Undefine(ctx context.Context, name string) error {
	return change(ctx, c, "undefine", name, func(d *libvirt.Domain) error {
		var err error
		// Drivers differ in which flags they know; an unknown one is an error.
		for _, flags := range []libvirt.DomainUndefineFlagsValues{
			libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.DOMAIN_UNDEFINE_NVRAM,
			libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE,
			0,
		} {
			err = d.UndefineFlags(flags)
			if !isCode(err, libvirt.ERR_INVALID_ARG, libvirt.ERR_NO_SUPPORT) {
				return err
			}
		}
		return err
	})
}

// Start boots a defined domain, with paused its CPUs stay stopped. When ctx
// ends first the start goes on: look at the state afterwards.
func (c *Client) Start(ctx context.Context, name string, paused bool) error {
	var flags libvirt.DomainCreateFlags
	if paused {
		flags |= libvirt.DOMAIN_START_PAUSED
	}
	return change(ctx, c, "start", name, func(d *libvirt.Domain) error { return d.CreateWithFlags(flags) })
}

// Destroy ends the domain's process, as if its power were cut. One that does
// not run is success.
func (c *Client) Destroy(ctx context.Context, name string) error {
	return change(ctx, c, "destroy", name, destroy)
}

func destroy(d *libvirt.Domain) error {
	err := d.Destroy()
	if !isCode(err, libvirt.ERR_OPERATION_INVALID) {
		return err
	}
	if active, aerr := d.IsActive(); aerr == nil && !active {
		return nil
	}
	return err
}

// Suspend stops the domain's CPUs.
func (c *Client) Suspend(ctx context.Context, name string) error {
	return change(ctx, c, "suspend", name, (*libvirt.Domain).Suspend)
}

// Resume lets the domain's CPUs run.
func (c *Client) Resume(ctx context.Context, name string) error {
	return change(ctx, c, "resume", name, (*libvirt.Domain).Resume)
}
