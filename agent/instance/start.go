package instance

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

const kindStart = "start"

// Start connects the instance's targets, writes its record and starts it.
// Running already is success.
func (s *Service) Start(ctx context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error) {
	if _, err := s.find(ctx, ref); err != nil {
		return api.Operation{}, err
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: kindStart, Project: ref.Project, Instance: ref.Name, Key: k, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) { return nil, s.startStep(ctx, op, ref) })
}

// startStep starts the instance, or leaves it when the operation is cancelled
// before its process is made: after that whoever cancelled would not know
// whether there is one.
func (s *Service) startStep(ctx context.Context, op *operation.Op, ref api.Ref) error {
	return op.Step(ctx, "start", func(ctx context.Context) error {
		return s.startNow(ctx, ref, func() error {
			op.NotCancellable()
			return context.Cause(ctx)
		})
	})
}

// recoverStart finishes a start that the agent did not: it was asked for, and
// doing it again does no harm.
func (s *Service) recoverStart(ctx context.Context, op *operation.Op) (any, error) {
	if op.Cancelled() {
		return nil, operation.ErrCancelled
	}
	op.Cancellable()
	if err := s.awaitLibvirt(ctx, op.Ref()); err != nil {
		return nil, err
	}
	return nil, s.startStep(ctx, op, op.Ref())
}

// startNow starts the instance. The record is on disk before the process
// exists: whatever happens then, the host knows what it has to clean. last is
// asked whether to go on before the process is made; nil = yes.
func (s *Service) startNow(ctx context.Context, ref api.Ref, last func() error) error {
	d, err := s.find(ctx, ref)
	if err != nil {
		return err
	}
	if d.Active() {
		s.forget(ref, d.UUID)
		return nil
	}
	// Before anything is connected.
	if err := s.sound(ctx, ref, d); err != nil {
		return err
	}
	rec, err := s.Records.Of(ref, d.UUID)
	managed := err == nil
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		return api.NewProblem("internal", "%w", err)
	}
	if !managed {
		return s.makeProcess(ctx, ref, last)
	}
	release, err := s.guard(ctx, ref)
	if err != nil {
		return err
	}
	defer release()
	// What a start that is lost or fails has connected is owed a clean-up. The
	// power state is not: the instance was to run.
	note := s.note(ref, d.UUID, "")
	if err := s.Cleaner.Owe(note); err != nil {
		return api.NewProblem("internal", "%w", err)
	}
	if err := s.startManaged(ctx, ref, rec, last); err != nil {
		if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
			return err // the next start of the agent goes on with it
		}
		note.PowerState = stateStopped
		return errors.Join(err, s.clean(ctx, note))
	}
	s.forget(ref, d.UUID)
	return nil
}

// guardWait is for a clean-up after the last run by another process.
const guardWait = time.Minute

// guard keeps the clean-up away that libvirt's hook has another process do
// after the last run: it would disconnect what is connected here.
func (s *Service) guard(ctx context.Context, ref api.Ref) (release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, guardWait)
	defer cancel()
	release, err = s.Cleaner.Guard(wait, s.note(ref, "", "").Ref())
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, api.NewProblem("busy", "%q is being cleaned up after: %w", ref, err)
	case err != nil:
		return nil, api.NewProblem("internal", "%w", err)
	}
	return release, nil
}

// forget: to an instance that runs nothing is owed.
func (s *Service) forget(ref api.Ref, uuid string) {
	if err := s.Cleaner.Forget(s.note(ref, uuid, "").Ref()); err != nil {
		s.Log.Warn("an instance runs, and is held to be owed a clean-up", "instance", ref.String(), "error", err)
	}
}

func (s *Service) startManaged(ctx context.Context, ref api.Ref, rec api.Record, last func() error) error {
	var err error
	if len(rec.Targets) > 0 {
		if _, err := s.Targets.Modify(ctx, api.TargetsRequest{Add: true, Targets: rec.Targets}); err != nil {
			return err
		}
	}
	if rec.DomainXML, err = s.Hypervisor.XML(ctx, ref.Name, true); err != nil {
		return inspect.Problem(ref, err)
	}
	rec.PowerState, rec.UpdatedAt = stateRunning, s.Now().UTC()
	if err := s.Records.Write(rec); err != nil {
		return api.NewProblem("internal", "%w", err)
	}
	return s.makeProcess(ctx, ref, last)
}

func (s *Service) makeProcess(ctx context.Context, ref api.Ref, last func() error) error {
	if last != nil {
		if err := last(); err != nil {
			return err
		}
	}
	if err := s.Power.Start(ctx, ref.Name, false); err != nil {
		return api.NewProblem("libvirt-failed", "%w", err)
	}
	return nil
}

// note is of what is owed to an instance.
func (s *Service) note(ref api.Ref, uuid, power string) cleanup.Note {
	project := ref.Project
	if project == "" {
		project = api.DefaultProject
	}
	return cleanup.Note{Project: project, Name: ref.Name, UUID: uuid, PowerState: power, Since: s.Now().UTC()}
}
