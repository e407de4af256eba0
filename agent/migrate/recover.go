package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// libvirtPatience is how long a recovery waits for this host's libvirt.
const libvirtPatience = 2 * time.Minute

// recover finishes or takes back a migration that an earlier run of the agent
// left. Libvirt may have carried it on meanwhile, so both hosts are asked where
// the instance is; memory of what was intended decides nothing.
func (s *Service) recover(ctx context.Context, op *operation.Op) (any, error) {
	s.dropProbes(op)
	if waited, err := waits(op); err != nil || waited {
		// It may have been held for one at work.
		defer func() { s.Line.Hold(op.ID()).Leave() }()
		if err != nil {
			return nil, err
		}
		return s.again(ctx, op)
	}
	defer s.Line.Hold(op.ID()).Leave()
	var st state
	found, err := op.Load("migration", &st)
	if err != nil {
		return nil, err
	}
	if !found || st.journal() == Untouched {
		return nil, interrupted("before anything was touched").WithPhase(op.Interrupted())
	}
	m, err := s.newMigration(op.Ref(), st.Request)
	if err != nil && st.Performing {
		// To have failed would say that it is here, to be started again.
		return nil, api.NewProblem("needs-decision", "the destination cannot be asked where the instance is: %w", err).
			WithHint("put right what keeps this agent from speaking to %s, restart it, and decide with `wherry operation resolve %s --keep source` or `--keep destination`; both hosts are asked again before anything is done",
				st.Request.Destination, op.ID())
	}
	if err != nil {
		return nil, err
	}
	m.op = op
	m.take(st)
	result, err := m.goOn(ctx)
	m.liftUnless(err)
	return result, err
}

// goOn does what the journal says comes next.
func (m *migration) goOn(ctx context.Context) (any, error) {
	var choice Choice
	if chosen, err := m.op.Load(noteChoice, &choice); err != nil || chosen {
		if err != nil {
			return nil, err
		}
		if err := m.awaitLibvirt(ctx); err != nil {
			return nil, err
		}
		return m.carryChoice(ctx, choice)
	}
	result, err := m.resume(ctx)
	if why := m.op.Failure(); why != nil && api.CodeOf(err) == "interrupted" {
		err = why // it was being taken back already, and this is the reason
	}
	m.observe(err)
	return result, err
}

func interrupted(when string) *api.Problem {
	return api.NewProblem("interrupted", "the agent was interrupted %s; the instance runs on at the source", when).
		WithHint("ask for the migration again")
}

func (m *migration) resume(ctx context.Context) (any, error) {
	if m.state.journal() == Performing {
		if err := m.awaitLibvirt(ctx); err != nil {
			return nil, err
		}
		if err := m.step(ctx, phasePerform, m.adopt); err != nil && !m.state.Moved {
			return nil, err
		}
	}
	// Nobody has to be asked: after adopt the journal alone decides.
	if Judge(Situation{Journal: m.state.journal()}).Verdict == KeepDestination {
		return m.finish(ctx)
	}
	m.undoable()
	return nil, interrupted("before the instance moved").WithPhase(m.op.Interrupted())
}

// undoable pushes what the lost process would have undone.
func (m *migration) undoable() {
	if len(m.state.Connected) > 0 {
		m.op.Undo("disconnect targets at the destination", m.disconnect)
	}
	if m.state.Reserved {
		m.op.Undo("take back what the destination prepared", m.unreserve)
	}
}

// awaitLibvirt waits until this host's libvirt answers.
func (m *migration) awaitLibvirt(ctx context.Context) error {
	deadline := time.NewTimer(libvirtPatience)
	defer deadline.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := m.Hypervisor.Domain(ctx, m.ref.Name)
		if err == nil || errors.Is(err, hypervisor.ErrNoDomain) {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return m.needsDecision(ctx, "this host's libvirt does not answer", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// adopt follows a migration that libvirt carries on without the agent that has
// asked for it, and concludes it.
func (m *migration) adopt(ctx context.Context) error { return m.followOn(ctx, nil, true) }

// followOn is adopt for whoever has lost libvirt's call alone, too. lost says how;
// adopted: what an earlier agent has done is to be undone where it stays here.
func (m *migration) followOn(ctx context.Context, lost error, adopted bool) error {
	if d, err := m.Hypervisor.Domain(ctx, m.ref.Name); err == nil {
		m.inst.Domain = d
	}
	if m.state.Began.IsZero() {
		m.state.Began = m.Now() // an agent that did not write it down was upgraded
	}
	defer m.takePart()()
	open := m.openToCancel()
	defer m.op.NotCancellable()
	waiting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), operation.ErrShutdown) {
			cancel(context.Cause(ctx))
		}
	})
	defer stop()
	if open && m.op.Cancelled() {
		cancel(operation.ErrCancelled) // it was, before the agent was lost
	}
	m.setGuard(ctx, true)
	done := make(chan error, 1)
	go func() { done <- m.jobEnd(waiting) }()
	w := m.newWatcher(cancel)
	err := w.follow(ctx, done)
	if errors.Is(err, operation.ErrShutdown) {
		cancel(err) // of the waiting only, see jobEnd
		return err
	}
	defer w.account()
	asking, release := operation.Detach(ctx)
	defer release()
	verdict, why, settleErr := m.settle(asking)
	err = cmp.Or(err, lost)
	switch {
	case errors.Is(settleErr, errGoesOn):
		return m.followOn(ctx, err, adopted)
	case settleErr != nil:
		return settleErr
	case verdict == KeepDestination:
		m.state.Moved = true
		return nil
	case verdict == KeepSource:
		if adopted {
			m.undoable()
		}
		if err != nil {
			return m.moveProblem(asking, err, why)
		}
		return interrupted(fmt.Sprintf("while the instance was being moved, and libvirt did not finish (%s)", why))
	}
	if adopted {
		err = errors.Join(err, errors.New("its caller was interrupted"))
	}
	return m.needsDecision(asking, why, err)
}

// jobEnd returns when no outgoing migration is left on this host, or its
// libvirt has not answered for too long. When ctx ends it stops the migration
// and waits on, unless it is the agent that stops: then the migration goes on.
func (m *migration) jobEnd(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	ask := context.WithoutCancel(ctx)
	var cause error
	stop := ctx.Done()
	stopAgain := time.NewTicker(stopEvery)
	defer stopAgain.Stop()
	answered := m.Now()
	for {
		switch side := m.sourceSide(ask); {
		case side.State != "unknown" && !side.Job || side.halved():
			return cause
		case side.State != "unknown":
			answered = m.Now()
		case m.Now().Sub(answered) > libvirtPatience:
			return cmp.Or(cause, errors.New("libvirt does not answer"))
		}
		select {
		case <-tick.C:
		case <-stop:
			stop, cause = nil, context.Cause(ctx)
			if errors.Is(cause, operation.ErrShutdown) {
				return cause
			}
			m.stopJob(ask)
		case <-stopAgain.C:
			if cause != nil {
				m.stopJob(ask) // a copy may have begun in between
			}
		}
	}
}

// stopEvery is how often an adopted migration is told to stop.
const stopEvery = 5 * time.Second

// stopJob ends libvirt's migration. The disks' connections are cut first, as
// the mover itself does: on a dead network an abort waits for them.
func (m *migration) stopJob(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopEvery)
	defer cancel()
	_, yank := m.Mover.Yank(ctx, m.ref.Name)
	if err := errors.Join(yank, m.Mover.Abort(ctx, m.ref.Name)); err != nil {
		m.Log.Warn("stopping an adopted migration", "operation", m.op.ID(), "error", err)
	}
}
