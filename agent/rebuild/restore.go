package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// restore takes a rebuild back: the definition names the old volume, the new
// one is gone, and an instance that ran runs again. Each part is tried whatever
// became of the others; doing it again does no harm.
func (b *rebuild) restore(ctx context.Context) error {
	var errs []error
	if b.j.Stopping && b.j.Stopped == nil {
		errs = append(errs, b.settleDown(ctx))
	}
	if b.j.Switching {
		if err := b.runsOnNew(ctx); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, b.putBack(ctx))
	}
	errs = append(errs, b.discard(ctx))
	if b.j.Ran {
		errs = append(errs, b.again(ctx))
	}
	return errors.Join(errs...)
}

// settleDown waits for what becomes of a guest that was told to stop: it may do
// so at any time from now on, and would then stay down. One that does not in its
// time goes on as it was; its power is not cut for a rebuild that is none.
func (b *rebuild) settleDown(ctx context.Context) error {
	result, err := b.Power.Down(ctx, b.op, b.j.UUID, api.StopRequest{Timeout: b.r.Timeout, OnTimeout: "fail"})
	switch {
	case err == nil:
		b.j.Stopped = &result
		return b.save()
	case api.CodeOf(err) == "timeout":
		return nil
	}
	return err
}

// runsOnNew refuses to take from a guest the disk that it has begun to write
// to.
func (b *rebuild) runsOnNew(ctx context.Context) error {
	d, err := b.Hypervisor.Domain(ctx, b.ref.Name)
	if err != nil || !runs(d) {
		return nil //nolint:nilerr // what comes next asks libvirt too, and says so
	}
	if _, names, err := b.definition(ctx, false); err != nil || names != NamesNew {
		return err
	}
	return fmt.Errorf("the instance runs on the new disk %s, and keeps it; the old one, %s, stays", b.j.Path, b.j.Plan.Old.Path)
}

// again starts what ran before.
func (b *rebuild) again(ctx context.Context) error {
	if _, err := b.Hypervisor.Domain(ctx, b.ref.Name); errors.Is(err, hypervisor.ErrNoDomain) {
		return nil
	}
	if err := b.Power.Up(ctx, b.ref); err != nil {
		return fmt.Errorf("starting it again with the old disk: %w", err)
	}
	return nil
}

// putBack has the definition and the record say what they said. It defines even
// where the old volume is named already: a request that libvirt has not
// answered may still be carried out, and this one comes after it.
func (b *rebuild) putBack(ctx context.Context) error {
	_, names, err := b.definition(ctx, true)
	if api.CodeOf(err) == "not-found" {
		return nil
	}
	if err != nil {
		return err
	}
	if names == NamesOther {
		return fmt.Errorf("the definition is left as somebody has changed it")
	}
	if err := b.Definer.Define(ctx, b.j.Before); err != nil {
		return fmt.Errorf("putting the definition back: %w", err)
	}
	// A record that says the old one already may have been written since: by a
	// start, before a crash.
	switch rec, err := b.Records.Of(b.ref, b.j.UUID); {
	case errors.Is(err, record.ErrNotFound), err == nil && !b.records(rec, b.j.Path):
		return nil
	case b.j.Record == nil:
		return b.Keeper.Remove(b.ref)
	}
	return b.Keeper.Write(*b.j.Record)
}

// discard removes the new volume with its ref, unless a definition names it.
func (b *rebuild) discard(ctx context.Context) error {
	if b.j.Path == "" {
		return nil
	}
	for _, inactive := range []bool{false, true} {
		_, names, err := b.definition(ctx, inactive)
		if api.CodeOf(err) == "not-found" {
			break
		}
		if err != nil {
			return fmt.Errorf("the new volume %s stays: %w", b.j.Path, err)
		}
		if names == NamesNew {
			return fmt.Errorf("the new volume %s stays: the definition names it", b.j.Path)
		}
	}
	if b.j.New == nil {
		if err := b.adopt(); err != nil || b.j.New == nil {
			return err
		}
	}
	// Before the switch nobody could know of it; after it somebody may have made
	// something that stands on it.
	if b.j.Switching {
		if err := b.needed(ctx, b.j.Path); err != nil {
			return fmt.Errorf("the new volume %s stays: %w", b.j.Path, err)
		}
	}
	if err := b.Volumes.Remove(*b.j.New); err != nil {
		return fmt.Errorf("the new volume stays: %w", err)
	}
	defer b.refresh(ctx)
	return b.Templates.DropRef(ctx, b.j.Path)
}

// adopt finds the file that was made just before a crash and of which the
// journal has the name alone. The name is this operation's, and nothing was
// ever written to it; a file with content is somebody else's.
func (b *rebuild) adopt() error {
	own, err := b.Volumes.Identify(b.j.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := os.Lstat(b.j.Path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > 0 {
		return fmt.Errorf("the file %s is left: it is not known whose it is", b.j.Path)
	}
	b.j.New = &own
	return nil
}
