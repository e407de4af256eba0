package instance

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const kindStop = "stop"

// Power states of a record: what an instance is to do on this host.
const (
	stateRunning = "running"
	stateStopped = "stopped"
)

const (
	// cleanTimeout bounds what is done once the instance is down.
	cleanTimeout = 2 * time.Minute
	// recoveredAtLeast is what a guest is given after the agent was lost: a
	// press of the button may have been lost with it.
	recoveredAtLeast = 15 * time.Second
	// lookTimeout bounds the look at an instance that is to be stopped.
	lookTimeout = 5 * time.Second
	// libvirtPatience is how long a recovery waits for libvirt.
	libvirtPatience = 2 * time.Minute
)

// Stop asks the guest to power off, and forces it only if told to. It ends an
// operation on the instance that is weaker (see [operation.Claim]).
func (s *Service) Stop(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	if _, err := s.whose(ctx, ref); err != nil {
		return api.Operation{}, err
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: kindStop, Claim: claim(r), Project: ref.Project, Instance: ref.Name, Key: k, Request: r, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) {
			// Under the lock: whoever held it may have moved or removed it.
			uuid, err := s.whose(ctx, ref)
			if err != nil {
				return nil, err
			}
			return s.stop(ctx, op, stopping{UUID: uuid, Began: s.Now(), Request: r})
		})
}

func claim(r api.StopRequest) operation.Claim {
	switch {
	case r.Force:
		return operation.ClaimForceStop
	case r.OnTimeout == "force":
		return operation.ClaimStopAtLast
	}
	return operation.ClaimStop
}

// whose gives the UUID of the instance. Where libvirt does not answer, or not
// soon, the record tells: a process can be ended without libvirt.
func (s *Service) whose(ctx context.Context, ref api.Ref) (string, error) {
	soon, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	d, err := s.find(soon, ref)
	if err == nil || api.CodeOf(err) == "not-found" || ctx.Err() != nil {
		return d.UUID, err
	}
	if rec, recErr := s.Records.Read(ref); recErr == nil {
		s.Log.Warn("libvirt does not answer, the record tells whose process it is", "instance", ref.String(), "error", err)
		return rec.UUID, nil
	}
	return "", err
}

// stopping is what the journal keeps of a stop.
type stopping struct {
	UUID    string          `json:"uuid"`
	Began   time.Time       `json:"began"`
	Request api.StopRequest `json:"request"`
	// Result is there once the instance is down, Clean once nothing is owed.
	Result *api.StopResult `json:"result,omitempty"`
	Clean  bool            `json:"clean,omitempty"`
}

// stop brings the instance down, and cleans up after it.
func (s *Service) stop(ctx context.Context, op *operation.Op, st stopping) (any, error) {
	if err := op.Save(kindStop, st); err != nil {
		return nil, err
	}
	if st.Result == nil {
		result, err := s.down(ctx, op, st)
		if err != nil {
			return nil, err
		}
		st.Result = &result
		s.save(op, st)
	}
	if !st.Clean {
		// Who cancels from here on comes too late for this: it is down, and what
		// is owed is done.
		ctx, cancel := operation.Detach(ctx)
		defer cancel()
		err := op.Step(ctx, "clean", func(ctx context.Context) error {
			return s.clean(ctx, s.note(op.Ref(), st.UUID, stateStopped))
		})
		if err != nil {
			return nil, api.NewProblem("internal", "the instance is down (%s), but: %w", st.Result.Rung, err).
				WithHint("it is tried again: at once by another stop, and now and then by the agent")
		}
		st.Clean = true
		s.save(op, st)
	}
	return *st.Result, nil
}

// save journals how far a stop is. Where that fails a recovery does more than
// it has to, which is no harm.
func (s *Service) save(op *operation.Op, st stopping) {
	if err := op.Save(kindStop, st); err != nil {
		s.Log.Warn("journalling a stop", "operation", op.ID(), "error", err)
	}
}

