package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Domain is what libvirt knows about one domain without asking QEMU.
type Domain struct {
	Name, UUID string
	ID         int // QEMU process number of libvirt; -1 when it does not run
	State      State
	Reason     string // libvirt's reason for the state, e.g. "booted", "user", "migration"
	Persistent bool   // has a definition that outlives a shutdown
	Autostart  bool
	VCPUs      int
	Memory     int64 // bytes, the most the domain may use
	Snapshots  int   // libvirt's snapshots, internal and external
	// Incoming: this is the receiving end of a migration. Its QEMU answers
	// nothing until the source hands over; asking it may block for 30 s.
	Incoming bool
}

// Active tells whether there is a QEMU process. That of a guest that crashed is
// kept where its definition says so (on_crash "preserve").
func (d Domain) Active() bool {
	switch d.State {
	case Shutoff, NoState:
		return false
	case Crashed:
		return d.ID > 0
	}
	return true
}

// Domains lists every domain of this host, running or not. It asks in bulk and
// asks QEMU nothing, so a domain that is arriving or hangs delays nobody.
func (c *Client) Domains(ctx context.Context) ([]Domain, error) {
	return onLooks(ctx, c, "list domains", "", func(l *link) ([]Domain, error) {
		marks, err := l.marks()
		if err != nil {
			return nil, err
		}
		doms, err := l.conn.ListAllDomains(0)
		if err != nil {
			return nil, err
		}
		frees := make([]func(), len(doms))
		for i := range doms {
			frees[i] = l.own(&doms[i])
		}
		defer func() {
			for _, free := range frees {
				free()
			}
		}()
		out := make([]Domain, 0, len(doms))
		for i := range doms {
			d, err := l.describe(&doms[i], marks)
			if isCode(err, libvirt.ERR_NO_DOMAIN) {
				continue // went away since the list was made
			}
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
		return out, nil
	})
}

// Domain returns one domain by name, or ErrNoDomain.
func (c *Client) Domain(ctx context.Context, name string) (Domain, error) {
	return onLooks(ctx, c, "look up domain", name, func(l *link) (Domain, error) {
		d, free, err := l.domain(name)
		if err != nil {
			return Domain{}, err
		}
		defer free()
		return l.describe(d, nil)
	})
}

// DomainByUUID returns one domain by UUID, or ErrNoDomain.
func (c *Client) DomainByUUID(ctx context.Context, uuid string) (Domain, error) {
	return onLooks(ctx, c, "look up domain", uuid, func(l *link) (Domain, error) {
		d, err := l.conn.LookupDomainByUUIDString(uuid)
		if err != nil {
			return Domain{}, err
		}
		defer l.own(d)()
		return l.describe(d, nil)
	})
}

// marks are the facts that libvirt tells by filtered lists, for all domains in
// one round trip each.
type marks struct{ persistent, autostart, snapshots map[string]bool }

func (l *link) marks() (*marks, error) {
	var m marks
	for _, f := range []struct {
		into *map[string]bool
		flag libvirt.ConnectListAllDomainsFlags
	}{
		{&m.persistent, libvirt.CONNECT_LIST_DOMAINS_PERSISTENT},
		{&m.autostart, libvirt.CONNECT_LIST_DOMAINS_AUTOSTART},
		{&m.snapshots, libvirt.CONNECT_LIST_DOMAINS_HAS_SNAPSHOT},
	} {
		doms, err := l.conn.ListAllDomains(f.flag)
		if err != nil {
			return nil, err
		}
		*f.into = make(map[string]bool, len(doms))
		for i := range doms {
			free := l.own(&doms[i])
			if uuid, err := doms[i].GetUUIDString(); err == nil {
				(*f.into)[uuid] = true
			}
			free()
		}
	}
	return &m, nil
}

// describe reads one domain. With marks it makes two round trips.
func (l *link) describe(d *libvirt.Domain, m *marks) (out Domain, err error) {
	if out.Name, err = d.GetName(); err != nil {
		return out, err
	}
	if out.UUID, err = d.GetUUIDString(); err != nil {
		return out, err
	}
	out.ID = -1
	if id, err := d.GetID(); err == nil {
		out.ID = int(id)
	}
	state, reason, err := d.GetState()
	if err != nil {
		return out, err
	}
	out.State, out.Reason = stateOf(state), reasonOf(state, reason)
	info, err := d.GetInfo()
	if err != nil {
		return out, err
	}
	out.VCPUs, out.Memory = int(info.NrVirtCpu), int64(info.MaxMem)*1024
	hasSnapshots := true
	if m != nil {
		out.Persistent, out.Autostart, hasSnapshots = m.persistent[out.UUID], m.autostart[out.UUID], m.snapshots[out.UUID]
	} else {
		if out.Persistent, err = d.IsPersistent(); err != nil {
			return out, err
		}
		if out.Persistent {
			if out.Autostart, err = d.GetAutostart(); err != nil && !isCode(err, libvirt.ERR_NO_SUPPORT) {
				return out, err
			}
		}
	}
	if hasSnapshots {
		if out.Snapshots, err = d.SnapshotNum(0); err != nil && !isCode(err, libvirt.ERR_NO_SUPPORT) {
			return out, err
		}
	}
	out.Incoming = maybeIncoming(state, reason) && isIncoming(d)
	return out, nil
}

// maybeIncoming tells from the state alone whether a domain could be the
// receiving end of a migration.
func maybeIncoming(state libvirt.DomainState, reason int) bool {
	return state == libvirt.DOMAIN_PAUSED &&
		(reason == int(libvirt.DOMAIN_PAUSED_MIGRATION) || reason == int(libvirt.DOMAIN_PAUSED_STARTING_UP))
}

// isIncoming tells the receiving end from a source that is paused for the
// switchover: libvirt refuses job statistics on the former, before it asks
// QEMU anything (qemuDomainGetJobStatsInternal).
func isIncoming(d *libvirt.Domain) bool {
	_, err := d.GetJobStats(0)
	return refusedOnDestination(err)
}

// refusedOnDestination: libvirt 11 says unsupported, earlier ones invalid.
func refusedOnDestination(err error) bool {
	return isCode(err, libvirt.ERR_OPERATION_UNSUPPORTED, libvirt.ERR_OPERATION_INVALID)
}

// XML returns the domain's XML with secrets in it: the live one, or with
// inactive the one of its next start.
func (c *Client) XML(ctx context.Context, name string, inactive bool) (string, error) {
	flags := libvirt.DOMAIN_XML_SECURE
	if inactive {
		flags |= libvirt.DOMAIN_XML_INACTIVE
	}
	return c.xml(ctx, name, flags)
}

// XMLMigratable returns the XML that a migration's destination accepts: the
// live one without what this libvirt added for itself.
func (c *Client) XMLMigratable(ctx context.Context, name string) (string, error) {
	return c.xml(ctx, name, libvirt.DOMAIN_XML_SECURE|libvirt.DOMAIN_XML_MIGRATABLE)
}

func (c *Client) xml(ctx context.Context, name string, flags libvirt.DomainXMLFlags) (string, error) {
	return withDomain(ctx, c, "read XML of", name, func(_ *link, d *libvirt.Domain) (string, error) {
		return d.GetXMLDesc(flags)
	})
}

// Snapshots names the domain's libvirt snapshots.
func (c *Client) Snapshots(ctx context.Context, name string) ([]string, error) {
	return withDomain(ctx, c, "list snapshots of", name, func(_ *link, d *libvirt.Domain) ([]string, error) {
		return d.SnapshotListNames(0)
	})
}

// withDomain runs fn with a domain of the control connection.
func withDomain[T any](ctx context.Context, c *Client, op, name string, fn func(*link, *libvirt.Domain) (T, error)) (T, error) {
	return onControl(ctx, c, op, name, func(l *link) (T, error) {
		d, free, err := l.domain(name)
		if err != nil {
			var zero T
			return zero, err
		}
		defer free()
		return fn(l, d)
	})
}

// change is withDomain for calls that only succeed or fail.
func change(ctx context.Context, c *Client, op, name string, fn func(*libvirt.Domain) error) error {
	_, err := withDomain(ctx, c, op, name, func(_ *link, d *libvirt.Domain) (none, error) { return none{}, fn(d) })
	return err
}
