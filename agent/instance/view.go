package instance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// disksTimeout is what an instance is given to say what it has open.
const disksTimeout = 5 * time.Second

// List gives every domain of this host, registered or not. A domain without a
// record belongs to the default project.
func (s *Service) List(ctx context.Context, project string) ([]api.Instance, error) {
	domains, err := s.Hypervisor.Domains(ctx)
	if err != nil {
		return nil, inspect.Problem(api.Ref{}, err)
	}
	records, err := s.Records.List()
	if err != nil {
		s.Log.Warn("some records cannot be read", "error", err)
	}
	out, ill := []api.Instance{}, s.Templates.Health()
	for _, d := range domains {
		i := view(d, recordOf(records, d), ill)
		s.lock(&i)
		if project == "" || i.Project == project {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b api.Instance) int {
		return strings.Compare(a.Project+"\x00"+a.Name, b.Project+"\x00"+b.Name)
	})
	return out, nil
}

func recordOf(records []api.Record, d hypervisor.Domain) *api.Record {
	i := slices.IndexFunc(records, func(r api.Record) bool { return r.Name == d.Name && r.UUID == d.UUID })
	if i < 0 {
		return nil
	}
	return &records[i]
}

func view(d hypervisor.Domain, r *api.Record, ill map[api.Ref][]string) api.Instance {
	i := api.Instance{Project: api.DefaultProject, Name: d.Name, UUID: d.UUID, State: string(d.State), Reason: d.Reason,
		VCPUs: d.VCPUs, Memory: d.Memory, Snapshots: d.Snapshots}
	if d.Incoming {
		i.State, i.Reason = "incoming", "arriving from another host"
	}
	if r != nil {
		i.Project, i.Managed, i.Template, i.Stop = r.Project, true, r.Template, r.Stop
	}
	i.Health = api.HealthOK
	if reasons := ill[api.Ref{Project: i.Project, Name: i.Name}]; len(reasons) > 0 {
		i.Health, i.HealthReasons = api.HealthDegraded, reasons
	}
	return i
}

// lock shows who holds the instance.
func (s *Service) lock(i *api.Instance) {
	if i.Lock = s.Operations.LockOf(api.Ref{Project: i.Project, Name: i.Name}); i.Lock != nil {
		i.Operation = i.Lock.Operation
	}
}

// find gives the domain of an instance, if it belongs to the project.
func (s *Service) find(ctx context.Context, ref api.Ref) (hypervisor.Domain, error) {
	d, err := s.Hypervisor.Domain(ctx, ref.Name)
	if err != nil {
		return d, inspect.Problem(ref, err)
	}
	return d, inspect.Belongs(s.Records, ref, d.UUID)
}

// Get shows one instance with its disks.
func (s *Service) Get(ctx context.Context, ref api.Ref) (api.Instance, error) {
	d, err := s.find(ctx, ref)
	if err != nil {
		return api.Instance{}, err
	}
	var rec *api.Record
	if r, err := s.Records.Read(ref); err == nil && r.UUID == d.UUID {
		rec = &r
	} else if err != nil && !errors.Is(err, record.ErrNotFound) {
		s.Log.Warn("a record cannot be read", "instance", ref.String(), "error", err)
	}
	i := view(d, rec, s.Templates.Health())
	s.lock(&i)
	if d.Incoming {
		return i, nil // asking its QEMU would wait for the source
	}
	// A QEMU that hangs must not keep anybody from seeing who holds it.
	bounded, cancel := context.WithTimeout(ctx, disksTimeout)
	defer cancel()
	i.Disks, err = s.Disks(bounded, ref)
	switch {
	case err == nil:
		return i, nil
	case ctx.Err() == nil && bounded.Err() != nil:
		s.Log.Warn("an instance does not answer", "instance", ref.String(), "error", err)
		i.Reason = strings.TrimPrefix(i.Reason+"; its QEMU does not answer, its disks are not shown", "; ")
		return i, nil
	}
	return api.Instance{}, err
}

// Disks shows what each disk of an instance stands on.
func (s *Service) Disks(ctx context.Context, ref api.Ref) ([]api.Disk, error) {
	host, err := s.Host.Host(ctx)
	if err != nil {
		return nil, err
	}
	in, err := s.Inspector.Inspect(ctx, ref, host.Pools)
	if err != nil {
		return nil, err
	}
	out := []api.Disk{}
	for _, d := range in.Disks {
		for _, i := range d.Issues {
			d.Disagreements = append(d.Disagreements, i.Detail)
		}
		out = append(out, d.Disk)
	}
	return out, nil
}
