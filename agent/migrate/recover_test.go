package migrate_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func (w *world) write(path string) {
	w.t.Helper()
	must(w.t, os.WriteFile(path, []byte(path), 0o600))
}

// replace puts another file in the place of one.
func (w *world) replace(path string) {
	w.t.Helper()
	w.write(path + ".new")
	must(w.t, os.Rename(path+".new", path))
}

// An agent that stopped before anything moved takes back what it had begun.
func TestRecoverBeforeTheMove(t *testing.T) {
	w := newWorld(t)
	preparing := make(chan struct{})
	w.peer.reserve = func(ctx context.Context, in api.Incoming) (api.Incoming, error) {
		close(preparing)
		<-ctx.Done()
		return in, context.Cause(ctx)
	}
	op := w.begin(onTarget())
	<-preparing
	w.restart()
	if n, c := w.peer.left(); n != 1 || c != 1 || w.peer.removed != 0 {
		t.Errorf("a stop of the agent undid something: %d reservations, %d targets", n, c)
	}
	p := w.failed(w.resume(op.ID), api.StatusFailed, "interrupted", "prepare")
	if p.Hint == "" || len(w.mover.params) != 0 {
		t.Errorf("problem %+v", p)
	}
}

// moving begins a migration and stops the agent while libvirt goes on.
func (w *world) moving(r api.MigrateRequest) (id string) {
	w.t.Helper()
	moving, release := make(chan struct{}), make(chan struct{})
	good := w.mover.migrate
	w.mover.migrate = func(ctx context.Context, _ hypervisor.MigrateParams) error {
		close(moving)
		select {
		case <-release:
		case <-ctx.Done():
			w.t.Error("a stop of the agent stopped the migration")
		}
		return nil
	}
	op := w.begin(r)
	<-moving
	w.restart()
	close(release)
	w.mover.migrate = good
	if n, _ := w.peer.left(); n != 1 || w.peer.removed != 0 || w.mover.stopped != 0 {
		w.t.Errorf("a stop of the agent undid something: %d reservations, removed %d times, stopped %d", n, w.peer.removed, w.mover.stopped)
	}
	return op.ID
}

// here has both libvirts say where the instance runs.
func (w *world) here(source bool, destination string) {
	if !source {
		w.libvirt.gone("vm")
	}
	w.peer.mu.Lock()
	defer w.peer.mu.Unlock()
	w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
		in.Domain, in.Running = destination, destination == "running"
		return in, nil
	}
}

func TestRecoverAfterTheMove(t *testing.T) {
	w := newWorld(t)
	id := w.moving(api.MigrateRequest{})
	w.here(false, "running")
	r := w.result(w.resume(id))
	if r.Mode != "full" || w.peer.commits != 1 || w.exists(w.disk) || len(w.mover.params) != 1 {
		t.Errorf("result %+v, committed %d times", r, w.peer.commits)
	}
	if !slices.Equal(w.observer.results, []string{api.StatusSucceeded}) {
		t.Errorf("observed %v; want one end, not that of the agent", w.observer.results)
	}
}

// Libvirt gave up meanwhile.
func TestRecoverAMoveThatFailed(t *testing.T) {
	w := newWorld(t)
	id := w.moving(onTarget())
	w.here(true, "")
	w.failed(w.resume(id), api.StatusFailed, "interrupted", "perform")
}

// Libvirt carries it on: it is followed to its end.
func TestRecoverAMoveThatGoesOn(t *testing.T) {
	w := newWorld(t)
	id := w.moving(api.MigrateRequest{})
	looks := 0
	w.mover.job = func() hypervisor.Job {
		w.mover.mu.Lock()
		defer w.mover.mu.Unlock()
		if looks++; looks < 5 {
			return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory}
		}
		w.here(false, "running")
		return hypervisor.Job{Kind: hypervisor.JobNone}
	}
	w.result(w.resume(id))
	if w.mover.stopped != 0 || w.exists(w.disk) {
		t.Errorf("stopped %d times, source volume there: %v", w.mover.stopped, w.exists(w.disk))
	}
}

// A commit that nobody heard is said again by the next start.
func TestRecoverCommit(t *testing.T) {
	w := newWorld(t)
	committing := make(chan struct{})
	w.peer.commit = func(n int, in api.Incoming) (api.Incoming, error) {
		if n == 1 {
			close(committing)
		}
		return in, api.NewProblem("peer-unreachable", "connection refused")
	}
	op := w.begin(api.MigrateRequest{})
	<-committing
	w.restart()
	if !w.exists(w.disk) {
		t.Error("the source's volume went before the destination confirmed")
	}
	w.peer.commit = nil
	w.result(w.resume(op.ID))
	if w.exists(w.disk) || len(w.mover.params) != 1 || w.peer.removed != 0 {
		t.Errorf("moved %d times, removed %d", len(w.mover.params), w.peer.removed)
	}
}

// An agent that stops again leaves a migration that it adopted to libvirt, too.
func TestRecoverIsInterrupted(t *testing.T) {
	w := newWorld(t)
	id := w.moving(api.MigrateRequest{})
	followed := make(chan struct{})
	looks := 0
	w.mover.job = func() hypervisor.Job {
		w.mover.mu.Lock()
		defer w.mover.mu.Unlock()
		if looks++; looks == 3 {
			close(followed)
		}
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory}
	}
	must(t, w.engine.Resume(t.Context()))
	<-followed
	w.restart()
	if w.mover.stopped != 0 {
		t.Error("a stop of the agent stopped the migration")
	}
	w.mover.job = nil
	w.here(false, "running")
	w.result(w.resume(id))
}

