package instance

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

// policyWait is for short work on the instance.
const policyWait = 5 * time.Second

// Policy says how an instance goes down with its host. An instance without a
// record has nowhere to keep it.
func (s *Service) Policy(ctx context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error) {
	d, err := s.find(ctx, ref)
	if err != nil {
		return p, err
	}
	wait, cancel := context.WithTimeout(ctx, policyWait)
	defer cancel()
	// The record is read and written whole: what an operation writes must not
	// come in between.
	unlock, err := s.Operations.Lock(wait, ref, "stop policy")
	if err != nil {
		return p, err
	}
	defer unlock()
	rec, err := s.Records.Of(ref, d.UUID)
	if errors.Is(err, record.ErrNotFound) {
		return p, api.NewProblem("precondition", "%q is not managed by Wherry: %w", ref, err).
			WithHint("it is stopped with the others, at priority 0")
	}
	if err != nil {
		return p, api.NewProblem("internal", "%w", err)
	}
	rec.Stop, rec.UpdatedAt = &p, s.Now().UTC()
	if p == (api.StopPolicy{}) {
		rec.Stop = nil
	}
	if err := s.Records.Write(rec); err != nil {
		return p, api.NewProblem("internal", "%w", err)
	}
	return p, nil
}
