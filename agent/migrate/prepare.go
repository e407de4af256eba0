package migrate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

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
	in, err := m.reserve(ctx, m.reservation())
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

// reach finds out soon whether the destination answers. Its agent may just be
// restarted, and what it made should not stay until the lease is over: until then
// the instance cannot be asked to move there again. Where it does not answer,
// waiting longer only keeps the instance locked: its lease runs out there, and it
// takes back by itself what it made.
//
// One that did not is not asked again: that would double the wait.
func (m *migration) reach(ctx context.Context) error {
	if m.unreachable != nil {
		return m.unreachable
	}
	ctx, cancel := context.WithTimeout(ctx, reachDeadline)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := m.peer.Renew(ctx, m.op.ID())
		if err == nil || api.CodeOf(err) != "peer-unreachable" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.unreachable = fmt.Errorf("the destination does not answer; it takes back by itself what it made, at the latest %s after it last heard of the migration: %w", m.Lease, err)
			return m.unreachable
		}
	}
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
