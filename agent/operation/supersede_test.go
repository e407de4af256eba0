package operation_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

func claims(c operation.Claim) operation.Spec {
	return operation.Spec{Kind: string(c), Claim: c, Instance: "vm", Cancellable: true}
}

// stubborn is work that ends some time after it was told to, and shows when it
// was told.
type stubborn struct {
	told, leave chan struct{}
}

func newStubborn() stubborn { return stubborn{make(chan struct{}), make(chan struct{})} }

func (s stubborn) run(ctx context.Context, _ *operation.Op) (any, error) {
	<-ctx.Done()
	close(s.told)
	<-s.leave
	return nil, context.Cause(ctx)
}

// waits checks that the operation waits for its instance.
func waits(t testing.TB, op api.Operation) {
	t.Helper()
	if op.Status != api.StatusPending || op.Phase != "waiting" {
		t.Errorf("operation %+v; want it pending, in phase waiting", op)
	}
}

// supersededBy checks how an operation ended that another one ended.
func supersededBy(t testing.TB, op api.Operation, by string) {
	t.Helper()
	if op.Status != api.StatusCancelled || op.Error == nil || op.Error.Code != "cancelled" || op.Error.Operation != by {
		t.Errorf("operation %+v, error %+v; want it cancelled by %s", op, op.Error, by)
	}
}

// A stronger request ends the older operation; what that was to do next is
// never done, and both never work at the same time.
func TestStrongerEndsWeaker(t *testing.T) {
	e := open(t, store.Memory())
	var mu sync.Mutex
	var order []string
	note := func(what string) { mu.Lock(); defer mu.Unlock(); order = append(order, what) }
	begun := make(chan struct{})
	older := start(t, e, claims(operation.ClaimRestart), func(ctx context.Context, op *operation.Op) (any, error) {
		if err := op.Step(ctx, "stop", func(ctx context.Context) error { close(begun); <-ctx.Done(); note("older leaves"); return ctx.Err() }); err != nil {
			return nil, err
		}
		note("the continuation")
		return nil, op.Step(ctx, "start", func(context.Context) error { return nil })
	})
	<-begun
	newer := start(t, e, claims(operation.ClaimStop), func(context.Context, *operation.Op) (any, error) { note("newer works"); return "done", nil })
	waits(t, newer)
	if got := ended(t, e, newer.ID); got.Status != api.StatusSucceeded {
		t.Errorf("the newer one %+v", got)
	}
	supersededBy(t, ended(t, e, older.ID), newer.ID)
	if want := []string{"older leaves", "newer works"}; !slices.Equal(order, want) {
		t.Errorf("order %q; want %q", order, want)
	}
	if k := e.LockOf(api.Ref{Name: "vm"}); k != nil {
		t.Errorf("lock %+v is left", k)
	}
}

// Nobody is ended by what is weaker or as strong, and the answer names who
// stands in the way: who waits, where that is the stronger of the two.
func TestWeakerIsRefused(t *testing.T) {
	e := open(t, store.Memory())
	s := newStubborn()
	older := start(t, e, claims(operation.ClaimMigrate), s.run)
	for _, c := range []operation.Claim{operation.ClaimMigrate, operation.ClaimStart, "rebuild"} {
		_, err := e.Start(t.Context(), claims(c), nothing)
		if p := problem(t, err, "busy"); p.Operation != older.ID {
			t.Errorf("%s: %v does not name the holder", c, p)
		}
	}
	stop := start(t, e, claims(operation.ClaimStop), nothing)
	<-s.told
	for _, c := range []operation.Claim{operation.ClaimStop, operation.ClaimRestart} {
		_, err := e.Start(t.Context(), claims(c), nothing)
		if p := problem(t, err, "busy"); p.Operation != stop.ID {
			t.Errorf("%s: %v does not name who waits", c, p)
		}
	}
	// Who waits is ended by what is stronger, without ever having run.
	force := start(t, e, claims(operation.ClaimForceStop), nothing)
	supersededBy(t, ended(t, e, stop.ID), force.ID)
	waits(t, force)
	close(s.leave)
	if got := ended(t, e, force.ID); got.Status != api.StatusSucceeded {
		t.Errorf("the strongest %+v", got)
	}
	// The first of those that ended it is named: it was told once.
	supersededBy(t, ended(t, e, older.ID), stop.ID)
}

