package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"
)

// MigrateParams says how a domain crosses. URIs and XML are libvirt's.
type MigrateParams struct {
	DestURI    string // the destination's libvirt as this host's libvirt reaches it, e.g. qemu+tls://b/system
	MigrateURI string // where QEMU sends memory, e.g. tcp://10.0.0.2; "" = the destination's choice
	DestXML    string // what runs there; "" = as here
	PersistXML string // what is defined there; without it a 9.0 destination keeps this host's paths
	Disks      []string
	// Incremental copies only the active layer of each disk (NON_SHARED_INC);
	// every one of Disks must already be there. Else the whole disk is copied.
	Incremental bool
	// Shared says that the caller has proof that every writable disk not among
	// Disks lies on storage that both hosts reach. libvirt knows a few kinds of
	// file system as shared and takes all others for local.
	Shared         bool
	BandwidthMiB   uint64 // MiB/s for memory and for each disk; 0 = no limit
	AutoConverge   bool   // slow the guest down when memory does not converge
	PostCopy       bool   // allow StartPostCopy
	TLS            bool   // encrypt what QEMU sends
	TLSDestination string // name in the destination's certificate, where it differs from the host name
	ListenAddress  string // address that the destination's QEMU listens on
	Compression    string // "", "xbzrle", "mt", "zstd", as libvirt knows them
	Parallel       int    // connections for memory; 0 = one stream
}

// flags are libvirt's for these parameters. A domain without a definition here
// gets none there either.
func (p MigrateParams) flags(persistent bool) libvirt.DomainMigrateFlags {
	f := libvirt.MIGRATE_LIVE | libvirt.MIGRATE_PEER2PEER | libvirt.MIGRATE_ABORT_ON_ERROR
	if persistent {
		f |= libvirt.MIGRATE_PERSIST_DEST | libvirt.MIGRATE_UNDEFINE_SOURCE
	}
	if len(p.Disks) > 0 {
		if p.Incremental {
			f |= libvirt.MIGRATE_NON_SHARED_INC
		} else {
			f |= libvirt.MIGRATE_NON_SHARED_DISK
		}
	}
	if p.Shared {
		// The other thing that this flag leaves unchecked, caches that could go
		// stale, QEMU takes care of itself since 4.2: the destination drops them.
		f |= libvirt.MIGRATE_UNSAFE
	}
	if p.AutoConverge {
		f |= libvirt.MIGRATE_AUTO_CONVERGE
	}
	if p.PostCopy {
		f |= libvirt.MIGRATE_POSTCOPY
	}
	if p.TLS {
		f |= libvirt.MIGRATE_TLS
	}
	if p.Parallel > 0 {
		f |= libvirt.MIGRATE_PARALLEL
	}
	if p.Compression != "" {
		f |= libvirt.MIGRATE_COMPRESSED
	}
	return f
}

func (p MigrateParams) params(persistent bool) *libvirt.DomainMigrateParameters {
	m := &libvirt.DomainMigrateParameters{
		URISet: p.MigrateURI != "", URI: p.MigrateURI,
		DestXMLSet: p.DestXML != "", DestXML: p.DestXML,
		PersistXMLSet: persistent && p.PersistXML != "", PersistXML: p.PersistXML,
		MigrateDisksSet: len(p.Disks) > 0, MigrateDisks: p.Disks,
		TLSDestinationSet: p.TLS && p.TLSDestination != "", TLSDestination: p.TLSDestination,
		ListenAddressSet: p.ListenAddress != "", ListenAddress: p.ListenAddress,
		CompressionSet: p.Compression != "", Compression: p.Compression,
		ParallelConnectionsSet: p.Parallel > 0, ParallelConnections: p.Parallel,
		// The binding sends the same number as the post-copy limit too.
		BandwidthSet: p.BandwidthMiB > 0, Bandwidth: p.BandwidthMiB,
	}
	// disks_port is never set: libvirt 9.0 does not give the port back, and
	// every second migration would fail.
	return m
}

