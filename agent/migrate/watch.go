package migrate

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const (
	lookEvery = 250 * time.Millisecond
	lookLimit = 5 * time.Second // for one look: a hanging libvirt must not stop the watch
)

// watcher follows a migration: it shows the progress, keeps the destination's
// lease, and ends a migration that stalls or takes too long.
type watcher struct {
	m       *migration
	end     context.CancelCauseFunc
	meter   *meter
	started time.Time
	tuned   bool
}

func (m *migration) newWatcher(end context.CancelCauseFunc) *watcher {
	return &watcher{m: m, end: end, meter: newMeter(m.state.Plan, m.inst.Domain.Memory), started: m.Now()}
}

// follow returns when the migration is over, or the agent stops.
func (w *watcher) follow(ctx context.Context, done <-chan error) error {
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var lease sync.WaitGroup
	lease.Go(func() { w.keepLease(looking) })
	defer lease.Wait()
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
				return operation.ErrShutdown
			}
			return <-done // it was cancelled: libvirt is being stopped
		case <-tick.C:
			w.look(looking)
		}
	}
}

// look reads where the migration is and acts on it.
func (w *watcher) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	now := w.m.Now()
	job, err := w.m.Mover.Job(ctx, w.m.ref.Name)
	if err == nil && job.Kind == hypervisor.JobOutgoing {
		jobs, _ := w.m.Mover.BlockJobs(ctx, w.m.ref.Name) // without them the sum still shows
		w.meter.add(now, job, jobs)
		w.m.op.Progress(w.meter.progress())
		w.tune(ctx)
	}
	r := w.m.state.Request
	stall := r.StallTimeout.Or(w.m.StallTimeout)
	if stall > 0 && now.Sub(w.meter.lastMove(w.started)) > stall {
		w.end(errStalled)
	}
	if limit := r.Timeout.Or(w.m.Timeout); limit > 0 && now.Sub(w.started) > limit {
		w.end(errTimeout)
	}
}

// tune sets the longest downtime, once QEMU takes it.
func (w *watcher) tune(ctx context.Context) {
	d := cmp.Or(w.m.state.Request.MaxDowntime.Std(), w.m.MaxDowntime)
	if w.tuned || d == 0 {
		return
	}
	if err := w.m.Mover.SetMaxDowntime(ctx, w.m.ref.Name, d); err == nil {
		w.tuned = true
	}
}

// keepLease renews the reservation three times in each term. A peer that does
// not answer is not the end: libvirt's own connection decides that.
func (w *watcher) keepLease(ctx context.Context) {
	tick := time.NewTicker(max(w.m.Lease/3, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			call, cancel := context.WithTimeout(ctx, max(w.m.Lease/3, time.Second))
			if _, err := w.m.peer.Renew(call, w.m.op.ID()); err != nil && ctx.Err() == nil {
				w.m.Log.Warn("the destination's lease was not renewed", "operation", w.m.op.ID(), "error", err)
			}
			cancel()
		}
	}
}

// moved gives the bytes of disks and memory that were seen to move.
func (w *watcher) moved() (disk, memory int64) { return w.meter.diskDone, w.meter.memDone }

// meter turns libvirt's and QEMU's figures into one progress.
type meter struct {
	disks             []api.PartProgress
	diskDone, memDone int64
	diskTotal         int64
	memTotal          int64
	percent           float64
	rate              float64
	movedAt           time.Time
	at                time.Time
	last              int64
}

// newMeter begins with the plan's estimate, so that a total is there before
// libvirt knows one.
func newMeter(p api.Plan, memory int64) *meter {
	m := &meter{memTotal: memory}
	for _, d := range p.Disks {
		if d.Action == api.ActionCopy {
			m.disks = append(m.disks, api.PartProgress{Target: d.Target, BytesTotal: d.Bytes})
		}
	}
	return m
}

// rateWeight is the weight of the newest sample in the moving average: about
// five seconds of memory at two samples a second.
const rateWeight = 0.2

func (m *meter) add(now time.Time, j hypervisor.Job, jobs []hypervisor.BlockJob) {
	for _, b := range jobs {
		for i := range m.disks {
			if m.disks[i].Target == b.Target {
				m.disks[i].BytesDone, m.disks[i].BytesTotal = b.Done, b.Total
			}
		}
	}
	m.diskDone, m.diskTotal = max(m.diskDone, j.DiskDone), 0
	for i := range m.disks {
		if j.Phase == hypervisor.PhaseMemory && len(jobs) == 0 {
			m.disks[i].BytesDone = m.disks[i].BytesTotal
		}
		m.diskTotal += m.disks[i].BytesTotal
	}
	if j.MemTotal > 0 {
		m.memTotal, m.memDone = max(j.MemDone+j.MemRemaining, 1), j.MemDone
	}
	sum := m.diskDone + m.memDone
	if m.at.IsZero() || sum > m.last {
		m.movedAt = now
	}
	if dt := now.Sub(m.at).Seconds(); !m.at.IsZero() && dt > 0 {
		m.rate += rateWeight * (float64(max(sum-m.last, 0))/dt - m.rate)
	}
	m.at, m.last = now, sum
}

func (m *meter) lastMove(started time.Time) time.Time {
	if m.movedAt.After(started) {
		return m.movedAt
	}
	return started
}

// progress never goes back: totals grow while the guest writes.
func (m *meter) progress() api.Progress {
	var disk int64
	for _, d := range m.disks {
		disk += min(d.BytesDone, d.BytesTotal)
	}
	p := api.Progress{BytesDone: disk + m.memDone, BytesTotal: m.diskTotal + m.memTotal, Rate: int64(m.rate),
		Disks:  append([]api.PartProgress(nil), m.disks...),
		Memory: &api.PartProgress{Target: "memory", BytesDone: m.memDone, BytesTotal: m.memTotal}}
	if p.BytesTotal > 0 {
		m.percent = max(m.percent, min(99.9, 100*float64(p.BytesDone)/float64(p.BytesTotal)))
	}
	p.Percent = m.percent
	if left := p.BytesTotal - p.BytesDone; m.rate > 1 && left > 0 {
		eta := api.Duration(time.Duration(float64(left) / m.rate * float64(time.Second)).Round(time.Second))
		p.ETA = &eta
	}
	return p
}
