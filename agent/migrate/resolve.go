package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// noteChoice is the name of the choice among the operation's data: where it is,
// the operation's recovery goes on with it.
const noteChoice = "choice"

const phaseResolve = "resolve"

// Resolve settles an operation in needs_decision, as its continuation. It looks
// at both hosts before it begins, and refuses ("conflict") what would make two
// running copies or destroy the only one. The same choice again, while it is
// carried out or after, gives the operation as it is.
func (s *Service) Resolve(ctx context.Context, id string, r api.ResolveRequest) (api.Operation, error) {
	op, err := s.Operations.Get(ctx, id)
	if err != nil {
		return api.Operation{}, err
	}
	choice := Choice{Keep: Verdict(r.Keep), Other: r.OtherHost}
	if op.Status != api.StatusNeedsDecision {
		return s.resolved(op, choice)
	}
	m, err := s.reopened(id)
	if err != nil {
		return api.Operation{}, err
	}
	src, dst := m.sides(ctx)
	if res := Resolve(choice, src, dst); res.Refusal != "" {
		return api.Operation{}, api.NewProblem("conflict", "%s", res.Refusal).WithOperation(id).WithDecision(m.facts(ctx, src, dst)).
			WithHint("nothing was done")
	}
	return s.Operations.Reopen(ctx, id, noteChoice, choice, func(ctx context.Context, op *operation.Op) (any, error) {
		m.op = op
		result, err := m.carryChoice(ctx, choice)
		m.liftUnless(err)
		return result, err
	})
}

// resolved answers a choice about an operation that needs none: it may be the
// one that was made before.
func (s *Service) resolved(op api.Operation, c Choice) (api.Operation, error) {
	var made Choice
	found, err := s.Operations.Load(op.ID, noteChoice, &made)
	if err != nil {
		return api.Operation{}, err
	}
	if found && made.Keep == c.Keep {
		return op, nil
	}
	p := api.NewProblem("conflict", "operation %s is %s: there is nothing to decide", op.ID, op.Status).WithOperation(op.ID)
	if found {
		p = api.NewProblem("conflict", "it was decided to keep the %s, and operation %s is %s", made.Keep, op.ID, op.Status).WithOperation(op.ID)
	}
	return api.Operation{}, p
}

// reopened gives the migration of an operation that has ended, from its journal.
func (s *Service) reopened(id string) (*migration, error) {
	var st state
	found, err := s.Operations.Load(id, "migration", &st)
	if err != nil {
		return nil, err
	}
	op, err := s.Operations.Get(context.Background(), id)
	if err != nil {
		return nil, err
	}
	if !found || op.Kind != Kind {
		return nil, api.NewProblem("conflict", "operation %s (%s) cannot be settled this way: see its hint", id, op.Kind).WithOperation(id)
	}
	m, err := s.newMigration(api.Ref{Project: op.Project, Name: op.Instance}, st.Request)
	if err != nil {
		return nil, err
	}
	m.id = id
	m.take(st)
	return m, nil
}

// take goes on from what the journal has.
func (m *migration) take(st state) {
	m.state = st
	if m.state.Phases == nil {
		m.state.Phases = map[string]time.Duration{}
	}
}

// carryChoice does what was decided, after another look at both hosts: since it
// was decided, or before a crash, much may have changed. Each of its acts may
// be done twice. What fails leaves the operation open to another decision.
func (m *migration) carryChoice(ctx context.Context, c Choice) (any, error) {
	ctx, stop := operation.Detach(ctx)
	defer stop()
	if m.state.journal() != Performing { // a crash after the choice was carried out
		return m.finish(ctx)
	}
	var settled error
	err := m.step(ctx, phaseResolve, func(ctx context.Context) error {
		src, dst := m.sides(ctx)
		res := Resolve(c, src, dst)
		if res.Refusal != "" {
			return m.needsDecision(ctx, fmt.Sprintf("the %s was to be kept, and cannot be: %s", c.Keep, res.Refusal), nil)
		}
		m.Log.Warn("carrying out a decision", "operation", m.op.ID(), "keep", c.Keep, "stated", c.Other, "source", src, "destination", dst)
		if c.Keep == KeepDestination {
			return m.toDestination(ctx, src, dst, res)
		}
		settled = m.toSource(ctx, dst, res)
		if api.CodeOf(settled) == "needs-decision" {
			return settled
		}
		return nil
	})
	switch {
	case err != nil && !m.state.Moved && settled == nil:
		if api.CodeOf(err) != "needs-decision" && !errors.Is(err, operation.ErrShutdown) {
			err = m.needsDecision(ctx, fmt.Sprintf("the %s was to be kept, and that failed", c.Keep), err)
		}
		return nil, err
	case settled != nil:
		return nil, settled
	case err != nil:
		m.Log.Error("journalling a decision", "operation", m.op.ID(), "error", err)
	}
	return m.finish(ctx)
}

