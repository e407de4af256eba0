package operation_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what must happen at once.
const deadline = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, s operation.Store, change ...func(*operation.Options)) *operation.Engine {
	t.Helper()
	o := operation.Options{Store: s}
	for _, c := range change {
		c(&o)
	}
	e, err := operation.Open(o)
	must(t, err)
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

func closeEngine(t testing.TB, e *operation.Engine) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), deadline)
	defer stop()
	if err := e.Close(ctx); err != nil && !errors.Is(err, store.ErrClosed) && !errors.Is(err, errBroken) {
		t.Errorf("close: %v", err)
	}
}

func start(t testing.TB, e *operation.Engine, s operation.Spec, fn operation.Func) api.Operation {
	t.Helper()
	op, err := e.Start(t.Context(), s, fn)
	must(t, err)
	return op
}

// ended waits for the end of an operation.
func ended(t testing.TB, e *operation.Engine, id string) api.Operation {
	t.Helper()
	op, err := e.Wait(context.Background(), id, deadline)
	must(t, err)
	if !op.Ended() {
		t.Fatalf("operation %s did not end: status %s, phase %s", id, op.Status, op.Phase)
	}
	return op
}

// run starts an operation and waits for its end.
func run(t testing.TB, e *operation.Engine, s operation.Spec, fn operation.Func) api.Operation {
	t.Helper()
	return ended(t, e, start(t, e, s, fn).ID)
}

// code fails unless the error is a problem of that code.
func code(t testing.TB, err error, want string) {
	t.Helper()
	_ = problem(t, err, want)
}

// problem gives the problem of that code.
func problem(t testing.TB, err error, want string) *api.Problem {
	t.Helper()
	p, ok := errors.AsType[*api.Problem](err)
	if !ok || p.Code != want {
		t.Fatalf("error %v is no problem %q", err, want)
	}
	return p
}

func vm(name string) operation.Spec {
	return operation.Spec{Kind: "test", Instance: name, Cancellable: true}
}

// untilStopped is work that lasts until its context ends.
func untilStopped(ctx context.Context, _ *operation.Op) (any, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func nothing(context.Context, *operation.Op) (any, error) { return nil, nil }

func steps(op api.Operation) (out []string) {
	for _, s := range op.Steps {
		out = append(out, s.Name+" "+s.Status)
	}
	return out
}

// onDisk gives a copy of what a crash would leave.
func onDisk(t testing.TB, s store.Store) store.Store {
	t.Helper()
	out := store.Memory()
	for _, bucket := range []string{"operations", "operation-data", "operation-keys", "operation-event"} {
		must(t, s.List(bucket, func(key string, value []byte) error { return out.Put(bucket, key, value) }))
	}
	return out
}

// faulty is a store whose writes can be made to fail.
type faulty struct {
	store.Store
	mu     sync.Mutex
	broken error
	writes int
	// dieAfter writes, where positive, all others fail.
	dieAfter int
	died     func()
}

var errBroken = errors.New("disk on fire")

func (f *faulty) write() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.dieAfter > 0 && f.writes > f.dieAfter && f.broken == nil {
		f.broken = errBroken
		f.died()
	}
	return f.broken
}

func (f *faulty) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

func (f *faulty) Put(bucket, key string, value []byte) error {
	if err := f.write(); err != nil {
		return err
	}
	return f.Store.Put(bucket, key, value)
}

func (f *faulty) Update(fn func(store.Tx) error) error {
	if err := f.write(); err != nil {
		return err
	}
	return f.Store.Update(fn)
}
