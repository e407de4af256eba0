package operation_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestCancel(t *testing.T) {
	e := open(t, store.Memory())
	undone := false
	begun, release := make(chan struct{}), make(chan struct{})
	op := start(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		op.Undo("volumes", func(ctx context.Context) error { undone = ctx.Err() == nil; return nil })
		return nil, op.Step(ctx, "perform", func(ctx context.Context) error {
			close(begun)
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), operation.ErrCancelled) || !op.Cancelled() {
				t.Errorf("cause %v, cancelled %t", context.Cause(ctx), op.Cancelled())
			}
			<-release
			return api.NewProblem("migration-failed", "job: cancelled by client").WithDisk("vda")
		})
	})
	<-begun
	for range 2 {
		got, err := e.Cancel(t.Context(), op.ID)
		if err != nil || got.Ended() || got.Phase != "cancelling" {
			t.Fatalf("cancel: status %s, phase %q, %v", got.Status, got.Phase, err)
		}
	}
	close(release)
	got := ended(t, e, op.ID)
	if got.Status != api.StatusCancelled || got.Phase != "perform" || !undone {
		t.Errorf("status %s, phase %q, undone %t", got.Status, got.Phase, undone)
	}
	want := api.NewProblem("cancelled", "cancelled on request: job: cancelled by client").WithDisk("vda").WithPhase("perform")
	if diff := cmp.Diff(want.Error()+want.Code, got.Error.Error()+got.Error.Code); diff != "" {
		t.Error(diff)
	}
	if again, err := e.Cancel(t.Context(), op.ID); err != nil || again.Status != api.StatusCancelled {
		t.Errorf("cancelling what has ended: %s, %v", again.Status, err)
	}
	_, err := e.Cancel(t.Context(), "nothing")
	code(t, err, "not-found")
}

func TestCancelBeforeTheFirstStep(t *testing.T) {
	e := open(t, store.Memory())
	proceed := make(chan struct{})
	op := start(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		<-proceed
		return nil, op.Step(ctx, "perform", func(context.Context) error { t.Error("ran"); return nil })
	})
	_, err := e.Cancel(t.Context(), op.ID)
	must(t, err)
	close(proceed)
	got := ended(t, e, op.ID)
	if got.Status != api.StatusCancelled || got.Error.Detail != operation.ErrCancelled.Error() || len(got.Steps) != 0 {
		t.Errorf("%s, %+v, %v", got.Status, got.Error, got.Steps)
	}
}

func TestCancelThatComesTooLate(t *testing.T) {
	e := open(t, store.Memory())
	at, proceed := make(chan struct{}), make(chan struct{})
	fn := func(ctx context.Context, op *operation.Op) (any, error) {
		return nil, op.Step(ctx, "commit", func(context.Context) error {
			op.NotCancellable()
			close(at)
			<-proceed
			op.Cancellable()
			return ctx.Err()
		})
	}
	op := start(t, e, vm("vm1"), fn)
	<-at
	got, err := e.Cancel(t.Context(), op.ID)
	p := problem(t, err, "conflict")
	if !strings.Contains(p.Detail, "commit") || p.Operation != op.ID || got.Cancellable {
		t.Errorf("refusal %+v, cancellable %t", p, got.Cancellable)
	}
	close(proceed)
	if got := ended(t, e, op.ID); got.Status != api.StatusSucceeded {
		t.Errorf("%s, %v", got.Status, got.Error)
	}
}

func TestSuccessInSpiteOfCancel(t *testing.T) {
	e := open(t, store.Memory())
	begun := make(chan struct{})
	op := start(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		return "moved", op.Step(ctx, "perform", func(ctx context.Context) error { close(begun); <-ctx.Done(); return nil })
	})
	<-begun
	_, err := e.Cancel(t.Context(), op.ID)
	must(t, err)
	if got := ended(t, e, op.ID); got.Status != api.StatusSucceeded || got.Error != nil || got.Phase != "perform" {
		t.Errorf("%s in phase %q, %v", got.Status, got.Phase, got.Error)
	}
}

// A cancel was accepted, and then the operation passed its point of no return:
// it goes on under its own phases, to its own end, and hears of the cancel. Asking
// again is no error.
func TestAcceptedCancelThatTurnsOutTooLate(t *testing.T) {
	for _, c := range []struct {
		status string
		err    error
	}{
		{api.StatusSucceeded, nil},
		{api.StatusFailed, api.NewProblem("peer-lost", "not confirmed")},
	} {
		t.Run(c.status, func(t *testing.T) {
			e := open(t, store.Memory())
			begun, at, proceed := make(chan struct{}), make(chan struct{}), make(chan struct{})
			op := start(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
				if err := op.Step(ctx, "perform", func(ctx context.Context) error { close(begun); <-ctx.Done(); return nil }); err != nil {
					return nil, err
				}
				if !op.Irrevocable() {
					t.Error("the work was not told of the cancel")
				}
				return nil, op.Step(context.WithoutCancel(ctx), "commit", func(context.Context) error { close(at); <-proceed; return c.err })
			})
			<-begun
			got, err := e.Cancel(t.Context(), op.ID)
			must(t, err)
			if got.Phase != "cancelling" {
				t.Errorf("phase %q; nobody knows yet that it is too late", got.Phase)
			}
			<-at
			got, err = e.Cancel(t.Context(), op.ID)
			if err != nil || got.Phase != "commit" || got.Cancellable {
				t.Errorf("phase %q, cancellable %t, %v", got.Phase, got.Cancellable, err)
			}
			close(proceed)
			if got := ended(t, e, op.ID); got.Status != c.status || got.Phase != "commit" {
				t.Errorf("%s in phase %q: %v", got.Status, got.Phase, got.Error)
			}
		})
	}
}

