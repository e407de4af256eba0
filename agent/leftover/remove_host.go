package leftover

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// removeThing deletes one thing of libvirt's or QEMU's, under the lock of the
// instance that it is part of: an operation that begins now waits, and one that
// has begun since the look is in the way.
func (s *Service) removeThing(ctx context.Context, l api.Leftover, t Things) error {
	if l.Kind == api.LeftoverSecret {
		for _, x := range t.Secrets {
			if l.ID == api.LeftoverSecret+":"+x.UUID {
				return s.Machine.RemoveSecret(ctx, x.Usage)
			}
		}
		return fmt.Errorf("%s is gone", l.ID)
	}
	unlock, err := s.lock(ctx, l.Instance)
	if err != nil {
		return err
	}
	defer unlock()
	if l.Kind == api.LeftoverCopy {
		return s.removeCopy(ctx, l.Instance, strings.TrimPrefix(l.ID, api.LeftoverCopy+":"))
	}
	for _, w := range t.Work {
		if l.ID != w.Kind+":"+w.Instance+"/"+w.ID {
			continue
		}
		d, err := s.Power.Domain(ctx, w.Instance)
		if err != nil {
			return err
		}
		if d.UUID != w.UUID || d.Incoming {
			return fmt.Errorf("%q is another instance by now", w.Instance)
		}
		return s.Machine.EndRest(ctx, w.Instance, w.Rest)
	}
	return fmt.Errorf("%s is gone", l.ID)
}

// lock takes the lock of the instance in the project that its record names.
func (s *Service) lock(ctx context.Context, name string) (func(), error) {
	ref := api.Ref{Project: api.DefaultProject, Name: name}
	records, err := s.Records.List()
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	for _, r := range records {
		if r.Name == name {
			ref.Project = r.Project
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return s.Journal.Lock(ctx, ref, "leftovers")
}

// removeCopy ends a copy of which the guest has gone on elsewhere. Its QEMU
// says so itself: the journal alone is not enough to end a process.
func (s *Service) removeCopy(ctx context.Context, name, uuid string) error {
	d, err := s.Power.Domain(ctx, name)
	switch {
	case errors.Is(err, hypervisor.ErrNoDomain):
		return nil
	case err != nil:
		return err
	case d.UUID != uuid:
		return fmt.Errorf("%q is another instance by now", name)
	case hasRun(d):
		return fmt.Errorf("%q has run here since", name)
	case d.State == hypervisor.Running || d.Incoming:
		return fmt.Errorf("%q runs, or arrives", name)
	}
	if d.Active() {
		sent, err := s.Power.Sent(ctx, name)
		if err != nil {
			return err
		}
		if !sent {
			return fmt.Errorf("the QEMU of %q has not handed its guest over: it may be the only copy", name)
		}
		if err := s.Power.Destroy(ctx, name); err != nil {
			return err
		}
	}
	if !d.Persistent {
		return nil
	}
	return s.Power.Undefine(ctx, name)
}
