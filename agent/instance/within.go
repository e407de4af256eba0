package instance

import (
	"context"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
)

// Down brings an instance down within an operation that holds it already, as
// [Service.Stop] does: by the ladder, and with all that is owed to it
// afterwards. It uses the operation's journal, so that called again, after a
// crash too, it goes on where it was; what is done when the guest's time is over
// may be another thing then.
func (s *Service) Down(ctx context.Context, op *operation.Op, uuid string, r api.StopRequest) (api.StopResult, error) {
	var st stopping
	begun, err := op.Load(kindStop, &st)
	if err != nil {
		return api.StopResult{}, err
	}
	if !begun {
		st = stopping{UUID: uuid, Began: s.Now(), Request: r}
	}
	st.Request.OnTimeout = r.OnTimeout
	out, err := s.stop(ctx, op, st)
	if err != nil {
		return api.StopResult{}, err
	}
	result, _ := out.(api.StopResult)
	return result, nil
}

// Up starts an instance within an operation that holds it already, as
// [Service.Start] does.
func (s *Service) Up(ctx context.Context, ref api.Ref) error { return s.startNow(ctx, ref, nil) }
