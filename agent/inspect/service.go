package inspect

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

// Hypervisor is what an inspection asks of libvirt and QEMU.
type Hypervisor interface {
	// Domain gives one domain, or hypervisor.ErrNoDomain.
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	// XML gives the live XML, or the one of the next start.
	XML(ctx context.Context, name string, inactive bool) (string, error)
	// Blocks gives QEMU's block graph; hypervisor.ErrInvalidState when stopped.
	Blocks(ctx context.Context, name string) ([]hypervisor.BlockNode, error)
}

// Templates says what a file is to the registry; removed templates count.
type Templates interface {
	// ByPath gives the template that a file is a copy of.
	ByPath(path string) (id string, direct bool, ok bool)
	// Direct gives the direct-download flag of a template.
	Direct(id string) (direct bool, known bool)
	// HasRef tells whether the volume's ref to the template is in the registry.
	HasRef(id, volume string) bool
	// Lost says what has become of the template's copy whose file a path is;
	// false where it is sound, or none.
	Lost(path string) (why string, lost bool)
}

// Service inspects instances.
type Service struct {
	Hypervisor Hypervisor
	Templates  Templates
	Records    record.Dir
}

// Instance is an inspected instance. Record is nil for one that Wherry did not
// create.
type Instance struct {
	Domain hypervisor.Domain
	XML    string
	Parsed domainxml.Domain
	Record *api.Record
	Disks  []Disk
}

// Inspect looks at one instance. pools are this host's, fetched by the caller
// once for each request.
func (s *Service) Inspect(ctx context.Context, ref api.Ref, pools []api.Pool) (Instance, error) {
	var in Instance
	var err error
	if in.Domain, err = s.Hypervisor.Domain(ctx, ref.Name); err != nil {
		return in, Problem(ref, err)
	}
	if err := Belongs(s.Records, ref, in.Domain.UUID); err != nil {
		return in, err
	}
	live := in.Domain.Active() && !in.Domain.Incoming
	if in.XML, err = s.Hypervisor.XML(ctx, ref.Name, !live); err != nil {
		return in, Problem(ref, err)
	}
	if in.Parsed, err = domainxml.Parse(in.XML); err != nil {
		return in, api.NewProblem("libvirt-failed", "reading the XML of %q: %w", ref, err)
	}
	if r, err := s.Records.Of(ref, in.Domain.UUID); err == nil {
		in.Record = &r
	} else if !errors.Is(err, record.ErrNotFound) {
		return in, api.NewProblem("internal", "%w", err)
	}
	var nodes []hypervisor.BlockNode
	if live {
		if nodes, err = s.Hypervisor.Blocks(ctx, ref.Name); err != nil {
			return in, Problem(ref, err)
		}
	}
	for _, x := range in.Parsed.Disks {
		in.Disks = append(in.Disks, s.disk(x, node(nodes, x.Target, live), in.Record, pools))
	}
	return in, nil
}

// Problem maps libvirt's errors about an instance to the wire's.
func Problem(ref api.Ref, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hypervisor.ErrNoDomain):
		return api.NewProblem("not-found", "no instance %q on this host", ref)
	case errors.Is(err, hypervisor.ErrDown):
		return api.NewProblem("libvirt-down", "%w", err).WithHint("see `systemctl status libvirtd` on this host")
	case errors.Is(err, context.DeadlineExceeded):
		return api.NewProblem("timeout", "%w", err)
	}
	return api.NewProblem("libvirt-failed", "%w", err)
}

func node(nodes []hypervisor.BlockNode, target string, live bool) *hypervisor.BlockNode {
	if !live {
		return nil
	}
	i := slices.IndexFunc(nodes, func(n hypervisor.BlockNode) bool { return n.Target == target })
	if i < 0 {
		return &hypervisor.BlockNode{Target: target}
	}
	return &nodes[i]
}

func (s *Service) disk(x domainxml.Disk, n *hypervisor.BlockNode, rec *api.Record, pools []api.Pool) Disk {
	var h headers
	if (x.Type == "file" || x.Type == "block") && x.Source != "" && x.Device != "cdrom" && x.Device != "floppy" {
		h.chain, h.err = volume.Walk(x.Source, formatOf(x), roots(x, n, pools))
	}
	d := combine(x, n, h)
	if layer, ok := errors.AsType[*volume.LayerError](h.err); ok {
		// That a file is not there says little to who never named one.
		if why, lost := s.Templates.Lost(layer.Path); lost {
			d.Issues[len(d.Issues)-1].Detail += "; it stands on " + why
		}
	}
	d.Pool = poolOf(x.Source, pools)
	s.origin(&d, rec)
	return d
}

// formatOf: libvirt reads a disk without a driver type as raw, never by its
// content.
func formatOf(x domainxml.Disk) volume.Format {
	if x.Format == "" {
		return volume.FormatRaw
	}
	return volume.Format(x.Format)
}

// roots are the folders that a header may lead to: the pools', and those of
// files that QEMU has open for this disk already.
func roots(x domainxml.Disk, n *hypervisor.BlockNode, pools []api.Pool) []string {
	var out []string
	for _, p := range pools {
		if filepath.IsAbs(p.Path) && p.Path != "/dev" {
			out = append(out, p.Path)
		}
	}
	out = append(out, filepath.Dir(x.Source))
	if n != nil {
		for _, l := range n.Layers {
			if filepath.IsAbs(l.Path) {
				out = append(out, filepath.Dir(l.Path))
			}
		}
	}
	return out
}

// poolOf names the pool whose folder holds the file.
func poolOf(path string, pools []api.Pool) string {
	for _, p := range pools {
		if p.Path != "" && filepath.Dir(path) == filepath.Clean(p.Path) {
			return p.Name
		}
	}
	return ""
}

// origin finds the template of a disk and whether it was a direct download:
// from the chain itself, from the record, and from the registry, which keeps
// the flag of removed templates. A disk that names no template causes no
// look-up of one.
func (s *Service) origin(d *Disk, rec *api.Record) {
	for i := 1; i < len(d.Chain); i++ {
		if id, direct, ok := s.Templates.ByPath(d.Chain[i].Path); ok {
			d.Chain[i].Template = id
			d.Template, d.DirectDownload = id, d.DirectDownload || direct
		}
	}
	if rec == nil {
		return
	}
	for _, r := range rec.Disks {
		if r.Target != d.Target {
			continue
		}
		if d.Template == "" {
			d.Template = r.Template
		}
		if len(d.Chain) > 1 {
			d.DirectDownload = d.DirectDownload || r.DirectDownload
		}
	}
	if d.Template != "" && len(d.Chain) > 1 {
		if direct, known := s.Templates.Direct(d.Template); known && direct {
			d.DirectDownload = true
		}
	}
}

// RefMissing tells whether the disk of an instance with a record stands on a
// template copy of this host and the registry has lost the volume's ref. A
// base that is no template here, as at a destination that held the same bytes
// as a plain file, has none to lose.
func (s *Service) RefMissing(d Disk, rec *api.Record) bool {
	if rec == nil || !slices.ContainsFunc(rec.Disks, func(r api.RecordDisk) bool { return r.Target == d.Target && r.Template != "" }) {
		return false
	}
	for i := len(d.Chain) - 1; i > 0; i-- {
		if id := d.Chain[i].Template; id != "" {
			return !s.Templates.HasRef(id, d.Path)
		}
	}
	return false
}
