package shutdown

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// listEvery is how often libvirt is asked again.
const listEvery = 200 * time.Millisecond

// discover gives every instance that runs here: by libvirt where that answers
// in time, else by the processes of this host. Records add what they know; one
// that is missing or damaged takes no instance out.
func (s *run) discover(ctx context.Context) []Instance {
	records := s.records()
	patience := min(libvirtPatience, time.Until(s.deadline)/3)
	if s.deaf {
		patience = listEvery // it was waited for once
	}
	domains, err := s.domains(ctx, patience)
	if s.deaf = err != nil; !s.deaf {
		var out []Instance
		for _, d := range domains {
			if d.Active() {
				out = append(out, instance(d.Name, d.UUID, records))
			}
		}
		return out
	}
	s.warn("libvirt does not answer, instances are known by their processes: %v", err)
	found, err := s.Processes()
	if err != nil {
		s.warn("the processes of this host cannot be listed: %v", err)
	}
	var out []Instance
	for _, p := range found {
		out = append(out, instance(p.Name, p.UUID, records))
	}
	return out
}

// domains asks until there is an answer, or patience ends.
func (s *run) domains(ctx context.Context, patience time.Duration) ([]hypervisor.Domain, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(listEvery)
	defer tick.Stop()
	var why error
	for {
		domains, err := s.Libvirt.Domains(ctx)
		if err == nil {
			return domains, nil
		}
		if why == nil || ctx.Err() == nil {
			why = err // rather than that patience ended
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, why
		}
	}
}

func (s *run) records() map[string]api.Record {
	list, err := s.Records.List()
	if err != nil {
		s.warn("some records cannot be read; their instances go down as the others do: %v", err)
	}
	out := make(map[string]api.Record, len(list))
	for _, r := range list {
		out[r.UUID] = r
	}
	return out
}

// instance joins a domain with its record. Libvirt's name counts: only it can
// be asked for.
func instance(name, uuid string, records map[string]api.Record) Instance {
	i := Instance{Project: api.DefaultProject, Name: name, UUID: uuid}
	r, ok := records[uuid]
	if !ok || r.Name != name {
		return i
	}
	i.Project, i.Managed = r.Project, true
	if r.Stop != nil {
		i.Policy = *r.Stop
	}
	return i
}
