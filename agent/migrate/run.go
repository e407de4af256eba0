package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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

// run carries a migration out. decided hears the plan's acceptance or refusal.
func (m *migration) run(ctx context.Context, op *operation.Op, decided chan<- error) (any, error) {
	m.op = op
	for _, p := range []struct {
		name string
		do   func(context.Context) error
	}{{phaseInspect, m.inspect}, {phaseOffer, m.offer}, {phaseDecide, m.decide}} {
		if err := m.step(ctx, p.name, p.do); err != nil {
			decided <- err
			m.observe(err)
			return nil, err
		}
	}
	decided <- nil
	result, err := m.carryOut(ctx)
	m.observe(err)
	return result, err
}

// carryOut acts on the plan. Everything that it does at the destination before
// the instance has moved is undone when it fails.
func (m *migration) carryOut(ctx context.Context) (any, error) {
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
	m.op.NotCancellable()
	m.op.DropUndo()
	ctx, stop := detach(ctx)
	defer stop()
	if err := m.onward(ctx, phaseCommit, m.commit); err != nil {
		return nil, err
	}
	if err := m.onward(ctx, phaseClean, m.clean); err != nil {
		return nil, err
	}
	return m.result(), nil
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

// detach gives a context that ends with the agent but not with a cancel.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
			cancel(operation.ErrShutdown)
		}
	})
	return out, func() { stop(); cancel(nil) }
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
		m.state.Targets = m.inst.Record.Targets
	}
	return m.save()
}

// connect sends the destination the targets that its disks need (ModifyTargets)
// and checks that each got a path.
func (m *migration) connect(ctx context.Context) error {
	var targets []api.Target
	var disks []int
	for i, d := range m.state.Plan.Disks {
		if d.Connect != nil {
			targets = append(targets, m.withSecret(*d.Connect))
			disks = append(disks, i)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	m.state.Connected, m.state.Connecting = targets, true
	if err := m.save(); err != nil {
		return err
	}
	m.op.Undo("disconnect targets at the destination", m.disconnect)
	r, err := m.peer.Modify(ctx, api.TargetsRequest{Add: true, Targets: targets})
	if err != nil {
		return m.targetProblem(err, disks)
	}
	for n, i := range disks {
		d := &m.state.Plan.Disks[i]
		at := slices.IndexFunc(r.Connected, func(c api.ConnectedTarget) bool { return c.Index == n && c.Path != "" })
		if at < 0 {
			return api.NewProblem("no-connected-path", "no connected path was returned: the destination gave %d paths for %d targets", len(r.Connected), len(targets)).
				WithDisk(d.Target).WithHint("look at the destination agent's log for target %d", n)
		}
		d.Destination.Path = r.Connected[at].Path
		if size := r.Connected[at].Size; d.Action == api.ActionCopy && size != 0 && len(d.Chain) > 0 && size != d.Chain[0].VirtualSize {
			return api.NewProblem("target-failed", "the connected target has %d bytes, the disk %d: they must be equal", size, d.Chain[0].VirtualSize).
				WithDisk(d.Target).WithHint("resize the target, or choose another")
		}
	}
	return nil
}

// targetProblem keeps the destination's own words and names the disk.
func (m *migration) targetProblem(err error, disks []int) error {
	p := api.AsProblem(peerProblem(err, m.state.Request.Destination))
	if p.Disk == "" {
		for _, f := range p.Fields {
			var n int
			if _, scan := fmt.Sscanf(f.Field, "targets[%d]", &n); scan == nil && n < len(disks) {
				p.Disk = m.state.Plan.Disks[disks[n]].Target
			}
		}
		if p.Disk == "" && len(disks) == 1 {
			p.Disk = m.state.Plan.Disks[disks[0]].Target
		}
	}
	return p
}

// withSecret adds the CHAP login that the record keeps for the same target.
func (m *migration) withSecret(t api.Target) api.Target {
	if m.inst.Record == nil || t.CHAP != nil {
		return t
	}
	for _, r := range m.inst.Record.Targets {
		if r.Type == t.Type && r.Portal == t.Portal && r.IQN == t.IQN && r.LUN == t.LUN {
			t.CHAP = r.CHAP
		}
	}
	return t
}

func (m *migration) disconnect(ctx context.Context) error {
	if len(m.state.Connected) == 0 {
		return nil
	}
	if err := m.reach(ctx); err != nil {
		return err
	}
	_, err := m.peer.Modify(ctx, api.TargetsRequest{Targets: m.state.Connected})
	return err
}

// prepare has the destination make the volumes, and waits until seeds and
// staged templates are there.
func (m *migration) prepare(ctx context.Context) error {
	m.state.Reserved = true
	if err := m.save(); err != nil {
		return err
	}
	m.op.Undo("take back what the destination prepared", m.unreserve)
	if limit := m.state.Request.Timeout.Or(m.Timeout); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, api.NewProblem("timeout", "the migration's timeout is over, and the destination is still preparing"))
		defer cancel()
	}
	in, err := m.peer.Reserve(ctx, m.reservation())
	if err != nil {
		return peerProblem(err, m.state.Request.Destination)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for in.State != "ready" {
		if in.State == "failed" {
			if in.Error != nil {
				return in.Error
			}
			return api.NewProblem("peer-failed", "the destination could not prepare")
		}
		m.op.Progress(in.Progress)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if in, err = m.peer.Renew(ctx, m.op.ID()); err != nil {
			return peerProblem(err, m.state.Request.Destination)
		}
	}
	if err := m.reserved(in); err != nil {
		return err
	}
	m.state.Incoming = in
	return nil
}

func (m *migration) unreserve(ctx context.Context) error {
	if err := m.reach(ctx); err != nil {
		return err
	}
	return m.peer.Remove(ctx, m.op.ID())
}

// reachDeadline is how long a destination may take to show that it is there
// before something is taken back.
const reachDeadline = 3 * time.Second

// reach finds out soon whether the destination answers at all. Where it does
// not, waiting for it only keeps the instance locked: its lease runs out there,
// and it takes back by itself what it made.
func (m *migration) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachDeadline)
	defer cancel()
	_, err := m.peer.Renew(ctx, m.op.ID())
	if err == nil || api.CodeOf(err) != "peer-unreachable" {
		return nil
	}
	return fmt.Errorf("the destination does not answer; it takes back by itself what it made, at the latest %s after it last heard of the migration: %w", m.Lease, err)
}

