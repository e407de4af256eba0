package migrate_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// busyGuest is a guest whose memory gets no nearer, until its migration ends:
// each look finds another pass of ten seconds over, in which 64 MiB crossed.
func (w *world) busyGuest(migrate func(context.Context, hypervisor.MigrateParams) error) (looks *atomic.Int64) {
	var over atomic.Bool
	looks = new(atomic.Int64)
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		defer over.Store(true)
		return migrate(ctx, p)
	}
	w.mover.job = func() hypervisor.Job {
		if over.Load() {
			return hypervisor.Job{Kind: hypervisor.JobNone}
		}
		pass := looks.Add(1)
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory, Iteration: int(pass), Elapsed: time.Duration(pass) * 10 * time.Second,
			MemTotal: 64 * mib, MemRemaining: 64 * mib, MemDone: pass * 64 * mib, DirtyRate: 8 * mib}
	}
	return looks
}

// Passes that are over before anybody looks again are told by libvirt's events,
// and decided about: here the figures never have their number.
func TestPassesAreToldByEvents(t *testing.T) {
	w := newWorld(t)
	events := make(chan hypervisor.Event)
	w.options.Events = func(context.Context) <-chan hypervisor.Event { return events }
	w.restart()
	looks := w.busyGuest(untilStopped)
	figures := w.mover.job
	w.mover.job = func() hypervisor.Job {
		j := figures()
		j.Iteration = 0
		return j
	}
	op := w.begin(api.MigrateRequest{OnNotConverging: "abort"})
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		for pass := 1; ; pass++ {
			before := looks.Load()
			for _, e := range []hypervisor.Event{
				{Kind: hypervisor.KindIteration, UUID: "another", Iteration: 99},
				{Kind: hypervisor.KindLifecycle, UUID: uuid},
				{Kind: hypervisor.KindIteration, UUID: uuid, Iteration: pass},
			} {
				select {
				case events <- e:
				case <-ctx.Done():
					return
				}
			}
			for looks.Load() == before && ctx.Err() == nil {
				runtime.Gosched()
			}
		}
	}()
	op = w.ended(op.ID)
	cancel()
	<-over
	w.failed(op, api.StatusFailed, "not-converging", "perform")
	if c := op.Progress.Convergence; c == nil || c.Iteration > 98 {
		t.Errorf("shown %+v; want a pass of this guest", c)
	}
}

// steps gives what the steps of that name say.
func steps(op api.Operation, name string) (out []string) {
	for _, s := range op.Steps {
		if s.Name == name {
			out = append(out, s.Detail)
		}
	}
	return out
}

// A longer downtime in steps, then the end, with what it stands on: seen in the
// steps, the progress and the error.
func TestNotConverging(t *testing.T) {
	w := newWorld(t)
	w.busyGuest(untilStopped)
	op := w.migrated(api.MigrateRequest{MaxDowntime: api.Duration(time.Second)})
	p := w.failed(op, api.StatusFailed, "not-converging", "perform")
	for _, figure := range []string{"64.0 MiB to send at 6.4 MiB/s", "writes 8.0 MiB/s", "takes 10s, 1s is allowed"} {
		if !strings.Contains(p.Detail, figure) {
			t.Errorf("detail %q lacks %q", p.Detail, figure)
		}
	}
	if !strings.Contains(p.Hint, "runs on at the source") || !strings.Contains(p.Hint, "post_copy") {
		t.Errorf("hint %q", p.Hint)
	}
	if want := []time.Duration{300 * time.Millisecond, 600 * time.Millisecond, time.Second}; !slices.Equal(w.mover.downs, want) {
		t.Errorf("downtimes %v; want %v", w.mover.downs, want)
	}
	if got := steps(op, "converge"); len(got) != 2 || !strings.Contains(got[0], "up to 600ms") || !strings.Contains(got[1], "up to 1s") {
		t.Errorf("steps %q", got)
	}
	c := op.Progress.Convergence
	if c == nil || c.Action != "abort" || c.Remaining != 64*mib || c.MaxDowntime.Std() != time.Second || c.Reason == "" {
		t.Errorf("shown %+v", c)
	}
}

func TestNotConvergingAborts(t *testing.T) {
	w := newWorld(t)
	w.busyGuest(untilStopped)
	w.fails(api.MigrateRequest{MaxDowntime: api.Duration(time.Second), OnNotConverging: "abort"}, api.StatusFailed, "not-converging", "perform")
	if want := []time.Duration{time.Second}; !slices.Equal(w.mover.downs, want) {
		t.Errorf("downtimes %v; want %v", w.mover.downs, want)
	}
}

