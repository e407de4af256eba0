package templates

import (
	"context"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
)

// kindScrub is the kind of the operations that read copies whole.
const kindScrub = "template-scrub"

// Scrub reads every ready copy of a template whole in an operation, which fails
// where one is not what it was; that copy is brought again by itself. A
// removed template is read too: volumes may stand on it.
func (s *Service) Scrub(ctx context.Context, id string, k api.Idempotency) (api.Operation, error) {
	if _, err := s.Registry.Get(id); err != nil {
		return api.Operation{}, problem(err)
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: kindScrub, Template: id, Key: k, Request: request{id}, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) { return s.scrub(ctx, op, id) })
}

func (s *Service) scrub(ctx context.Context, op *operation.Op, id string) (any, error) {
	err := op.Step(ctx, "scrub", func(ctx context.Context) error {
		return s.Registry.Scrub(ctx, id, func(done, total int64) { op.Progress(progress(done, total)) })
	})
	if err != nil {
		return nil, problem(err)
	}
	return s.Get(ctx, id)
}

// recoverScrub begins anew what the end of the agent cut short.
func (s *Service) recoverScrub(ctx context.Context, op *operation.Op) (any, error) {
	var r request
	if err := op.Request(&r); err != nil {
		return nil, err
	}
	return s.scrub(ctx, op, r.Template)
}
