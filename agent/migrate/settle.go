package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// decisionTimeout is how long both hosts are asked before a person is, where
// the options do not say: longer than an agent or a libvirt takes to come back.
const decisionTimeout = 2 * time.Minute

// errGoesOn says that libvirt's call was lost, and not the migration.
var errGoesOn = errors.New("the migration goes on")

// settle asks both hosts where the instance is until they give a clear answer.
// A copy here that must not run meanwhile is paused, and runs again when the
// answer is that it is the one to go on.
func (m *migration) settle(ctx context.Context) (Verdict, string, error) {
	deadline := m.Now().Add(cmp.Or(m.DecisionTimeout, decisionTimeout))
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	judged := func(src, dst Side) Judgement {
		return Judge(Situation{Source: src, Destination: dst, Journal: m.state.journal(), Patient: m.Now().Before(deadline)})
	}
	rested := false
	rest := func(src Side) {
		// Libvirt goes on without its caller, and the handover may be yet to come.
		if !rested && !src.Job && !src.silent() {
			m.noteBar()
			rested = true
		}
	}
	for {
		// The destination may take long to answer. A copy that must not run for as
		// long as it does not is paused before it is asked.
		first := m.sourceSide(ctx)
		rest(first)
		if judged(first, Side{State: unknown}).Halt {
			m.halt(ctx)
		}
		src, dst := m.sides(ctx)
		rest(src)
		if src.Job && !src.halved() {
			return Wait, "", errGoesOn // it may take hours, and can be cancelled
		}
		j := judged(src, dst)
		if first.Job && !src.Job {
			// What the destination has answered may be from before the end.
			j = Judgement{Verdict: Wait, Why: "the migration has just ended at the source"}
		}
		if j.Halt {
			m.halt(ctx)
			src = m.sourceSide(ctx)
			j = judged(src, dst)
		}
		verdict, why := j.Verdict, j.Why
		if verdict == KeepSource && src.paused() && m.toRun(src) {
			m.lift()
			if err := m.Power.Resume(ctx, m.ref.Name); err != nil {
				verdict, why = Undecided, fmt.Sprintf("%s, where the agent has kept it from running and cannot resume it: %v", why, err)
			} else {
				why = runsAtSource // again: that it was paused says nothing of where it is now
			}
		}
		if verdict != Wait {
			m.Log.Info("where the instance is", "operation", m.op.ID(), "verdict", verdict, "why", why)
			m.state.Leftover = verdict == KeepDestination && src.State != ""
			return verdict, why, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Undecided, why, context.Cause(ctx)
		}
	}
}

// toRun tells of the copy here, which is paused, that it is not so because somebody
// wanted that: the agent has paused it, or libvirt has tried to start it again and
// could not, which a guard sees to and may not have lived to tell.
func (m *migration) toRun(src Side) bool {
	return src.Halted || m.state.Barred || m.state.Ran && src.Reason == "api-error"
}

// sideDeadline is how long one host may take to say where the instance is.
const sideDeadline = 5 * time.Second

// sides asks both hosts at the same time: either may not answer.
func (m *migration) sides(ctx context.Context) (src, dst Side) {
	var asking sync.WaitGroup
	asking.Go(func() { dst = m.destinationSide(ctx) })
	src = m.sourceSide(ctx)
	asking.Wait()
	return src, dst
}

func (m *migration) sourceSide(ctx context.Context) Side {
	ctx, cancel := context.WithTimeout(ctx, sideDeadline)
	defer cancel()
	// The job comes first: a state that was seen before its end would be taken for
	// that after it.
	job, noJob := m.Mover.Job(ctx, m.ref.Name)
	d, err := m.Hypervisor.Domain(ctx, m.ref.Name)
	switch {
	case errors.Is(err, hypervisor.ErrNoDomain):
		return Side{}
	case err != nil:
		return Side{State: unknown}
	case d.UUID != m.state.UUID:
		return Side{}
	}
	s := Side{State: string(d.State), Reason: d.Reason, Halted: m.state.Halted, Held: m.state.Held}
	if d.Active() {
		mark, sent := m.Power.SentMark(ctx, m.ref.Name)
		s.Sent, s.Unsure = mark != "" && mark != m.state.SentBefore, sent != nil
		switch {
		case noJob == nil:
			s.Job = job.Kind == hypervisor.JobOutgoing && job.Phase != hypervisor.PhaseDone
		case !errors.Is(noJob, hypervisor.ErrNoDomain) && !errors.Is(noJob, hypervisor.ErrInvalidState):
			// It may be moving all the same.
			return Side{State: unknown}
		}
	}
	return s
}

func (m *migration) destinationSide(ctx context.Context) Side {
	ctx, cancel := context.WithTimeout(ctx, sideDeadline)
	defer cancel()
	in, err := m.peer.Renew(ctx, m.operation())
	m.hear(in, err)
	switch {
	case api.CodeOf(err) == "not-found":
		return Side{} // its lease ran out: it made sure that nothing runs there
	case err != nil:
		return Side{State: unknown}
	}
	s := Side{State: in.Domain, Reason: in.Reason, Committed: in.State == "committed"}
	switch {
	case in.Running:
		s.State = "running"
	case strings.HasPrefix(in.Domain, unknown):
		s.State, s.Reason = unknown, ""
	}
	return s
}

func (m *migration) operation() string {
	if m.op == nil {
		return m.id
	}
	return m.op.ID()
}

// halt pauses the copy that runs here, because the other one runs too or may.
// Libvirt starts the source again when it does not hear that the destination
// has started, although that may have happened: then both write, each to disks
// of its own. That it was the agent is written down first, or a later look
// would take the pause for the user's; but a journal that takes nothing does not
// let two copies run.
func (m *migration) halt(ctx context.Context) {
	m.state.Halted = true
	err := errors.Join(m.save(), m.Power.Suspend(ctx, m.ref.Name))
	m.Log.Error("the instance may run on both hosts: pausing it here", "operation", m.op.ID(), "instance", m.ref.String(), "error", err)
}
