package migrate

import (
	"context"
	"errors"
	"slices"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// Phases of a migration, in their order.
const (
	phaseInspect = "inspect"
	phaseOffer   = "offer"
	phaseDecide  = "decide"
	phaseConnect = "connect"
	phasePrepare = "prepare"
	phasePerform = "perform"
	phaseCommit  = "commit"
	phaseClean   = "clean"
)

// run carries a migration out, when its turn has come. decided, which has room
// for one, hears the plan's acceptance or refusal.
func (m *migration) run(ctx context.Context, op *operation.Op, decided chan<- error) (any, error) {
	m.op = op
	tell := func(err error) {
		select {
		case decided <- err:
		default: // it was told before
		}
	}
	if err := m.check(ctx); err != nil {
		tell(err)
		m.observe(err)
		return nil, err
	}
	result, err := m.inTurn(ctx, true, func() { tell(nil) })
	tell(err)
	return result, err
}

// inTurn carries the migration out when its turn has come. planned: the plan was
// made just now. accepted is called once it has a place, be it in the line.
func (m *migration) inTurn(ctx context.Context, planned bool, accepted func()) (any, error) {
	place := m.Line.Enter(m.op.ID())
	defer place.Leave()
	var result any
	waited, err := m.turn(ctx, place, accepted)
	if err == nil && (waited || !planned) {
		err = m.checkAgain(ctx) // what was seen before may be hours old
	}
	if err == nil {
		result, err = m.carryOut(ctx)
	}
	m.observe(err)
	return result, err
}

// check makes the plan, and touches nothing.
func (m *migration) check(ctx context.Context) error {
	for _, p := range []struct {
		name string
		do   func(context.Context) error
	}{{phaseInspect, m.inspect}, {phaseOffer, m.offer}, {phaseDecide, m.decide}} {
		if err := m.step(ctx, p.name, p.do); err != nil {
			return err
		}
	}
	return nil
}

// carryOut acts on the plan. Everything that it does at the destination before
// the instance has moved is undone when it fails.
func (m *migration) carryOut(ctx context.Context) (result any, err error) {
	defer func() { m.liftUnless(err) }()
	if err := m.noteSources(); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		name, hint string
		do         func(context.Context) error
	}{
		{phaseConnect, "the instance runs on at the source; correct the target, or what refuses it, and ask again", m.connect},
		{phasePrepare, "the instance runs on at the source; put the destination's storage right and ask again", m.prepare},
		{phasePerform, "the instance runs on at the source, untouched", m.perform},
	} {
		err := m.step(ctx, p.name, p.do)
		if err != nil && !m.state.Moved {
			return nil, hinted(err, p.hint)
		}
		if err != nil { // it has moved, and only the journal failed
			m.Log.Error("journalling a migration", "operation", m.op.ID(), "error", err)
		}
	}
	return m.finish(ctx)
}

// hinted says what to do where the cause does not.
func hinted(err error, hint string) error {
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Hint == "" {
		p.Hint = hint
	}
	return err
}

// finish is what follows once the instance runs at the destination. It does
// not end with a cancel: there is nothing to go back to.
func (m *migration) finish(ctx context.Context) (any, error) {
	if m.op.Irrevocable() {
		m.warnOnce(cameTooLate)
	}
	m.op.DropUndo()
	ctx, stop := operation.Detach(ctx)
	defer stop()
	if err := m.onward(ctx, phaseCommit, m.commit); err != nil {
		return nil, err
	}
	if err := m.onward(ctx, phaseClean, m.clean); err != nil {
		return nil, err
	}
	return m.result(), nil
}

// cameTooLate is the warning of a migration that was cancelled when the instance
// had moved already.
const cameTooLate = "the cancel came too late: the instance had moved to the destination by then"

// warnOnce adds a warning that an earlier run of the agent may have added.
func (m *migration) warnOnce(warning string) {
	if !slices.Contains(m.state.Warnings, warning) {
		m.state.Warnings = append(m.state.Warnings, warning)
	}
}

// onward is a step that a journal which takes nothing, on a full disk for
// instance, must not keep from being done: the instance has moved. Whoever
// recovers it does it again, which is no harm.
func (m *migration) onward(ctx context.Context, name string, do func(context.Context) error) error {
	ran, done := false, false
	err := m.step(ctx, name, func(ctx context.Context) error {
		ran = true
		err := do(ctx)
		done = err == nil
		return err
	})
	if err == nil || ran && !done || ctx.Err() != nil {
		return err
	}
	m.Log.Error("journalling a migration", "operation", m.op.ID(), "phase", name, "error", err)
	if !ran {
		return do(ctx)
	}
	return nil
}

// step runs a phase, journalled before and after, and measures it.
func (m *migration) step(ctx context.Context, name string, do func(context.Context) error) error {
	start := m.Now()
	err := m.op.Step(ctx, name, do)
	m.state.Phases[name] += m.Now().Sub(start)
	if err != nil {
		return err
	}
	return m.save()
}

func (m *migration) save() error { return m.op.Save("migration", m.state) }

// noteSources writes down, by identity, the files that the migration will
// replace, before anything moves.
func (m *migration) noteSources() error {
	for _, d := range m.state.Plan.Disks {
		if d.Action != api.ActionCopy || d.Source.Kind != "file" {
			continue
		}
		own, err := volume.Identify(d.Source.Path)
		if err != nil {
			return api.NewProblem("internal", "looking at source volume %s: %w", d.Source.Path, err).WithDisk(d.Target)
		}
		m.state.Sources = append(m.state.Sources, sourceVolume{Target: d.Target, Pool: d.Source.Pool, Owned: own})
	}
	if m.inst.Record != nil {
		m.state.Targets = slices.Clone(m.inst.Record.Targets)
	}
	for _, d := range m.in.Instance.Disks {
		if d.Endpoint != nil {
			m.state.Targets = append(m.state.Targets, *d.Endpoint)
		}
	}
	return m.save()
}
