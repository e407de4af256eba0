package incoming

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// activeLayers are the files that the instances of this host write to, or will
// once they start, each with the instance's name. Such a file may have the
// bytes of a backing layer just now, a fresh full clone of the same template
// for instance, and is none: the next write to it corrupts whatever was linked
// to it.
type activeLayers map[fileID]string

// fileID names a file whatever path leads to it.
type fileID struct{ dev, ino uint64 }

func (a activeLayers) by(path string) string {
	if id, ok := idOf(path); ok {
		return a[id]
	}
	return ""
}

func idOf(path string) (fileID, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, false
	}
	return fileID{st.Dev, st.Ino}, true
}

// activeLayers reads the running and the next definition of these instances, all
// of the host. One that is just arriving is known by its reservation.
func (s *Service) activeLayers(ctx context.Context, domains []hypervisor.Domain) (activeLayers, error) {
	out := activeLayers{}
	for _, d := range domains {
		if d.Incoming {
			continue
		}
		if err := s.addActive(ctx, d, out); err != nil {
			return nil, api.NewProblem("libvirt-failed", "looking at the disks of %q: %w", d.Name, err)
		}
	}
	for _, e := range s.all() {
		res := e.snapshot()
		if res.State == committed {
			continue // among the instances, where it is still here
		}
		for _, p := range res.Places {
			if id, ok := idOf(p.Path); ok {
				out[id] = fmt.Sprintf("instance %q, which is arriving,", res.Request.Name)
			}
		}
	}
	return out, nil
}

func (s *Service) addActive(ctx context.Context, d hypervisor.Domain, out activeLayers) error {
	for _, inactive := range []bool{false, true} {
		if inactive && !d.Persistent {
			continue
		}
		disks, err := s.disksOf(ctx, d.Name, inactive)
		if err != nil {
			return err
		}
		for _, x := range disks {
			if x.ReadOnly || x.Source == "" || x.Device == "cdrom" || x.Device == "floppy" {
				continue
			}
			if id, ok := idOf(x.Source); ok {
				out[id] = fmt.Sprintf("instance %q", d.Name)
			}
		}
	}
	return nil
}

// disksOf reads a definition's disks; one that is gone since has none.
func (s *Service) disksOf(ctx context.Context, name string, inactive bool) ([]domainxml.Disk, error) {
	xml, err := s.Hypervisor.XML(ctx, name, inactive)
	if errors.Is(err, hypervisor.ErrNoDomain) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parsed, err := domainxml.Parse(xml)
	if err != nil {
		return nil, fmt.Errorf("reading its XML: %w", err)
	}
	return parsed.Disks, s.locate(ctx, parsed.Disks)
}

// locate gives the disks that the definition names as volumes of pools the paths
// that those have.
func (s *Service) locate(ctx context.Context, disks []domainxml.Disk) error {
	if !inspect.ByVolume(disks) {
		return nil
	}
	host, err := s.Host.Host(ctx)
	if err == nil {
		inspect.Locate(disks, host.Pools)
	}
	return err
}

// paths are the files of a definition's disks, with all their layers.
func (s *Service) paths(ctx context.Context, name string, inactive bool) ([]string, error) {
	disks, err := s.disksOf(ctx, name, inactive)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range disks {
		if d.Source != "" {
			out = append(out, d.Source)
		}
		for _, l := range d.Chain {
			out = append(out, l.Path)
		}
	}
	return out, nil
}
