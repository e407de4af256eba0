package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/wherry-kvm/wherry/agent/leftover"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
)

// leftovers looks for what nothing of this host owns.
func (d *daemon) leftovers(s *services) *leftover.Service {
	return &leftover.Service{
		Hypervisor: d.hv, Chains: s.chains.ReadAll, Records: d.records, Machine: d.hv, Power: d.hv, Journal: journal{d.ops, s}, SecretSince: secretSince, Log: d.log.With("part", "leftover"), Now: time.Now,
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

// secretSince is when libvirt wrote a secret down. It does not tell that itself.
func secretSince(uuid string) time.Time {
	info, err := os.Stat(filepath.Join("/etc/libvirt/secrets", filepath.Base(uuid)+".xml"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// journal is what operations and reservations say of the host.
type journal struct {
	*operation.Engine
	services *services
}

// Claims gives what operations and reservations hold that have not ended.
func (j journal) Claims(add func(leftover.Claim)) error {
	err := j.Unsettled(func(id string, value []byte) error {
		add(leftover.Claim{Kind: leftover.ByWork, By: "operation " + id, Text: string(value)})
		return nil
	})
	if err != nil {
		return err
	}
	return j.services.incoming.Journal(func(id, _ string, ended bool, _ time.Time, value []byte) error {
		if !ended {
			add(leftover.Claim{Kind: leftover.ByWork, By: "reservation " + id, Text: string(value)})
		}
		return nil
	})
}

// Ended gives the migrations from this host, and to it, that have ended.
func (j journal) Ended(ctx context.Context) ([]leftover.Migration, error) {
	all, err := j.List(ctx, "", "")
	if err != nil {
		return nil, err
	}
	var out []leftover.Migration
	for _, op := range all {
		if op.Kind != migrate.Kind || !op.Ended() {
			continue
		}
		e, ok, err := j.services.migrations.Ended(op.ID, op.UpdatedAt)
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", op.ID, err)
		}
		if ok {
			out = append(out, leftover.Migration{Operation: e.Operation, UUID: e.UUID, At: e.At, Remains: e.Remains})
		}
	}
	return out, j.services.incoming.Journal(func(id, uuid string, ended bool, at time.Time, _ []byte) error {
		if ended {
			out = append(out, leftover.Migration{Operation: id, UUID: uuid, At: at})
		}
		return nil
	})
}