// An adopted migration can be cancelled.
func TestRecoverAndCancel(t *testing.T) {
	w := newWorld(t)
	id := w.moving(onTarget())
	followed := make(chan struct{})
	looks := 0
	w.mover.job = func() hypervisor.Job {
		w.mover.mu.Lock()
		defer w.mover.mu.Unlock()
		if looks++; looks == 3 {
			close(followed)
		}
		if w.mover.stopped > 0 {
			return hypervisor.Job{Kind: hypervisor.JobNone}
		}
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory}
	}
	must(t, w.engine.Resume(t.Context()))
	<-followed
	_, err := w.engine.Cancel(t.Context(), id)
	must(t, err)
	w.here(true, "")
	w.failed(w.ended(id), api.StatusCancelled, "cancelled", "perform")
}

// An adopted migration has no more time than it was given: what passed before the
// agent came back counts.
func TestRecoverKeepsTheTimeout(t *testing.T) {
	w := newWorld(t)
	w.options.Now = func() time.Time { return time.Now().Add(time.Hour) } // of the next start
	id := w.moving(api.MigrateRequest{Timeout: api.Duration(30 * time.Minute)})
	w.mover.job = func() hypervisor.Job {
		w.mover.mu.Lock()
		defer w.mover.mu.Unlock()
		if w.mover.stopped > 0 {
			return hypervisor.Job{Kind: hypervisor.JobNone}
		}
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory}
	}
	w.here(true, "")
	w.failed(w.resume(id), api.StatusFailed, "timeout", "perform")
}

// An agent that did not write down when libvirt was asked left it, before an
// upgrade: its timeout counts from now, and does not end it at once.
func TestRecoverOfAnOlderAgentsMove(t *testing.T) {
	w := newWorld(t)
	id := w.moving(api.MigrateRequest{Timeout: api.Duration(30 * time.Minute)})
	key := id + "/migration"
	value, err := w.store.Get("operation-data", key)
	must(t, err)
	var st map[string]any
	must(t, json.Unmarshal(value, &st))
	if _, ok := st["began"]; !ok {
		t.Fatal("nothing says when it began")
	}
	delete(st, "began")
	value, err = json.Marshal(st)
	must(t, err)
	must(t, w.store.Put("operation-data", key, value))
	looks := 0
	w.mover.job = func() hypervisor.Job {
		w.mover.mu.Lock()
		defer w.mover.mu.Unlock()
		if looks++; looks > 8 {
			w.here(false, "running")
			return hypervisor.Job{Kind: hypervisor.JobNone}
		}
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory}
	}
	w.here(true, "incoming")
	w.result(w.resume(id))
	if w.mover.stopped > 0 {
		t.Error("it was told to stop")
	}
}

// What an agent that was lost while the destination looked has left beside the
// disks goes.
func TestRecoverRemovesTheProbes(t *testing.T) {
	w := newWorld(t)
	probe, look := "", w.peer.facts
	w.peer.facts = func(r api.FactsRequest) (api.Facts, error) {
		probe = filepath.Join(w.dir, r.Disks[0].Probe.Name)
		return look(r)
	}
	preparing := make(chan struct{})
	w.peer.reserve = func(ctx context.Context, in api.Incoming) (api.Incoming, error) {
		close(preparing)
		<-ctx.Done()
		return in, context.Cause(ctx)
	}
	op := w.begin(api.MigrateRequest{})
	<-preparing
	w.restart()
	w.write(probe)
	w.failed(w.resume(op.ID), api.StatusFailed, "interrupted", "prepare")
	if w.exists(probe) {
		t.Errorf("%s is left", probe)
	}
}

// An agent that comes back unable to speak to the destination, its certificate
// gone for instance, knows nothing of where the instance is, and says so.
func TestRecoverWithoutAnIdentity(t *testing.T) {
	w := newWorld(t)
	dial := w.options.Dial
	w.options.Dial = func(string) (migrate.Peer, error) { return nil, migrate.ErrNoIdentity } // of the next start
	w.Dial = dial
	id := w.moving(api.MigrateRequest{})
	w.here(true, "running")
	op := w.resume(id)
	if op.Status != api.StatusNeedsDecision || !strings.Contains(op.Error.Hint, "resolve "+id) {
		t.Fatalf("operation %s, %+v", op.Status, op.Error)
	}
	w.options.Dial = dial
	w.restart()
	w.libvirt.gone("vm")
	w.settledAs(id, api.SideDestination, "", api.StatusSucceeded)
}

// Libvirt's call is lost, and the migration goes on: it is followed, and can be
// cancelled, as one that an earlier agent has left.
func TestLostCallIsFollowed(t *testing.T) {
	w := newWorld(t)
	looked := make(chan struct{})
	var once sync.Once
	w.mover.job = func() hypervisor.Job {
		w.mover.mu.Lock()
		defer w.mover.mu.Unlock()
		if w.mover.stopped > 0 {
			return hypervisor.Job{Kind: hypervisor.JobNone}
		}
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseDisk, DiskTotal: mib}
	}
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
			once.Do(func() { close(looked) })
			return in, nil
		}
		return hypervisor.ErrUnknownOutcome
	}
	op := w.begin(onTarget())
	<-looked
	if _, err := w.engine.Cancel(t.Context(), op.ID); err != nil {
		t.Fatal(err)
	}
	w.failed(w.ended(op.ID), api.StatusCancelled, "cancelled", "perform")
	if n, c := w.peer.left(); n != 0 || c != 0 || !w.exists(w.disk) || w.libvirt.state("vm") != hypervisor.Running {
		t.Errorf("%d reservations and %d targets are left; the disk is there: %v, the instance is %q", n, c, w.exists(w.disk), w.libvirt.state("vm"))
	}
}