// Who holds an instance, since when, and who waits for it.
func TestLockIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t, store.Memory())
		defer closeEngine(t, e)
		begun := time.Now().UTC()
		s := newStubborn()
		older := start(t, e, claims(operation.ClaimStop), s.run)
		time.Sleep(time.Second)
		newer := start(t, e, claims(operation.ClaimForceStop), nothing)
		time.Sleep(time.Second)
		ctx, giveUp := context.WithCancel(t.Context())
		go func() { _, _ = e.Lock(ctx, api.Ref{Name: "vm"}, "a look") }()
		synctest.Wait()
		want := api.Lock{Operation: older.ID, Kind: "stop", Since: begun, Waiters: []api.Waiter{
			{Operation: newer.ID, Kind: "force-stop", Since: begun.Add(time.Second)}, {Kind: "a look", Since: begun.Add(2 * time.Second)}}}
		same(t, e.LockOf(api.Ref{Name: "vm"}), want)
		if all := e.Locks(); len(all) != 1 {
			t.Errorf("locks %+v", all)
		} else {
			same(t, &all[0], want)
		}
		giveUp()
		synctest.Wait()
		want.Waiters = want.Waiters[:1]
		same(t, e.LockOf(api.Ref{Name: "vm"}), want)
		close(s.leave)
		synctest.Wait()
		if k := e.LockOf(api.Ref{Name: "vm"}); k != nil || len(e.Locks()) != 0 {
			t.Errorf("lock %+v is left", k)
		}
		unlock, err := e.Lock(t.Context(), api.Ref{Name: "vm"}, "a look")
		must(t, err)
		same(t, e.LockOf(api.Ref{Project: api.DefaultProject, Name: "vm"}), api.Lock{Kind: "a look", Since: begun.Add(2 * time.Second)})
		unlock()
	})
}

func same(t testing.TB, got *api.Lock, want api.Lock) {
	t.Helper()
	if got == nil || got.Operation != want.Operation || got.Kind != want.Kind || !got.Since.Equal(want.Since) || !slices.Equal(got.Waiters, want.Waiters) {
		t.Errorf("lock %+v; want %+v", got, want)
	}
}

// A migration past its switchover is not waited for: the instance is not here.
func TestPastTheSwitchover(t *testing.T) {
	e := open(t, store.Memory())
	closed, leave := make(chan struct{}), make(chan struct{})
	work := func(ctx context.Context, op *operation.Op) (any, error) {
		op.NotCancellable()
		close(closed)
		<-leave
		return nil, ctx.Err()
	}
	older := start(t, e, claims(operation.ClaimMigrate), work)
	<-closed
	_, err := e.Start(t.Context(), claims(operation.ClaimForceStop), nothing)
	if p := problem(t, err, "busy"); p.Operation != older.ID {
		t.Errorf("%v does not name the migration", p)
	}
	close(leave)
	if got := ended(t, e, older.ID); got.Status != api.StatusSucceeded {
		t.Errorf("the migration %+v", got)
	}
}

// What is in its last part is waited for, and not cancelled.
func TestLastPartIsWaitedFor(t *testing.T) {
	e := open(t, store.Memory())
	closed, leave := make(chan struct{}), make(chan struct{})
	older := start(t, e, claims(operation.ClaimStop), func(ctx context.Context, op *operation.Op) (any, error) {
		op.NotCancellable()
		close(closed)
		<-leave
		return nil, ctx.Err()
	})
	<-closed
	newer := start(t, e, claims(operation.ClaimForceStop), nothing)
	waits(t, newer)
	close(leave)
	for _, id := range []string{older.ID, newer.ID} {
		if got := ended(t, e, id); got.Status != api.StatusSucceeded {
			t.Errorf("operation %+v", got)
		}
	}
}