// reservation says what the destination is to make.
func (m *migration) reservation() api.IncomingRequest {
	r := api.IncomingRequest{Operation: m.op.ID(), Source: m.host.Name, Project: m.ref.Project, Name: m.ref.Name,
		UUID: m.state.UUID, Targets: m.state.Connected, Lease: api.Duration(m.Lease), Disks: []api.IncomingDisk{}}
	for _, d := range m.state.Plan.Disks {
		if d.Action != api.ActionCopy {
			continue
		}
		src := find(m.in.Instance.Disks, d.Target)
		disk := api.IncomingDisk{Target: d.Target, Place: *d.Destination, VirtualSize: src.Size, Seed: d.Seed,
			Existing: d.Connect != nil, DirectDownload: d.DirectDownload, Template: d.Template}
		if d.Destination.Format == "qcow2" && src.Format == "qcow2" {
			disk.ClusterSize, disk.Compat, disk.ExtendedL2 = src.ClusterSize, src.Compat, src.ExtendedL2
		}
		r.Disks = append(r.Disks, disk)
		for _, l := range d.Stage {
			stage := api.StageLayer{Template: l.Template, Layer: l, Pool: d.Destination.Pool, SyncFrom: m.SelfURL}
			if t, ok := m.Templates.Record(l.Template); ok {
				stage.Record = &t
			}
			r.Stage = append(r.Stage, stage)
		}
	}
	r.Record = m.destinationRecord()
	return r
}

// destinationRecord is the instance's record as the destination will keep it.
// An instance without a record gets none there either.
func (m *migration) destinationRecord() api.Record {
	if m.inst.Record == nil {
		return api.Record{Disks: []api.RecordDisk{}}
	}
	rec := *m.inst.Record
	rec.Disks = slices.Clone(rec.Disks)
	for i := range rec.Disks {
		for _, d := range m.state.Plan.Disks {
			if d.Target != rec.Disks[i].Target || d.Destination == nil {
				continue
			}
			rec.Disks[i].Pool, rec.Disks[i].Path, rec.Disks[i].Format = d.Destination.Pool, d.Destination.Path, d.Destination.Format
			if d.Action == api.ActionSkip {
				continue // the same storage, which may have another name there
			}
			rec.Disks[i].Owned = d.Connect == nil
			if d.Clone == api.ModeFull {
				rec.Disks[i].DirectDownload = false // it stands on no template any more
			}
			for _, l := range d.Destination.Chain {
				if l.Template != "" {
					rec.Disks[i].Template = l.Template // as the destination calls it
				}
			}
		}
	}
	return rec
}

// commit tells the destination that the instance is its own now. It is
// repeated until the destination has heard: the instance runs there already.
func (m *migration) commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commitDeadline)
	defer cancel()
	wait := 200 * time.Millisecond
	for {
		in, err := m.peer.Commit(ctx, m.op.ID(), api.CommitRequest{})
		if err == nil {
			m.state.Committed = true
			m.state.Incoming = in
			m.state.Memory = max(m.state.Memory, in.MemoryBytes)
			return nil
		}
		m.Log.Warn("the destination has not confirmed yet", "operation", m.op.ID(), "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
				return operation.ErrShutdown
			}
			return api.NewProblem("peer-lost", "the instance runs at the destination, which has not confirmed: %w", err).
				WithHint("the source's volumes were kept; the destination commits by itself when its lease runs out. Look there with `wherry info %s`", m.ref.Name)
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// commitDeadline is how long the source goes on telling a destination that
// does not answer. An agent that restarts is back long before.
const commitDeadline = 5 * time.Minute

func (m *migration) result() api.MigrateResult {
	r := api.MigrateResult{Mode: m.state.Plan.Mode, Destination: m.state.Request.Destination,
		Bytes:  api.MovedBytes{Disk: m.state.Disk, Memory: m.state.Memory},
		Phases: map[string]api.Duration{}, Downtime: m.state.Incoming.Downtime, Warnings: m.state.Warnings}
	for name, d := range m.state.Phases {
		r.Phases[name] = api.Duration(d.Round(time.Millisecond))
	}
	return r
}

// observe counts the migration unless the agent only stops.
func (m *migration) observe(err error) {
	if m.Observer == nil || errors.Is(err, operation.ErrShutdown) {
		return
	}
	m.Observer.MigrationDone(m.state.Plan.Mode, resultOf(err, m.op.Cancelled()), m.state.Phases, m.state.Incoming.Downtime.Std(), m.state.Disk, m.state.Memory)
}

// resultOf is how a migration ended, as its operation's status says it.
func resultOf(err error, cancelled bool) string {
	switch {
	case err == nil:
		return api.StatusSucceeded
	case api.CodeOf(err) == "needs-decision":
		return api.StatusNeedsDecision
	case cancelled:
		return api.StatusCancelled
	}
	return api.StatusFailed
}
