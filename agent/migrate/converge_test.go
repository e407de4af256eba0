package migrate_test

import (
	"context"
	"errors"
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
