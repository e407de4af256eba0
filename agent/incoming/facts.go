package incoming

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// Facts answers what this host would take, for one migration request. Pools
// and domains are listed once each; nothing is changed.
func (s *Service) Facts(ctx context.Context, r api.FactsRequest) (api.Facts, error) {
	host, err := s.Host.Host(ctx)
	if err != nil {
		return api.Facts{}, err
	}
	f := api.Facts{Host: host, Pools: host.Pools, LibvirtURI: s.LibvirtURI, Address: s.Address,
		GraphicsListen: s.Graphics, Media: map[string]bool{}, Disks: []api.DiskFacts{}}
	domains, err := s.domains(ctx)
	if err != nil {
		return api.Facts{}, err
	}
	f.NameTaken = nameTaken(domains, r.Name, r.UUID)
	if p := s.holder(r.Project, r.Name); p != nil && f.NameTaken == "" {
		f.NameTaken = p.Detail
		if p.Hint != "" {
			f.NameTaken += "; " + p.Hint
		}
	}
	if by := s.busy(r.Project, r.Name); by != "" && f.NameTaken == "" {
		f.NameTaken = fmt.Sprintf("operation %s of the destination still works on its own %q", by, r.Name)
	}
	f.CPU = s.cpu(ctx, r.DomainXML)
	for _, m := range r.Media {
		info, err := os.Stat(m)
		f.Media[m] = err == nil && !info.IsDir()
		if want := r.MediaDigests[m]; f.Media[m] && want != "" && !s.same(ctx, m, want) {
			f.MediaDiffers = append(f.MediaDiffers, m)
		}
	}
	if ctx.Err() != nil {
		return api.Facts{}, context.Cause(ctx)
	}
	layers := &finder{service: s, pools: folders(host.Pools)}
	if slices.ContainsFunc(r.Disks, func(d api.FactsDisk) bool { return len(d.Chain) > 1 }) {
		if layers.inUse, err = s.activeLayers(ctx, domains); err != nil {
			return api.Facts{}, err
		}
	}
	for _, d := range r.Disks {
		df := api.DiskFacts{Target: d.Target, Layers: []api.LayerFacts{}}
		df.SharedPools, df.SharedPath = sharedWith(d, host.Pools)
		if len(d.Chain) > 1 {
			if df.Layers, err = layers.find(ctx, d.Chain[1:], df.SharedPath != ""); err != nil {
				return api.Facts{}, api.NewProblem("internal", "looking for the backing layers of disk %q: %w", d.Target, err).WithDisk(d.Target)
			}
		}
		f.Disks = append(f.Disks, df)
	}
	return f, nil
}

// same tells whether a file has these bytes; one that cannot be read has not.
func (s *Service) same(ctx context.Context, path, digest string) bool {
	got, err := s.digest(ctx, path)
	return err == nil && got == digest
}

// digest is that of the file that QEMU would open, through symbolic links.
func (s *Service) digest(ctx context.Context, path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return s.Digester.Digest(ctx, resolved)
}

// domains lists the instances of this host, once for each request.
func (s *Service) domains(ctx context.Context) ([]hypervisor.Domain, error) {
	domains, err := s.Hypervisor.Domains(ctx)
	if err != nil {
		return nil, api.NewProblem("libvirt-failed", "listing instances: %w", err)
	}
	return domains, nil
}

// nameTaken says in words who holds the instance's name or UUID here.
func nameTaken(domains []hypervisor.Domain, name, uuid string) string {
	for _, d := range domains {
		switch {
		case d.Name == name && d.UUID != uuid:
			return fmt.Sprintf("an instance named %q with UUID %s exists at the destination", name, d.UUID)
		case d.UUID == uuid && d.Name != name:
			return fmt.Sprintf("UUID %s belongs to instance %q at the destination", uuid, d.Name)
		case d.Name == name:
			return fmt.Sprintf("instance %q with this UUID exists at the destination already (%s)", name, d.State)
		}
	}
	return ""
}

func (s *Service) cpu(ctx context.Context, domainXML string) api.Check {
	c := api.Check{Code: "cpu-compatible"}
	ok, detail, err := s.Hypervisor.CompareCPU(ctx, domainXML)
	c.OK, c.Detail = ok, detail
	if err != nil {
		c.OK, c.Detail = false, fmt.Sprintf("the CPU could not be compared: %v", err)
	}
	return c
}

// sharedWith gives the pools that hold the probe file which the source wrote
// beside the disk, and the disk's own path as this host reaches it.
func sharedWith(d api.FactsDisk, pools []api.Pool) ([]api.Pool, string) {
	if d.Probe == nil {
		return nil, ""
	}
	probe := volume.Probe{Name: d.Probe.Name, Token: d.Probe.Token}
	var out []api.Pool
	var path string
	see := func(p api.Pool, dir string) {
		if !volume.SeesProbe(dir, probe) {
			return
		}
		file := filepath.Join(dir, filepath.Base(d.Path))
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
			return
		}
		out = append(out, p)
		// The same path on both sides needs no change of the domain.
		if path == "" || file == d.Path {
			path = file
		}
	}
	for _, p := range pools {
		if p.Active && p.Path != "" {
			see(p, p.Path)
		}
	}
	if len(out) == 0 {
		see(api.Pool{Path: filepath.Dir(d.Path), Active: true}, filepath.Dir(d.Path))
	}
	return out, path
}

// folders gives the folders of the active pools.
func folders(pools []api.Pool) []string {
	var out []string
	for _, p := range pools {
		if p.Active && filepath.IsAbs(p.Path) {
			out = append(out, p.Path)
		}
	}
	return out
}
