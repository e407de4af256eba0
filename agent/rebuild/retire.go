package rebuild

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/template"
)

// retire removes the old volume, unless it is not ours or something leads to
// it. That is a warning and no failure: the rebuild is done. Its error says
// only that the agent shuts down, and that the next start has to do it.
func (b *rebuild) retire(ctx context.Context) (removed bool, err error) {
	defer b.refresh(ctx)
	if b.j.Old == nil {
		if b.j.Plan.Old.Owned {
			return true, b.dropOld(ctx) // it was lost before
		}
		b.warnings = append(b.warnings, b.j.Plan.Warnings...)
		return false, nil
	}
	why := b.needed(ctx, b.j.Old.Path)
	if why == nil {
		why = b.Volumes.Remove(*b.j.Old)
	}
	if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
		return false, operation.ErrShutdown
	}
	if why != nil {
		b.warnings = append(b.warnings, fmt.Sprintf("the old volume %s stays: %v", b.j.Old.Path, why))
		return false, nil
	}
	return true, b.dropOld(ctx)
}

// dropOld forgets what the old volume stood on. A ref that stays keeps a
// template's copy longer than need be, until a look at the chains drops it.
func (b *rebuild) dropOld(ctx context.Context) error {
	if err := b.Templates.DropRef(ctx, b.j.Plan.Old.Path); err != nil {
		if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
			return operation.ErrShutdown
		}
		b.warnings = append(b.warnings, fmt.Sprintf("the ref of the old volume stays: %v", err))
	}
	return nil
}

// needed says what leads to a volume: an instance that has it as a disk, this
// one too, or a volume that stands on it. Where anything could not be followed
// it is not known, and that is a reason too.
func (b *rebuild) needed(ctx context.Context, path string) error {
	chains, err := b.Chains.ReadAll(ctx)
	if err != nil {
		return fmt.Errorf("whether something leads to it is not known: %w", err)
	}
	for _, u := range chains.On(template.FileAt(path)) {
		switch {
		case u.Instance != "":
			return fmt.Errorf("instance %q has it, or stands on it", u.Instance)
		case u.Volume != path:
			return fmt.Errorf("volume %s stands on it", u.Volume)
		}
	}
	if len(chains.Unread) > 0 {
		return fmt.Errorf("whether something leads to it is not known: %s", strings.Join(chains.Unread, "; "))
	}
	return nil
}

// refresh has libvirt look what lies in the pools.
func (b *rebuild) refresh(ctx context.Context) {
	pools := []string{b.j.Plan.Old.Pool, b.j.Plan.New.Pool}
	slices.Sort(pools)
	for _, pool := range slices.Compact(pools) {
		if pool == "" {
			continue
		}
		if err := b.Hypervisor.RefreshPool(ctx, pool); err != nil {
			b.Log.Warn("refreshing a pool", "pool", pool, "error", err)
		}
	}
}
