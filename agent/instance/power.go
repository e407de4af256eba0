package instance

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Timing of a stop.
const (
	stopTimeout = 2 * time.Minute
	pressEvery  = 5 * time.Second // a press while the guest boots is lost
)

// Start connects the instance's targets, writes its record and starts it.
// Running already is success.
func (s *Service) Start(ctx context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error) {
	if _, err := s.find(ctx, ref); err != nil {
		return api.Operation{}, err
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: "start", Project: ref.Project, Instance: ref.Name, Key: k},
		func(ctx context.Context, op *operation.Op) (any, error) {
			return nil, op.Step(ctx, "start", func(ctx context.Context) error { return s.startNow(ctx, ref) })
		})
}

// startNow starts the instance. The record is on disk before the process
// exists: whatever happens then, the host knows what it has to clean.
func (s *Service) startNow(ctx context.Context, ref api.Ref) error {
	d, err := s.find(ctx, ref)
	if err != nil {
		return err
	}
	if d.Active() {
		return nil
	}
	rec, err := s.Records.Of(ref, d.UUID)
	managed := err == nil
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		return api.NewProblem("internal", "%w", err)
	}
	if managed && len(rec.Targets) > 0 {
		if _, err := s.Targets.Modify(ctx, api.TargetsRequest{Add: true, Targets: rec.Targets}); err != nil {
			return err
		}
	}
	if managed {
		if rec.DomainXML, err = s.Hypervisor.XML(ctx, ref.Name, true); err != nil {
			return inspect.Problem(ref, err)
		}
		rec.PowerState, rec.UpdatedAt = "running", s.Now().UTC()
		if err := s.Records.Write(rec); err != nil {
			return api.NewProblem("internal", "%w", err)
		}
	}
	if err := s.Power.Start(ctx, ref.Name, false); err != nil {
		if managed {
			rec.PowerState = "stopped"
			err = errors.Join(err, s.Records.Write(rec))
		}
		return api.NewProblem("libvirt-failed", "%w", err)
	}
	return nil
}

// Stop asks the guest to power off, and forces it only if told to.
func (s *Service) Stop(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	if _, err := s.find(ctx, ref); err != nil {
		return api.Operation{}, err
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: "stop", Project: ref.Project, Instance: ref.Name, Key: k, Request: r, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) {
			begin := s.Now()
			var result api.StopResult
			err := op.Step(ctx, "stop", func(ctx context.Context) error {
				var err error
				result.Rung, err = s.stopNow(ctx, ref, r)
				return err
			})
			if err != nil {
				return nil, err
			}
			if s.Observer != nil {
				s.Observer.Stop(result.Rung, s.Now().Sub(begin))
				if result.Rung == "destroy" {
					s.Observer.ForcedStop()
				}
			}
			return result, nil
		})
}

func (s *Service) stopNow(ctx context.Context, ref api.Ref, r api.StopRequest) (rung string, err error) {
	d, err := s.find(ctx, ref)
	if err != nil {
		return "", err
	}
	rung = "already"
	if d.Active() {
		if rung, err = s.end(ctx, ref, r); err != nil {
			return "", err
		}
	}
	return rung, s.stopped(ctx, ref, d.UUID)
}

// end brings a running instance down.
func (s *Service) end(ctx context.Context, ref api.Ref, r api.StopRequest) (string, error) {
	if !r.Force {
		gone, err := s.press(ctx, ref, r.Timeout.Or(stopTimeout))
		if gone || err != nil {
			return "acpi", err
		}
		if r.OnTimeout != "force" {
			return "", api.NewProblem("timeout", "%q did not power off within %s", ref, cmp.Or(r.Timeout.Std(), stopTimeout)).
				WithHint("ask again with on_timeout \"force\", or with force")
		}
	}
	if err := s.Power.Destroy(ctx, ref.Name); err != nil && !errors.Is(err, hypervisor.ErrInvalidState) {
		return "", api.NewProblem("libvirt-failed", "%w", err)
	}
	return "destroy", nil
}

// press presses the power button until the guest is down or time is over.
func (s *Service) press(ctx context.Context, ref api.Ref, timeout time.Duration) (gone bool, err error) {
	deadline := s.Now().Add(timeout)
	for {
		// A guest that is down meanwhile refuses the press: the wait sees it.
		if err := s.Power.Shutdown(ctx, ref.Name, hypervisor.ShutdownACPI); err != nil {
			s.Log.Info("the power button was not taken", "instance", ref.String(), "error", err)
		}
		left := deadline.Sub(s.Now())
		if left <= 0 {
			return false, nil
		}
		wait, cancel := context.WithTimeout(ctx, min(left, pressEvery))
		_, err := s.Hypervisor.WaitState(wait, ref.Name, hypervisor.Shutoff, hypervisor.Crashed)
		cancel()
		switch {
		case err == nil, errors.Is(err, hypervisor.ErrNoDomain):
			return true, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case !errors.Is(err, context.DeadlineExceeded):
			return false, inspect.Problem(ref, err)
		}
	}
}

// stopped releases what a stopped instance does not need, from its record.
func (s *Service) stopped(ctx context.Context, ref api.Ref, uuid string) error {
	rec, err := s.Records.Of(ref, uuid)
	if errors.Is(err, record.ErrNotFound) {
		return nil
	}
	if err != nil {
		return api.NewProblem("internal", "%w", err)
	}
	var errs []error
	if len(rec.Targets) > 0 {
		_, err := s.Targets.Modify(ctx, api.TargetsRequest{Targets: rec.Targets})
		errs = append(errs, err)
	}
	rec.PowerState, rec.UpdatedAt = "stopped", s.Now().UTC()
	errs = append(errs, s.Records.Write(rec))
	if err := errors.Join(errs...); err != nil {
		return api.NewProblem("internal", "the instance is down, but: %w", err)
	}
	return nil
}
