package instance

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

// needed refuses when another instance of this host has one of the volumes as
// a disk, or stands on one. That nobody has a file open proves nothing: the
// other instance may be stopped.
func (s *Service) needed(ctx context.Context, ref api.Ref, uuid string, volumes []volume.Owned) error {
	if len(volumes) == 0 {
		return nil
	}
	domains, err := s.Hypervisor.Domains(ctx)
	if err != nil {
		return inspect.Problem(ref, err)
	}
	host, err := s.Host.Host(ctx)
	if err != nil {
		return err
	}
	roots := make([]string, 0, len(host.Pools)+len(volumes))
	for _, p := range host.Pools {
		if filepath.IsAbs(p.Path) && p.Path != "/dev" {
			roots = append(roots, p.Path)
		}
	}
	for _, v := range volumes {
		roots = append(roots, filepath.Dir(v.Path))
	}
	for _, d := range domains {
		if d.UUID == uuid {
			continue
		}
		disks, err := s.disksOf(ctx, d)
		if err != nil {
			return api.NewProblem("internal", "whether %q uses a volume of %q is not known: %w", d.Name, ref.Name, err)
		}
		for _, v := range volumes {
			if slices.ContainsFunc(disks, func(x domainxml.Disk) bool { return standsOn(x, v, roots) }) {
				return api.NewProblem("precondition", "volume %s is used by instance %q too", v.Path, d.Name).
					WithHint("delete %q with keep_volumes, or that one first", ref.Name)
			}
		}
	}
	return nil
}

// disksOf gives the disks of a domain as it runs and as it will start next;
// none of one that has gone since it was listed.
func (s *Service) disksOf(ctx context.Context, d hypervisor.Domain) ([]domainxml.Disk, error) {
	var out []domainxml.Disk
	for _, inactive := range []bool{false, true} {
		if inactive && !d.Persistent {
			continue
		}
		xml, err := s.Hypervisor.XML(ctx, d.Name, inactive)
		if errors.Is(err, hypervisor.ErrNoDomain) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		parsed, err := domainxml.Parse(xml)
		if err != nil {
			return nil, err
		}
		out = append(out, parsed.Disks...)
	}
	return out, nil
}

// standsOn tells whether the volume is one of the disk's layers. Libvirt's
// definitions name none below the first, so the headers are asked.
func standsOn(x domainxml.Disk, v volume.Owned, roots []string) bool {
	is := func(path string) bool {
		resolved, err := filepath.EvalSymlinks(path)
		if err != nil {
			return path == v.Path
		}
		own, err := volume.Identify(resolved)
		return err == nil && own.Dev == v.Dev && own.Ino == v.Ino
	}
	if x.Source == "" || (x.Type != "file" && x.Type != "block") {
		return false
	}
	if is(x.Source) || slices.ContainsFunc(x.Chain, func(l domainxml.BackingLayer) bool { return is(l.Path) }) {
		return true
	}
	// As far as it can be read: a broken chain needs no more than that.
	chain, _ := volume.Walk(x.Source, volume.Format(x.Format), append(slices.Clip(roots), filepath.Dir(x.Source)))
	return slices.ContainsFunc(chain, func(l volume.Layer) bool { return is(l.Path) })
}