// toDestination hands the instance over to the destination. The source's copy
// is paused before the other one runs, and goes only with the clean-up.
func (m *migration) toDestination(ctx context.Context, src, dst Side, res Resolution) error {
	if dst.State == "" {
		// On neither host: all that can be handed over is what was made there.
		if _, err := m.peer.Renew(ctx, m.op.ID()); err != nil {
			return m.needsDecision(ctx, "the destination has nothing of the instance", err)
		}
	}
	if res.Halt {
		m.halt(ctx)
		if now := m.sourceSide(ctx); now.alive() || now.silent() {
			return m.needsDecision(ctx, "the copy at the source could not be paused", nil)
		}
	}
	if res.ResumeDestination {
		in, err := m.peer.Settle(ctx, m.op.ID(), api.SettleRequest{Act: api.SettleResume})
		if err != nil {
			return m.needsDecision(ctx, "the copy at the destination was to run, and does not", err)
		}
		if !in.Running {
			return m.needsDecision(ctx, fmt.Sprintf("the copy at the destination was to run, and is %q", in.Domain), nil)
		}
	}
	m.state.Moved, m.state.Leftover = true, src.State != ""
	m.state.Unconfirmed = !res.Commit
	if !res.Discard {
		m.keepSources("nobody has seen the instance run at the destination")
	}
	// From here on the recovery goes forward, whatever happens.
	return m.save()
}

// keepSources leaves the source's volumes, and says where they are.
func (m *migration) keepSources(why string) {
	m.state.Request.KeepSourceVolumes = true
	for _, v := range m.state.Sources {
		m.state.Warnings = append(m.state.Warnings, fmt.Sprintf("source volume %s of disk %s was kept: %s", v.Owned.Path, v.Target, why))
	}
}

// toSource lets the instance go on here. The destination's copy ends first, and
// its volumes go once this one is seen to run. The migration has failed then,
// and says so; what could not be taken back is part of that.
func (m *migration) toSource(ctx context.Context, dst Side, res Resolution) error {
	if res.EndDestination {
		if _, err := m.peer.Settle(ctx, m.op.ID(), api.SettleRequest{Act: api.SettleEnd}); err != nil {
			return m.needsDecision(ctx, "the copy at the destination was to end", err)
		}
	}
	if res.ResumeSource {
		m.lift() // an agent that was killed may not have
		if err := m.Power.Resume(ctx, m.ref.Name); err != nil && !errors.Is(err, hypervisor.ErrInvalidState) {
			return m.needsDecision(ctx, "the copy at the source was to run, and does not", err)
		}
		if now := m.sourceSide(ctx); !now.alive() {
			return m.needsDecision(ctx, fmt.Sprintf("the copy at the source was to run, and is %q", now.State), nil)
		}
		m.state.Halted = false
	}
	p := api.NewProblem("kept-at-source", "it was decided that the instance stays at the source")
	switch {
	case dst.silent():
		p = p.WithHint("the destination did not answer and was told nothing: what it made is still there, and can be settled there by the same command with --other-host has-it")
	case res.Discard:
		if err := m.peer.Remove(ctx, m.op.ID()); err != nil {
			p = p.WithHint("what the destination made could not be removed: %v", err)
		}
	default:
		if _, err := m.peer.Settle(ctx, m.op.ID(), api.SettleRequest{Act: api.SettleRelease}); err != nil && api.CodeOf(err) != "not-found" {
			p = p.WithHint("the destination could not be told: %v", err)
		} else {
			p = p.WithHint("the instance runs on neither host: the volumes of both were kept")
		}
	}
	return p
}