// Migrate moves a running domain to another host, peer to peer, and returns
// when it is over. It uses a connection of its own, because the call holds one
// for its whole length.
//
// When ctx ends, the connections of the disk copies are cut (see Yank) and the
// migration is aborted. The guest then runs on here and the error is ErrAborted
// with ctx's cause. An abort that comes too late is no
// error: the domain has moved and Migrate returns nil. A destination that
// vanishes while disks are copied ends the migration too (see guard). ErrUnknownOutcome and
// ErrDown mean that only the two hosts can tell where the domain runs, for
// libvirt carries a peer-to-peer migration on without its caller.
func (c *Client) Migrate(ctx context.Context, name string, p MigrateParams) error {
	if !c.Up() {
		return wrap("migrate", name, ErrDown)
	}
	if err := ctx.Err(); err != nil {
		return wrap("migrate", name, fmt.Errorf("%w before it began: %w", ErrAborted, context.Cause(ctx)))
	}
	if len(p.Disks) > 0 {
		guarded, end := context.WithCancel(ctx)
		defer end()
		go c.guard(guarded, name, p.DestURI)
	}
	done := make(chan error, 1)
	go func() { done <- c.migrate(name, p) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	err := c.stopper(name).stop(context.WithoutCancel(ctx), done)
	if err == nil {
		return nil
	}
	for _, other := range []error{ErrNotPersisted, ErrUnknownOutcome, ErrDown} {
		if errors.Is(err, other) {
			return wrap("migrate", name, err) // moved, or nobody here can tell
		}
	}
	return fmt.Errorf("%w: %w: %w", ErrAborted, context.Cause(ctx), err)
}

// migrate blocks for as long as libvirt does.
func (c *Client) migrate(name string, p MigrateParams) error {
	l, err := dialLink(c.opts.URI, c.opts.KeepAlive, c.log, &c.handles)
	if err != nil {
		return err
	}
	defer l.close()
	err = func() error {
		d, free, err := l.domain(name)
		if err != nil {
			return err
		}
		defer free()
		persistent, err := d.IsPersistent()
		if err != nil {
			return err
		}
		return d.MigrateToURI3(p.DestURI, p.params(persistent), p.flags(persistent))
	}()
	return l.judge("migrate", name, err)
}

// Abort asks libvirt to end the domain's running job, a migration most often.
// It does not wait for the end. ErrInvalidState when there is no job.
func (c *Client) Abort(ctx context.Context, name string) error {
	return change(ctx, c, "abort job of", name, (*libvirt.Domain).AbortJob)
}

// SetMaxDowntime sets how long the guest may stand still at the switchover;
// whole milliseconds, at least one. The domain must run.
func (c *Client) SetMaxDowntime(ctx context.Context, name string, d time.Duration) error {
	ms := max(d.Milliseconds(), 1)
	return change(ctx, c, "set maximum downtime of", name, func(dom *libvirt.Domain) error {
		return dom.MigrateSetMaxDowntime(uint64(ms), 0)
	})
}

// SetBandwidth limits the memory stream, in MiB/s, of the migration under way
// or of the next. Disk copies keep the limit they began with.
func (c *Client) SetBandwidth(ctx context.Context, name string, mib uint64) error {
	return change(ctx, c, "set bandwidth of", name, func(dom *libvirt.Domain) error {
		return dom.MigrateSetMaxSpeed(mib, 0)
	})
}

// SetPostCopyBandwidth limits memory, in MiB/s, from when post-copy begins, or
// at once where it has begun. What the guest waits for is sent all the same.
func (c *Client) SetPostCopyBandwidth(ctx context.Context, name string, mib uint64) error {
	return change(ctx, c, "set post-copy bandwidth of", name, func(dom *libvirt.Domain) error {
		return dom.MigrateSetMaxSpeed(mib, libvirt.MIGRATE_MAX_SPEED_POSTCOPY)
	})
}

// StartPostCopy lets the guest run on the destination at once, with memory
// fetched on demand. From here on neither side can do without the other.
func (c *Client) StartPostCopy(ctx context.Context, name string) error {
	return change(ctx, c, "start post-copy of", name, func(dom *libvirt.Domain) error {
		return dom.MigrateStartPostCopy(0)
	})
}
