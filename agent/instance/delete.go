package instance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// Delete removes a stopped instance: its definition, its record, and the
// volumes that Wherry made for it. Volumes that somebody else brought stay.
func (s *Service) Delete(ctx context.Context, ref api.Ref, r api.DeleteRequest, k api.Idempotency) (api.Operation, error) {
	d, err := s.find(ctx, ref)
	if err != nil {
		return api.Operation{}, err
	}
	if d.Active() {
		return api.Operation{}, api.NewProblem("precondition", "%q is %s", ref, d.State).WithHint("stop it first: `wherry stop %s`", ref.Name)
	}
	if d.Snapshots > 0 {
		names, err := s.Hypervisor.Snapshots(ctx, ref.Name)
		if err != nil {
			return api.Operation{}, inspect.Problem(ref, err)
		}
		return api.Operation{}, api.NewProblem("precondition", "%q has %d snapshots: %s", ref, len(names), strings.Join(names, ", "))
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: "delete", Project: ref.Project, Instance: ref.Name, Key: k, Request: r},
		func(ctx context.Context, op *operation.Op) (any, error) {
			return nil, op.Step(ctx, "delete", func(ctx context.Context) error { return s.deleteNow(ctx, ref, r) })
		})
}

func (s *Service) deleteNow(ctx context.Context, ref api.Ref, r api.DeleteRequest) error {
	// Under the lock: it may have been started since the request.
	d, err := s.find(ctx, ref)
	if err != nil {
		return err
	}
	if d.Active() {
		return api.NewProblem("precondition", "%q is %s", ref, d.State)
	}
	rec, err := s.Records.Of(ref, d.UUID)
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		return api.NewProblem("internal", "%w", err)
	}
	// Identities are taken while the definition still says that they are ours.
	var volumes []volume.Owned
	if !r.KeepVolumes {
		for _, disk := range rec.Disks {
			if !disk.Owned {
				continue
			}
			if own, err := volume.Identify(disk.Path); err == nil {
				volumes = append(volumes, own)
			}
		}
	}
	if err := s.needed(ctx, ref, d.UUID, volumes); err != nil {
		return err
	}
	if err := s.Power.Undefine(ctx, ref.Name); err != nil {
		return api.NewProblem("libvirt-failed", "%w", err)
	}
	var errs []error
	for _, v := range volumes {
		if err := v.Remove(); err != nil {
			errs = append(errs, fmt.Errorf("volume %s remains: %w", v.Path, err))
			continue
		}
		errs = append(errs, s.Templates.DropRef(ctx, v.Path))
	}
	pools := map[string]bool{}
	for _, disk := range rec.Disks {
		if disk.Pool != "" && !pools[disk.Pool] {
			pools[disk.Pool] = true
			if err := s.Hypervisor.RefreshPool(ctx, disk.Pool); err != nil {
				s.Log.Warn("refreshing a pool", "pool", disk.Pool, "error", err)
			}
		}
	}
	errs = append(errs, s.Records.Remove(ref), s.Cleaner.Forget(s.note(ref, d.UUID, "").Ref()))
	if err := errors.Join(errs...); err != nil {
		return api.NewProblem("internal", "the instance is gone, but: %w", err)
	}
	return nil
}