// The door may close between the decision and the order.
func TestDoorClosesMeanwhile(t *testing.T) {
	f := &hooked{Store: store.Memory()}
	e := open(t, f)
	ops, leave := make(chan *operation.Op, 1), make(chan struct{})
	older := start(t, e, claims(operation.ClaimStop), func(ctx context.Context, op *operation.Op) (any, error) {
		ops <- op
		<-leave
		return nil, ctx.Err()
	})
	op := <-ops
	f.onUpdate = op.NotCancellable
	newer := start(t, e, claims(operation.ClaimForceStop), nothing)
	close(leave)
	for _, id := range []string{older.ID, newer.ID} {
		if got := ended(t, e, id); got.Status != api.StatusSucceeded {
			t.Errorf("operation %+v, error %v", got, got.Error)
		}
	}
}

// hooked is a store that does something in the middle of the next write.
type hooked struct {
	store.Store
	onUpdate func()
}

func (h *hooked) Update(fn func(store.Tx) error) error {
	if do := h.onUpdate; do != nil {
		h.onUpdate = nil
		do()
	}
	return h.Store.Update(fn)
}

// Who waits can be cancelled, whatever it is, and its place is free then.
func TestWaitingIsCancelled(t *testing.T) {
	e := open(t, store.Memory())
	s := newStubborn()
	start(t, e, claims(operation.ClaimRestart), s.run)
	spec := claims(operation.ClaimStop)
	spec.Cancellable = false
	waiting := start(t, e, spec, func(context.Context, *operation.Op) (any, error) { t.Error("it ran"); return nil, nil })
	waits(t, waiting)
	if !waiting.Cancellable {
		t.Error("it cannot be cancelled")
	}
	_, err := e.Cancel(t.Context(), waiting.ID)
	must(t, err)
	if got := ended(t, e, waiting.ID); got.Status != api.StatusCancelled || got.Error.Operation != "" {
		t.Errorf("operation %+v, error %+v", got, got.Error)
	}
	next := start(t, e, claims(operation.ClaimStop), nothing)
	close(s.leave)
	if got := ended(t, e, next.ID); got.Status != api.StatusSucceeded {
		t.Errorf("operation %+v", got)
	}
}

// Nobody waits for ever.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t, store.Memory())
		defer closeEngine(t, e)
		s := newStubborn()
		older := start(t, e, claims(operation.ClaimStop), s.run)
		newer := start(t, e, claims(operation.ClaimForceStop), func(context.Context, *operation.Op) (any, error) { t.Error("it ran"); return nil, nil })
		time.Sleep(time.Hour)
		got, err := e.Get(t.Context(), newer.ID)
		must(t, err)
		if got.Status != api.StatusFailed || got.Error.Code != "busy" || got.Error.Operation != older.ID {
			t.Errorf("operation %+v, error %+v; want it busy", got, got.Error)
		}
		close(s.leave)
	})
}

// The journal decides: what it does not take has not been asked for.
func TestSupersedingIsNotJournalled(t *testing.T) {
	f := &faulty{Store: store.Memory()}
	e := open(t, f)
	s := newStubborn()
	older := start(t, e, claims(operation.ClaimStop), s.run)
	f.set(errBroken)
	if _, err := e.Start(t.Context(), claims(operation.ClaimForceStop), nothing); !errors.Is(err, errBroken) {
		t.Fatalf("error %v", err)
	}
	f.set(nil)
	select {
	case <-s.told:
		t.Error("the older one was ended")
	default:
	}
	if k := e.LockOf(api.Ref{Name: "vm"}); k == nil || k.Operation != older.ID || len(k.Waiters) != 0 {
		t.Errorf("lock %+v", k)
	}
	close(s.leave)
	_, err := e.Cancel(t.Context(), older.ID)
	must(t, err)
	ended(t, e, older.ID)
}