// down climbs the ladder. What is owed is noted before the process is ended,
// and taken back when it goes on.
func (s *Service) down(ctx context.Context, op *operation.Op, st stopping) (api.StopResult, error) {
	note := s.note(op.Ref(), st.UUID, stateStopped)
	var result api.StopResult
	err := op.Step(ctx, "stop", func(ctx context.Context) error {
		if err := s.owe(note); err != nil {
			return err
		}
		began := s.Now()
		var err error
		result, err = s.Ladder.Down(ctx, op.Ref().Name, st.UUID, s.options(st))
		if err == nil {
			s.observe(result, s.Now().Sub(began))
		}
		return err
	})
	if err == nil || errors.Is(context.Cause(ctx), operation.ErrShutdown) {
		return result, err
	}
	// Once force was used the process may yet end: what is owed stays owed.
	if !slices.ContainsFunc(result.Rungs, func(r api.RungTime) bool { return api.Forced(r.Rung) }) {
		err = errors.Join(err, s.Cleaner.Forget(note.Ref()))
	}
	return result, err
}

func (s *Service) options(st stopping) power.Options {
	timeout := st.Request.Timeout.Or(power.DefaultTimeout)
	// Whole milliseconds, for whoever reads that they were not enough.
	timeout = max(timeout-s.Now().Sub(st.Began), min(timeout, recoveredAtLeast)).Round(time.Millisecond)
	return power.Options{Timeout: timeout, ForceAfter: st.Request.OnTimeout == "force", Force: st.Request.Force}
}

func (s *Service) observe(r api.StopResult, took time.Duration) {
	if s.Observer == nil {
		return
	}
	s.Observer.Stop(r.Rung, took)
	if api.Forced(r.Rung) {
		s.Observer.ForcedStop()
	}
}

// recoverStop goes on with a stop that the agent did not finish.
func (s *Service) recoverStop(ctx context.Context, op *operation.Op) (any, error) {
	st, err := s.recovered(ctx, op)
	if err != nil {
		return nil, err
	}
	return s.stop(ctx, op, st)
}

// recovered gives what is known of a stop that the agent did not finish, once
// libvirt answers; an error where it was ended before.
func (s *Service) recovered(ctx context.Context, op *operation.Op) (st stopping, err error) {
	if op.Cancelled() {
		return st, operation.ErrCancelled
	}
	op.Cancellable() // by what is stronger, above all
	found, err := op.Load(kindStop, &st)
	if err != nil {
		return st, err
	}
	if err := s.awaitLibvirt(ctx, op.Ref()); err != nil || found {
		return st, err
	}
	st.Began = s.Now()
	if err := op.Request(&st.Request); err != nil {
		return st, err
	}
	st.UUID, err = s.whose(ctx, op.Ref())
	return st, err
}

// awaitLibvirt waits for libvirt to answer, which it may not do yet when the
// agent starts. That it knows no such instance is an answer, and one that it
// never gives is for others to deal with.
func (s *Service) awaitLibvirt(ctx context.Context, ref api.Ref) error {
	wait, cancel := context.WithTimeout(ctx, libvirtPatience)
	defer cancel()
	_, err := s.Hypervisor.WaitState(wait, ref.Name, hypervisor.States()...)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// owe notes what is owed to an instance with a record. Without one nothing is.
func (s *Service) owe(n cleanup.Note) error {
	if _, err := s.Records.Of(n.Ref(), n.UUID); errors.Is(err, record.ErrNotFound) {
		return nil
	}
	if err := s.Cleaner.Owe(n); err != nil {
		return api.NewProblem("internal", "%w", err)
	}
	return nil
}

// clean does what is owed; the note stays where that fails.
func (s *Service) clean(ctx context.Context, n cleanup.Note) error {
	ctx, release := operation.Detach(ctx)
	defer release()
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	err := s.Cleaner.Clean(ctx, n)
	if errors.Is(err, cleanup.ErrRuns) {
		return api.NewProblem("conflict", "%w", err).WithHint("somebody has started it meanwhile: look at it, and ask again")
	}
	return err
}
