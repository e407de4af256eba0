package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/leftover"
	"github.com/wherry-kvm/wherry/http/api"
)

// leftovers looks for what nothing of this host owns.
func (d *daemon) leftovers(s *services) *leftover.Service {
	return &leftover.Service{
		Hypervisor: d.hv, Chains: s.chains.ReadAll, Records: d.records, Log: d.log.With("part", "leftover"), Now: time.Now,
		Pools: func(ctx context.Context) ([]api.Pool, error) {
			h, err := s.host.Host(ctx)
			return h.Pools, err
		},
		Named: []leftover.Named{s.incoming.Files, s.templateFiles, d.operationFiles},
	}
}

// templateFiles are the copies, what grows into one, and what stands on them.
func (s *services) templateFiles(add func(by string, paths ...string)) error {
	for _, t := range s.templates.Registry.List() {
		by := fmt.Sprintf("template %q", t.ID)
		for _, c := range t.Copies {
			add(by, c.Path, c.Partial)
		}
		for _, r := range t.Refs {
			add(by, r.Volume)
		}
	}
	return nil
}

// operationFiles are all that an operation names that has not ended, or about
// which someone must decide.
func (d *daemon) operationFiles(add func(by string, paths ...string)) error {
	return d.ops.Unsettled(func(id string, value []byte) error {
		paths, err := leftover.PathsInJSON(value)
		if err != nil {
			return fmt.Errorf("operation %s: %w", id, err)
		}
		add("operation "+id, paths...)
		return nil
	})
}