// The agent is lost while one waits for the other to let go: at the next start
// the older one knows that it was ended, and the newer one still waits for it.
func TestSupersedingSurvivesACrash(t *testing.T) {
	mem := store.Memory()
	e := open(t, mem)
	s := newStubborn()
	older := start(t, e, claims(operation.ClaimRestart), s.run)
	displaced := start(t, e, claims(operation.ClaimStop), nothing)
	newer := start(t, e, claims(operation.ClaimForceStop), nothing)
	ended(t, e, displaced.ID)
	disk := onDisk(t, mem)
	close(s.leave)

	again := open(t, disk)
	if k := again.LockOf(api.Ref{Name: "vm"}); k == nil || k.Operation != older.ID || len(k.Waiters) != 1 || k.Waiters[0].Operation != newer.ID {
		t.Fatalf("lock %+v", k)
	}
	leave := make(chan struct{})
	again.Recover("restart", func(_ context.Context, op *operation.Op) (any, error) {
		if !op.Cancelled() {
			t.Error("the older one does not know that it was ended")
		}
		<-leave
		return nil, errors.New("as it was left")
	})
	var ran bool
	again.Recover("force-stop", func(context.Context, *operation.Op) (any, error) { ran = true; return nil, nil })
	must(t, again.Resume(t.Context()))
	close(leave)
	if got := ended(t, again, newer.ID); got.Status != api.StatusSucceeded || !ran {
		t.Errorf("the newer one %+v, ran %v", got, ran)
	}
	supersededBy(t, ended(t, again, older.ID), displaced.ID)
}

// Between the older one's end and the newer one's begin nobody gets in.
func TestNobodyGetsInBetween(t *testing.T) {
	e := open(t, store.Memory())
	s := newStubborn()
	start(t, e, claims(operation.ClaimStart), s.run)
	done := make(chan struct{})
	newer := start(t, e, claims(operation.ClaimStop), func(context.Context, *operation.Op) (any, error) { <-done; return nil, nil })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				_, err := e.Start(t.Context(), claims("rebuild"), nothing)
				if api.CodeOf(err) != "busy" {
					t.Errorf("error %v; want busy", err)
				}
			}
		})
	}
	<-s.told
	close(s.leave)
	wg.Wait()
	close(done)
	ended(t, e, newer.ID)
}

// An agent that ends leaves who waits for the next start.
func TestWaitingIsLeftForTheNextStart(t *testing.T) {
	mem := store.Memory()
	e := open(t, mem)
	s := newStubborn()
	start(t, e, claims(operation.ClaimStop), s.run)
	newer := start(t, e, claims(operation.ClaimForceStop), nothing)
	close(s.leave)
	// The older one may have left already: then the newer one has run.
	closeEngine(t, e)
	again := open(t, mem)
	got, err := again.Get(t.Context(), newer.ID)
	must(t, err)
	if got.Status != api.StatusPending && got.Status != api.StatusSucceeded {
		t.Errorf("operation %+v", got)
	}
}

// Work that is detached hears of the agent's end, and of no cancel.
func TestDetach(t *testing.T) {
	e := open(t, store.Memory())
	detached, over := make(chan struct{}), make(chan error, 1)
	op := start(t, e, vm("vm"), func(ctx context.Context, _ *operation.Op) (any, error) {
		<-ctx.Done()
		ctx, end := operation.Detach(ctx)
		defer end()
		close(detached)
		<-ctx.Done()
		over <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	})
	_, err := e.Cancel(t.Context(), op.ID)
	must(t, err)
	<-detached
	select {
	case err := <-over:
		t.Fatalf("it ended with %v", err)
	default:
	}
	closeEngine(t, e)
	if err := <-over; !errors.Is(err, operation.ErrShutdown) {
		t.Errorf("it ended with %v", err)
	}
}
