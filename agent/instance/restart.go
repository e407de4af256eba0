package instance

import (
	"context"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const kindRestart = "restart"

// Restart stops the instance, as Stop does, and starts it again. One that does
// not run is started. A stronger request ends it, and then it is not started.
// One that could not start again is not stopped.
func (s *Service) Restart(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	if d, err := s.find(ctx, ref); err != nil {
		return api.Operation{}, err
	} else if err := lasting(ref, d); err != nil {
		return api.Operation{}, err
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: kindRestart, Project: ref.Project, Instance: ref.Name, Key: k, Request: r, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) {
			d, err := s.find(ctx, ref)
			if err != nil {
				return nil, err
			}
			if err := lasting(ref, d); err != nil {
				return nil, err
			}
			// One that runs has the file open, and would not come back.
			if err := s.sound(ctx, ref, d); err != nil {
				return nil, err
			}
			return s.restart(ctx, op, stopping{UUID: d.UUID, Began: s.Now(), Request: r})
		})
}

// lasting refuses an instance of which nothing would be left once it is down.
func lasting(ref api.Ref, d hypervisor.Domain) error {
	if d.Persistent {
		return nil
	}
	return api.NewProblem("precondition", "%q is not restarted: it is transient, libvirt keeps no definition to start it from", ref).
		WithHint("nothing was touched; `virsh dumpxml %s` gives a definition that `virsh define` keeps", ref.Name)
}

func (s *Service) restart(ctx context.Context, op *operation.Op, st stopping) (any, error) {
	result, err := s.stop(ctx, op, st)
	if err != nil {
		return nil, err
	}
	// Whoever ended it meanwhile wants it to stay down: the step finds that the
	// context has ended, and does nothing.
	return result, s.comeBack(op.Ref(), s.startStep(ctx, op, op.Ref()))
}

// recoverRestart goes on where the agent was lost. What was ended is not
// started again.
func (s *Service) recoverRestart(ctx context.Context, op *operation.Op) (any, error) {
	st, err := s.recovered(ctx, op)
	if err != nil {
		return nil, err
	}
	return s.restart(ctx, op, st)
}