// A guest that stands still gets across. The pause is libvirt's to take back:
// it is not that of an agent that keeps a copy from running.
func TestNotConvergingPauses(t *testing.T) {
	w := newWorld(t)
	good := w.mover.migrate
	w.busyGuest(func(ctx context.Context, p hypervisor.MigrateParams) error {
		for {
			if d, err := w.libvirt.Domain(ctx, "vm"); err != nil || d.State == hypervisor.Paused {
				return good(ctx, p)
			}
			if ctx.Err() != nil {
				return untilStopped(ctx, p)
			}
		}
	})
	op := w.migrated(api.MigrateRequest{OnNotConverging: "pause"})
	if r := w.result(op); len(r.Warnings) != 0 {
		t.Errorf("warnings %q", r.Warnings)
	}
	if got := steps(op, "converge"); len(got) != 1 || !strings.Contains(got[0], "pause: ") {
		t.Errorf("steps %q", got)
	}
}

// postCopy begins a migration that ends when it is told to, and waits until it
// is in post-copy.
func (w *world) postCopy(r api.MigrateRequest) (op api.Operation, looks *atomic.Int64, arrive func()) {
	w.t.Helper()
	begun, arrived := make(chan struct{}), make(chan struct{})
	w.mover.post = func() error { close(begun); return nil }
	good := w.mover.migrate
	looks = w.busyGuest(func(ctx context.Context, p hypervisor.MigrateParams) error {
		select {
		case <-arrived:
			return good(ctx, p)
		case <-ctx.Done():
			w.t.Error("it was stopped in post-copy")
			return untilStopped(ctx, p)
		}
	})
	r.PostCopy = true
	op = w.begin(r)
	<-begun
	return op, looks, func() { close(arrived) }
}

// In post-copy neither half can do without the other: no cancel and no timeout
// ends it.
func TestPostCopyIsNeverEndedHalfWay(t *testing.T) {
	w := newWorld(t)
	var later atomic.Int64 // hours
	w.options.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load()) * time.Hour) }
	w.restart()
	op, looks, arrive := w.postCopy(api.MigrateRequest{Timeout: api.Duration(time.Hour), StallTimeout: api.Duration(time.Hour)})
	_, err := w.engine.Cancel(t.Context(), op.ID)
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != 409 || !strings.Contains(p.Detail, "post-copy") {
		t.Errorf("cancelling: %v; want 409 that says why", err)
	}
	// Both times are over for whoever looks from now on.
	later.Store(48)
	for seen := looks.Load(); looks.Load() < seen+3; {
		if t.Context().Err() != nil {
			t.Fatal("nobody looks any more")
		}
		runtime.Gosched()
	}
	arrive()
	op = w.ended(op.ID)
	w.result(op)
	if got := steps(op, "post-copy"); len(got) != 1 || !strings.Contains(got[0], "to send at") {
		t.Errorf("steps %q", got)
	}
}

// The end is told, by whoever keeps the lease, at the very moment when post-copy
// was decided: one of the two comes to be, never both.
func TestEndedJustBeforePostCopy(t *testing.T) {
	w := newWorld(t)
	ended := make(chan struct{})
	w.options.Log = slog.New(decided{func() {
		w.peer.mu.Lock()
		w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
			in.Lost = []api.Reason{{Code: "volume-lost", Disk: "vda", Detail: "it is gone"}}
			return in, nil
		}
		w.peer.mu.Unlock()
		<-ended
	}})
	w.restart()
	w.mover.post = func() error { t.Error("post-copy begins in a migration that is being ended"); return nil }
	w.busyGuest(func(ctx context.Context, p hypervisor.MigrateParams) error {
		<-ctx.Done()
		w.peer.mu.Lock()
		w.peer.renew = nil
		w.peer.mu.Unlock()
		close(ended)
		return untilStopped(ctx, p)
	})
	w.fails(api.MigrateRequest{PostCopy: true}, api.StatusFailed, "volume-lost", "perform")
}

// decided is a log that does something when a means against a busy guest was
// decided, before it is taken.
type decided struct{ do func() }

func (decided) Enabled(context.Context, slog.Level) bool { return true }

func (d decided) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "memory does not converge" {
		d.do()
	}
	return nil
}

