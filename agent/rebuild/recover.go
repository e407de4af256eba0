package rebuild

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// libvirtPatience is how long a recovery waits for libvirt. Without it nobody
// knows which disk is in use, and nothing may be removed.
const libvirtPatience = 10 * time.Minute

// recover brings to an end what the agent did not finish.
func (s *Service) recover(ctx context.Context, op *operation.Op) (any, error) {
	b := &rebuild{Service: s, op: op, ref: op.Ref()}
	if err := op.Request(&b.r); err != nil {
		return nil, err
	}
	begun, err := op.Load(Kind, &b.j)
	if err != nil {
		return nil, err
	}
	if !begun {
		return nil, b.ending("nothing was done yet")
	}
	found, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	verdict, why := Settle(found)
	s.Log.Info("a rebuild that was interrupted", "instance", b.ref.String(), "operation", op.ID(), "verdict", string(verdict), "because", why)
	switch verdict {
	case Forward:
		if b.j.Switching && !b.j.Done {
			op.Undo("keep the old disk", b.restore)
		}
		return b.forward(ctx)
	case Leave:
		// What anybody has done to it since is theirs; it is not started either.
		return nil, errors.Join(b.ending(why), b.discard(ctx))
	}
	ctx, cancel := operation.Detach(ctx)
	defer cancel()
	if err := op.Step(ctx, "keep the old disk", b.restore); err != nil {
		if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
			return nil, err
		}
		p := b.ending(why)
		p.Hint = fmt.Sprintf("not everything was undone: %v", err)
		return nil, p
	}
	return nil, b.ending(why)
}

// ending is what a rebuild that is not finished ends with: why it failed, if it
// had.
func (b *rebuild) ending(why string) *api.Problem {
	if p := b.op.Failure(); p != nil {
		return p
	}
	if b.op.Cancelled() {
		return api.NewProblem("cancelled", "%w", operation.ErrCancelled)
	}
	return api.NewProblem("interrupted", "the agent was interrupted while it rebuilt %q: %s", b.ref, why).WithHint("ask again")
}

// look waits for libvirt, and sees what it has.
func (b *rebuild) look(ctx context.Context) (Found, error) {
	f := Found{Switching: b.j.Switching, Done: b.j.Done, Failed: b.op.Failure() != nil}
	wait, cancel := context.WithTimeout(ctx, libvirtPatience)
	defer cancel()
	d, err := b.Hypervisor.WaitState(wait, b.ref.Name, hypervisor.States()...)
	switch {
	case errors.Is(err, hypervisor.ErrNoDomain), err == nil && d.UUID != b.j.UUID:
		f.Gone = true
		return f, nil
	case err != nil && ctx.Err() != nil:
		return f, context.Cause(ctx)
	case err != nil:
		return f, api.NewProblem("needs-decision", "libvirt does not answer, so which root disk %q has is not known: %s, or %s if it is named: %w",
			b.ref, b.j.Plan.Old.Path, b.j.Path, err).WithDisk(b.j.Plan.Disk)
	}
	f.Runs = runs(d)
	_, f.Names, err = b.definition(ctx, !f.Runs)
	if api.CodeOf(err) == "not-found" {
		f.Gone = true
		return f, nil
	}
	return f, err
}
