package instance

import (
	"context"
	"errors"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
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
func (s *Service) Up(ctx context.Context, ref api.Ref) error {
	return s.comeBack(ref, s.startNow(ctx, ref, nil))
}

// comeBack sees to an instance that was stopped only to be started again, and
// was not. Where the host is going down its record says that it is to run: the
// host's next start does it.
func (s *Service) comeBack(ref api.Ref, failed error) error {
	if failed == nil || s.Refuse() == nil {
		return failed
	}
	rec, err := s.Records.Read(ref)
	switch {
	case errors.Is(err, record.ErrNotFound), err == nil && rec.PowerState == stateRunning:
		return failed
	case err == nil:
		rec.PowerState, rec.UpdatedAt = stateRunning, s.Now().UTC()
		err = s.Records.Write(rec)
	}
	if err != nil {
		s.Log.Warn("that an instance is to run again is not noted", "instance", ref.String(), "error", err)
	}
	return failed
}