func (d decided) WithAttrs([]slog.Attr) slog.Handler { return d }
func (d decided) WithGroup(string) slog.Handler      { return d }

// The link breaks in post-copy: neither half is ended, by no timeout, cancel or
// choice. Whoever decides is told how it is taken up again, and a choice counts
// once that was done, or once both halves were ended.
func TestPostCopyBrokenOff(t *testing.T) {
	for _, c := range []struct {
		name         string
		source, dest string // what became of the halves; "" = gone
		keep, status string
		volume       bool // the source's is still there at the end
	}{
		{"taken up again", "", "running", api.SideDestination, api.StatusSucceeded, false},
		{"given up", "shutoff", "", api.SideSource, api.StatusFailed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.options.DecisionTimeout = time.Second
			w.restart()
			at := api.Incoming{Domain: "paused", Reason: "postcopy-failed", Process: "runs"}
			op := w.brokenOff(&at)
			if op.Status != api.StatusNeedsDecision || !strings.Contains(op.Error.Hint, "--postcopy-resume vm ") || len(op.Error.Commands) != 2 {
				t.Fatalf("operation %s, %+v", op.Status, op.Error)
			}
			if len(op.Error.Sides) != 2 {
				t.Errorf("sides %+v", op.Error.Sides)
			}
			for _, side := range op.Error.Sides {
				if side.State != "paused" || side.Reason != "postcopy-failed" {
					t.Errorf("side %+v", side)
				}
			}
			if now, err := w.engine.Cancel(t.Context(), op.ID); now.Status != api.StatusNeedsDecision {
				t.Errorf("cancelled it is %s, %v", now.Status, err)
			}
			for _, keep := range []string{api.SideSource, api.SideDestination} {
				if _, err := w.resolve(op.ID, keep, ""); api.CodeOf(err) != "conflict" || !strings.Contains(err.Error(), "neither can go on") {
					t.Errorf("keeping the %s: %v; want it refused", keep, err)
				}
			}
			if n, _ := w.peer.left(); n != 1 || w.peer.removed != 0 || w.mover.stopped != 0 || !w.exists(w.disk) ||
				w.libvirt.state("vm") != hypervisor.Paused || !slices.Equal(w.peer.settled, []string{api.SettleHold}) {
				t.Errorf("%d reservations, removed %d times, stopped %d times, told %q; want nothing destroyed", n, w.peer.removed, w.mover.stopped, w.peer.settled)
			}

			w.peer.mu.Lock()
			at = api.Incoming{Domain: c.dest, Running: c.dest == "running"}
			w.peer.mu.Unlock()
			if c.source == "" {
				w.libvirt.gone("vm")
			} else {
				d := w.instance.Domain
				d.State = hypervisor.State(c.source)
				w.libvirt.set(d)
			}
			w.settledAs(op.ID, c.keep, "", c.status)
			if w.exists(w.disk) != c.volume || w.peer.removed != 0 {
				t.Errorf("the source's volume is there: %v; the destination's were removed %d times", w.exists(w.disk), w.peer.removed)
			}
		})
	}
}

// The destination's half may end with the link, before its guest has run there:
// there is nothing to take up again, and nobody is told to.
func TestPostCopyBrokenOffTooEarly(t *testing.T) {
	w := newWorld(t)
	w.options.DecisionTimeout = time.Second
	w.restart()
	op := w.brokenOff(&api.Incoming{Domain: "shutoff", Reason: "failed"})
	if op.Status != api.StatusNeedsDecision || strings.Contains(op.Error.Hint, "--postcopy-resume") || !strings.Contains(op.Error.Hint, "Stop it with force") {
		t.Fatalf("operation %s, %+v", op.Status, op.Error)
	}
	d := w.instance.Domain
	d.State = hypervisor.Shutoff
	w.libvirt.set(d)
	w.settledAs(op.ID, api.SideSource, "", api.StatusFailed)
	if !w.exists(w.disk) || w.peer.removed != 0 {
		t.Errorf("the source's volume is there: %v; the destination's were removed %d times", w.exists(w.disk), w.peer.removed)
	}
}

