package migrate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const (
	// At first looks are closer together: a small disk is copied between two
	// of the later ones, and its figures would never be seen.
	lookFirst  = 100 * time.Millisecond
	firstLooks = 30
	lookEvery  = 250 * time.Millisecond
	lookLimit  = 5 * time.Second // for one look: a hanging libvirt must not stop the watch
	renewEvery = time.Second
	// halvesLimit is how long libvirt's call may go on once post-copy has broken
	// off. It waits for the destination, whose QEMU may wait for memory.
	halvesLimit = 30 * time.Second
)

// errHalves ends the watch of a migration, and not the migration.
var errHalves = errors.New("nothing, its call has not returned since")

// watcher follows a migration: it shows the progress, keeps the destination's
// lease, and ends a migration that stalls or takes too long.
type watcher struct {
	m       *migration
	end     context.CancelCauseFunc
	meter   *meter
	started time.Time
	memory  *convergence
	pace    *pace
	pass    int         // over memory, as libvirt's events tell
	halves  time.Time   // since when post-copy is seen to have broken off; zero = it has not
	silent  atomic.Bool // the destination's agent did not renew the lease when it was last asked
}

func (m *migration) newWatcher(end context.CancelCauseFunc) *watcher {
	c := m.newConvergence(end)
	w := &watcher{m: m, end: c.end, memory: c, pace: m.newPace(), meter: newMeter(m.state.Plan, m.inst.Domain.Memory), started: m.Now()}
	if shown, err := m.Operations.Get(context.Background(), m.op.ID()); err == nil {
		w.meter.resume(shown.Progress)
	}
	return w
}

// follow returns when the migration is over, or the agent stops.
func (w *watcher) follow(ctx context.Context, done <-chan error) error {
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var lease sync.WaitGroup
	lease.Go(func() { w.keepLease(looking) })
	defer lease.Wait()
	defer stop()
	tick := time.NewTicker(lookFirst)
	defer tick.Stop()
	var events <-chan hypervisor.Event
	if w.m.Events != nil {
		events = w.m.Events(looking)
	}
	for looks := 0; ; {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
				return operation.ErrShutdown
			}
			return <-done // it was cancelled: libvirt is being stopped
		case e, ok := <-events:
			if !ok {
				events = nil
			}
			if w.boundary(e, events) {
				w.look(looking)
			}
		case <-tick.C:
			w.look(looking)
			if !w.halves.IsZero() && w.m.Now().Sub(w.halves) > halvesLimit {
				return errHalves
			}
			if looks++; looks == firstLooks {
				tick.Reset(lookEvery)
			}
		}
	}
}

// boundary tells whether these events, those that have come since included, say
// that a pass over memory has ended: a short one would begin and end between two
// looks. The looks go on all the same: events are lost while the connection to
// libvirt is down or its queue overflows, and a driver may have none.
func (w *watcher) boundary(e hypervisor.Event, events <-chan hypervisor.Event) bool {
	before := w.pass
	for {
		if e.Kind == hypervisor.KindIteration && e.UUID == w.m.state.UUID {
			w.pass = max(w.pass, e.Iteration)
		}
		select {
		case e = <-events: // of a closed one: nothing
			if e.Kind != "" {
				continue
			}
		default:
		}
		return w.pass > before
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
		w.pace.look(ctx, job, jobs)
		job.Iteration = max(job.Iteration, w.pass)
		w.memory.look(ctx, job)
		shown := w.meter.progress()
		shown.Convergence = w.memory.shown
		w.m.op.Progress(shown)
	}
	r := w.m.state.Request
	if broken := r.PostCopy && err == nil && w.m.sourceSide(ctx).halved(); !broken {
		w.halves = time.Time{}
	} else if w.halves.IsZero() {
		w.halves = now
	}
	stall := stallLimit(r.StallTimeout.Or(w.m.StallTimeout), w.meter.hasMoved(), !w.silent.Load())
	if stall > 0 && now.Sub(w.meter.lastMove(w.started)) > stall {
		w.end(errStalled)
	}
	if limit := r.Timeout.Or(w.m.Timeout); limit > 0 && now.Sub(w.m.state.Began) > limit {
		w.end(errTimeout)
	}
}

// slowStart is how many times the stall timeout the first byte may take.
const slowStart = 3

// stallLimit is how long nothing may move, by the stall timeout. On a busy host
// the destination's QEMU is slow to come up: before the first byte that is no
// stall yet for as long as its agent answers.
func stallLimit(timeout time.Duration, moved, answers bool) time.Duration {
	if !moved && answers {
		return slowStart * timeout
	}
	return timeout
}

// keepLease renews the reservation, far more often than its term asks for: the
// answer says how much has arrived, and whether the volumes are there yet. A
// peer that does not answer is not the end: libvirt's own connection decides that.
func (w *watcher) keepLease(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			call, cancel := context.WithTimeout(ctx, max(w.m.Lease/3, time.Second))
			in, err := w.m.peer.Renew(call, w.m.op.ID())
			if ctx.Err() == nil {
				w.silent.Store(err != nil)
			}
			if err != nil && ctx.Err() == nil {
				w.m.Log.Warn("the destination's lease was not renewed", "operation", w.m.op.ID(), "error", err)
			}
			if err == nil {
				w.meter.arrive(in.Progress.Disks)
				if gone := lostVolume(in.Lost); gone != nil {
					w.end(gone) // before the switchover: after it the destination says so when it commits
				}
			}
			cancel()
		}
	}
}

// account keeps what moved. A copy that came to a good end has moved whole,
// though it may not have been seen to its end.
func (w *watcher) account() {
	if w.m.state.Moved {
		w.m.op.Progress(w.meter.finish())
	}
	w.m.state.Disk, w.m.state.Memory = w.meter.moved()
}
