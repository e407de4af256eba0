// Package host describes the machine that the agent runs on.
package host

import (
	"cmp"
	"context"
	"errors"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// Hypervisor is what the package asks of libvirt.
type Hypervisor interface {
	Host(ctx context.Context) (hypervisor.Host, error)
	Pools(ctx context.Context) ([]hypervisor.Pool, error)
	Domains(ctx context.Context) ([]hypervisor.Domain, error)
	Up() bool
}

// Service describes this host.
type Service struct {
	Hypervisor Hypervisor
	Version    string            // of the agent
	Name       string            // "" = libvirt's
	Identities map[string]string // pool name to configured identity
	Draining   func() bool       // nil = never
}

// Host gives the whole description: each of libvirt's lists is fetched once.
func (s *Service) Host(ctx context.Context) (api.Host, error) {
	h, err := s.Hypervisor.Host(ctx)
	if err != nil {
		return api.Host{}, problem(err)
	}
	pools, err := s.Hypervisor.Pools(ctx)
	if err != nil {
		return api.Host{}, problem(err)
	}
	domains, err := s.Hypervisor.Domains(ctx)
	if err != nil {
		return api.Host{}, problem(err)
	}
	out := api.Host{Name: cmp.Or(s.Name, h.Name), UUID: h.UUID, Memory: h.Memory, KVM: h.KVM,
		Versions: api.Versions{Agent: s.Version, Libvirt: h.LibvirtVersion, QEMU: h.QEMUVersion},
		CPU:      api.CPU{Model: h.CPUModel, Arch: h.Arch, Count: h.CPUs}, Pools: []api.Pool{}, Counts: map[string]int{}}
	out.Draining = s.Draining != nil && s.Draining()
	for _, p := range pools {
		out.Pools = append(out.Pools, s.pool(p))
	}
	for _, d := range domains {
		out.Counts[string(d.State)]++
	}
	return out, nil
}

// pool adds what libvirt does not say: the identity of the storage, and the
// free bytes as they are now rather than at the last refresh.
func (s *Service) pool(p hypervisor.Pool) api.Pool {
	out := api.Pool{Name: p.Name, Type: p.Type, Path: p.Path, Active: p.Active, Capacity: p.Capacity, Free: p.Available}
	out.Identity = cmp.Or(s.Identities[p.Name], p.Identity())
	if !p.Active || p.Path == "" || !folder(p.Type) {
		return out
	}
	if out.Identity == "" {
		if id, err := volume.FolderIdentity(p.Path); err == nil {
			out.Identity = id
		}
	}
	if free, err := volume.FreeBytes(p.Path); err == nil {
		out.Free = free
	}
	return out
}

// folder tells the pool types whose volumes are files in one folder.
func folder(kind string) bool { return kind == "dir" || kind == "fs" || kind == "netfs" }

// Ready says why the host cannot work just now; nil when it can.
func (s *Service) Ready(context.Context) error {
	if s.Hypervisor.Up() {
		return nil
	}
	return problem(hypervisor.ErrDown)
}

func problem(err error) error {
	if errors.Is(err, hypervisor.ErrDown) {
		return api.NewProblem("libvirt-down", "%w", err).WithHint("see `systemctl status libvirtd` on this host; the agent connects by itself")
	}
	return api.NewProblem("libvirt-failed", "%w", err)
}