// Libvirt's call waits for the destination's half, which waits for memory that does
// not come: nobody waits with it for ever, and it is not ended either.
func TestPostCopyBrokenOffWhileLibvirtHangs(t *testing.T) {
	w := newWorld(t)
	w.options.DecisionTimeout = time.Minute
	began := time.Now()
	w.options.Now = func() time.Time { return began.Add(100 * time.Since(began)) }
	w.restart()
	w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
		in.Domain, in.Reason, in.Process, in.Running = "running", "postcopy-failed", "runs", true
		return in, nil
	}
	begun, hung := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(hung) })
	w.mover.post = func() error { close(begun); return nil }
	w.busyGuest(func(ctx context.Context, _ hypervisor.MigrateParams) error {
		<-begun
		d := w.instance.Domain
		d.State, d.Reason = hypervisor.Paused, "postcopy-failed"
		w.libvirt.set(d)
		select {
		case <-hung:
		case <-ctx.Done():
			t.Error("it was stopped")
		}
		return errors.New("connection reset")
	})
	op := w.migrated(api.MigrateRequest{PostCopy: true})
	if op.Status != api.StatusNeedsDecision || !strings.Contains(op.Error.Detail, "has not returned") || w.mover.stopped != 0 {
		t.Errorf("operation %s, %+v, stopped %d times", op.Status, op.Error, w.mover.stopped)
	}
}

// brokenOff has a migration break off in post-copy, with the destination as at
// says, and gives its end.
func (w *world) brokenOff(at *api.Incoming) api.Operation {
	w.t.Helper()
	w.peer.mu.Lock()
	w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		in.Domain, in.Reason, in.Process, in.Running = at.Domain, at.Reason, at.Process, at.Running
		return in, nil
	}
	w.peer.mu.Unlock()
	begun := make(chan struct{})
	w.mover.post = func() error { close(begun); return nil }
	w.busyGuest(func(context.Context, hypervisor.MigrateParams) error {
		<-begun
		d := w.instance.Domain
		d.State, d.Reason = hypervisor.Paused, "postcopy-failed"
		w.libvirt.set(d)
		return errors.New("connection reset")
	})
	return w.migrated(api.MigrateRequest{PostCopy: true, Timeout: api.Duration(time.Hour)})
}

// What cannot be done is left, and the policy goes on.
func TestPostCopyRefused(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.mover.post = func() error { asked++; return hypervisor.ErrUnsupported }
	w.busyGuest(untilStopped)
	op := w.migrated(api.MigrateRequest{PostCopy: true})
	w.failed(op, api.StatusFailed, "not-converging", "perform")
	if got := steps(op, "post-copy"); asked != 1 || len(got) != 1 || !strings.Contains(got[0], "refused") {
		t.Errorf("asked %d times, steps %q", asked, got)
	}
}

// An agent that comes back in post-copy knows that it is.
func TestRestartInPostCopy(t *testing.T) {
	w := newWorld(t)
	op, _, arrive := w.postCopy(api.MigrateRequest{})
	w.restart()
	arrive()
	must(t, w.engine.Resume(t.Context()))
	for {
		_, err := w.engine.Cancel(t.Context(), op.ID)
		if err == nil || t.Context().Err() != nil {
			t.Fatal("it could be cancelled")
		}
		if strings.Contains(err.Error(), "neither can do without the other") {
			break
		}
	}
	w.here(false, "running")
	w.mover.mu.Lock()
	w.mover.jobErr = func() error { return hypervisor.ErrNoDomain }
	w.mover.mu.Unlock()
	w.result(w.ended(op.ID))
	if w.mover.stopped != 0 {
		t.Errorf("it was told to stop %d times", w.mover.stopped)
	}
}

// A stop of the instance that came when post-copy had just begun is in the journal,
// and was too late: an agent that comes back does not carry it out.
func TestRestartInPostCopyThatWasToEnd(t *testing.T) {
	w := newWorld(t)
	op, _, arrive := w.postCopy(api.MigrateRequest{})
	defer arrive()
	w.close(w.engine)
	value, err := w.store.Get("operations", op.ID)
	must(t, err)
	var r map[string]any
	must(t, json.Unmarshal(value, &r))
	r["cancel_requested"] = true
	value, err = json.Marshal(r)
	must(t, err)
	must(t, w.store.Put("operations", op.ID, value))
	w.start()
	var looks atomic.Int64
	w.mover.job = func() hypervisor.Job {
		if looks.Add(1) < 9 {
			return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory}
		}
		w.here(false, "running")
		return hypervisor.Job{Kind: hypervisor.JobNone}
	}
	w.result(w.resume(op.ID))
	if w.mover.stopped != 0 {
		t.Errorf("it was told to stop %d times", w.mover.stopped)
	}
}