// Past the point of no return a first cancel is refused.
func TestCancelPastThePointOfNoReturn(t *testing.T) {
	e := open(t, store.Memory())
	at, proceed := make(chan struct{}), make(chan struct{})
	op := start(t, e, vm("vm1"), func(ctx context.Context, op *operation.Op) (any, error) {
		if op.Irrevocable() {
			t.Error("told of a cancel that nobody has asked for")
		}
		return nil, op.Step(ctx, "commit", func(ctx context.Context) error { close(at); <-proceed; return ctx.Err() })
	})
	<-at
	_, err := e.Cancel(t.Context(), op.ID)
	if p := problem(t, err, "conflict"); p.Phase != "commit" {
		t.Errorf("refusal %+v", p)
	}
	close(proceed)
	if got := ended(t, e, op.ID); got.Status != api.StatusSucceeded {
		t.Errorf("%s, %v", got.Status, got.Error)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.Memory()
		e := open(t, s)
		proceed := make(chan struct{})
		op := start(t, e, vm("vm1"), func(context.Context, *operation.Op) (any, error) { <-proceed; return nil, nil })
		began := time.Now()
		for _, d := range []time.Duration{0, time.Minute} {
			got, err := e.Wait(t.Context(), op.ID, d)
			if err != nil || got.Ended() {
				t.Errorf("wait of %s: %s, %v", d, got.Status, err)
			}
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("waited %s", took)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := e.Wait(ctx, op.ID, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait on an ended context: %v", err)
		}
		time.AfterFunc(time.Second, func() { close(proceed) })
		if got, err := e.Wait(t.Context(), op.ID, time.Hour); err != nil || got.Status != api.StatusSucceeded {
			t.Errorf("%s, %v", got.Status, err)
		}
		if got, err := e.Wait(t.Context(), op.ID, time.Hour); err != nil || got.Status != api.StatusSucceeded {
			t.Errorf("wait for what has ended: %s, %v", got.Status, err)
		}
		_, err := e.Wait(t.Context(), "nothing", time.Hour)
		code(t, err, "not-found")
	})
}

func TestList(t *testing.T) {
	s := store.Memory()
	e := open(t, s)
	a := run(t, e, vm("vm1"), nothing)
	b := run(t, e, operation.Spec{Kind: "test", Project: "p", Instance: "vm1"}, func(context.Context, *operation.Op) (any, error) {
		return nil, errors.New("no")
	})
	c := run(t, e, operation.Spec{Kind: "template"}, nothing)
	d := start(t, e, vm("vm2"), untilStopped)
	for name, tt := range map[string]struct {
		instance, status string
		want             []string
	}{
		"all":           {"", "", []string{a.ID, b.ID, c.ID, d.ID}},
		"by name":       {"vm1", "", []string{a.ID, b.ID}},
		"by project":    {"p/vm1", "", []string{b.ID}},
		"by status":     {"", "succeeded", []string{a.ID, c.ID}},
		"by both":       {"vm1", "failed", []string{b.ID}},
		"none":          {"vm3", "", nil},
		"empty project": {"/", "", nil},
	} {
		ops, err := e.List(t.Context(), tt.instance, tt.status)
		must(t, err)
		var ids []string
		for _, op := range ops {
			ids = append(ids, op.ID)
		}
		if diff := cmp.Diff(tt.want, ids); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if ops == nil {
			t.Errorf("%s: a nil list would be null on the wire", name)
		}
	}
}

func TestOldOperationsAreSwept(t *testing.T) {
	s := store.Memory()
	began := time.Now()
	var passed atomic.Int64
	clock := func(o *operation.Options) {
		o.Now = func() time.Time { return began.Add(time.Duration(passed.Load())) }
		o.Keep = time.Hour
	}
	e := open(t, s, clock)
	spec := vm("vm1")
	spec.Key = api.Idempotency{Key: "k", Fingerprint: "f"}
	old := run(t, e, spec, func(_ context.Context, op *operation.Op) (any, error) { return nil, op.Save("plan", 1) })
	passed.Store(int64(59 * time.Minute))
	young := run(t, e, vm("vm2"), nothing)
	if _, err := e.Get(t.Context(), old.ID); err != nil {
		t.Errorf("swept too early: %v", err)
	}
	closeEngine(t, e)

	passed.Store(int64(61 * time.Minute))
	e = open(t, s, clock)
	_, err := e.Get(t.Context(), old.ID)
	code(t, err, "not-found")
	if _, err := e.Get(t.Context(), young.ID); err != nil {
		t.Errorf("swept too early: %v", err)
	}
	for _, bucket := range []string{"operation-keys", "operation-data"} {
		must(t, s.List(bucket, func(key string, _ []byte) error { t.Errorf("%s: %q is left", bucket, key); return nil }))
	}
	if op := start(t, e, spec, nothing); op.ID == old.ID {
		t.Error("a swept operation was given for its key")
	}
}
