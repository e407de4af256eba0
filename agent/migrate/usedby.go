package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

// usedBy names another instance of this host whose definition or running chain
// has the file, under this path or any other that leads to it. What cannot be
// read may have it: that is an error.
func (m *migration) usedBy(ctx context.Context, file volume.Owned) (string, error) {
	domains, err := m.Hypervisor.Domains(ctx)
	if err != nil {
		return "", err
	}
	for _, d := range domains {
		if d.UUID == m.state.UUID || d.Incoming {
			continue
		}
		for _, inactive := range []bool{false, true} {
			if inactive && !d.Persistent {
				continue
			}
			xml, err := m.Hypervisor.XML(ctx, d.Name, inactive)
			if errors.Is(err, hypervisor.ErrNoDomain) {
				continue // gone since the list was made
			}
			if err != nil {
				return "", fmt.Errorf("reading the XML of %q: %w", d.Name, err)
			}
			parsed, err := domainxml.Parse(xml)
			if err != nil {
				return "", fmt.Errorf("reading the XML of %q: %w", d.Name, err)
			}
			if err := m.locate(ctx, parsed.Disks); err != nil {
				return "", fmt.Errorf("looking for the volumes of %q: %w", d.Name, err)
			}
			if slices.ContainsFunc(parsed.Disks, func(disk domainxml.Disk) bool { return standsOn(disk, file) }) {
				return d.Name, nil
			}
		}
	}
	return "", nil
}

// locate gives the disks that the definition names as volumes of pools the paths
// that those have.
func (m *migration) locate(ctx context.Context, disks []domainxml.Disk) error {
	if !inspect.ByVolume(disks) {
		return nil
	}
	host, err := m.Host.Host(ctx)
	if err == nil {
		inspect.Locate(disks, host.Pools)
	}
	return err
}

func standsOn(d domainxml.Disk, file volume.Owned) bool {
	return leadsTo(d.Source, file) ||
		slices.ContainsFunc(d.Chain, func(b domainxml.BackingLayer) bool { return leadsTo(b.Path, file) })
}

// leadsTo compares inodes, links followed, since one file may have several
// paths: hard and symbolic links, and folders that are mounted twice.
func leadsTo(path string, file volume.Owned) bool {
	if path == file.Path {
		return true
	}
	info, err := os.Stat(path)
	if err != nil {
		return false // an instance on what is not there does not use this file
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Dev == file.Dev && st.Ino == file.Ino
}
