package operation_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestBusyNamesTheHolder(t *testing.T) {
	e := open(t, store.Memory())
	first := start(t, e, vm("vm1"), untilStopped)
	_, err := e.Start(t.Context(), operation.Spec{Kind: "stop", Project: "default", Instance: "vm1"}, nothing)
	p := problem(t, err, "busy")
	if p.Operation != first.ID || !strings.Contains(p.Detail, first.ID) || !strings.Contains(p.Detail, "test") {
		t.Errorf("busy: operation %q, detail %q", p.Operation, p.Detail)
	}
	if got := e.Holder(api.Ref{Name: "vm1"}); got != first.ID {
		t.Errorf("holder %q", got)
	}
	for name, s := range map[string]operation.Spec{
		"another project":  {Kind: "stop", Project: "other", Instance: "vm1"},
		"another instance": {Kind: "stop", Instance: "vm2"},
		"no instance":      {Kind: "template"},
		"no lock":          {Kind: "look", Instance: "vm1", NoLock: true},
	} {
		if op := run(t, e, s, nothing); op.Status != api.StatusSucceeded {
			t.Errorf("%s: %s", name, op.Status)
		}
	}
	if n := e.InFlight(); n["test"] != 1 || len(n) != 1 {
		t.Errorf("in flight: %v", n)
	}
	_, err = e.Cancel(t.Context(), first.ID)
	must(t, err)
	ended(t, e, first.ID)
	run(t, e, vm("vm1"), nothing)
}

func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		e := open(t, store.Memory(), func(o *operation.Options) {
			o.OnLockWait = func(d time.Duration) { waits = append(waits, d) }
		})
		ref := api.Ref{Name: "vm1"}
		unlock, err := e.Lock(t.Context(), ref, "a look")
		must(t, err)
		if h := e.Holder(ref); h != "" {
			t.Errorf("short work is no operation, yet holder is %q", h)
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err = e.Lock(short, ref, "another")
		if p := problem(t, err, "busy"); !strings.Contains(p.Detail, "a look") || p.Operation != "" {
			t.Errorf("busy: %+v", p)
		}

		// Starting waits a little for short work, and then gives up.
		_, err = e.Start(t.Context(), vm("vm1"), nothing)
		code(t, err, "busy")
		time.AfterFunc(2*time.Second, unlock)
		run(t, e, vm("vm1"), nothing)
		unlock() // again: no harm to the next holder

		op := start(t, e, vm("vm1"), untilStopped)
		_, err = e.Lock(short, ref, "late")
		if p := problem(t, err, "busy"); p.Operation != op.ID {
			t.Errorf("busy names %q", p.Operation)
		}
		if len(waits) != 6 || waits[0] != 0 || waits[1] != time.Second || waits[3] != 2*time.Second {
			t.Errorf("waits: %v", waits)
		}
	})
}

func TestIdempotency(t *testing.T) {
	s := store.Memory()
	e := open(t, s)
	spec := vm("vm1")
	spec.Key = api.Idempotency{Key: "k", Fingerprint: "f"}
	var runs atomic.Int32
	fn := func(context.Context, *operation.Op) (any, error) { runs.Add(1); return nil, nil }

	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			op, err := e.Start(t.Context(), spec, fn)
			if err != nil {
				t.Error(err)
			}
			ids[i] = op.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("operations %v", ids)
		}
	}
	ended(t, e, ids[0])

	other := spec
	other.Key.Fingerprint = "g"
	other.Instance = "vm2"
	_, err := e.Start(t.Context(), other, fn)
	if p := problem(t, err, "idempotency-reuse"); p.Operation != ids[0] {
		t.Errorf("names operation %q", p.Operation)
	}
	closeEngine(t, e)

	e = open(t, s)
	op, err := e.Start(t.Context(), spec, fn)
	if err != nil || op.ID != ids[0] || op.Status != api.StatusSucceeded {
		t.Errorf("after a restart: %+v, %v", op, err)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("ran %d times", n)
	}
	spec.Key.Key = strings.Repeat("k", 256)
	_, err = e.Start(t.Context(), spec, fn)
	code(t, err, "bad-request")
}

func TestRefusedRequestDoesNotUseItsKey(t *testing.T) {
	e := open(t, store.Memory())
	first := start(t, e, vm("vm1"), untilStopped)
	spec := vm("vm1")
	spec.Key = api.Idempotency{Key: "k", Fingerprint: "f"}
	_, err := e.Start(t.Context(), spec, nothing)
	code(t, err, "busy")
	_, err = e.Cancel(t.Context(), first.ID)
	must(t, err)
	ended(t, e, first.ID)
	if op := run(t, e, spec, nothing); op.Status != api.StatusSucceeded {
		t.Errorf("the same request later: %s", op.Status)
	}
}

func TestStartRefusals(t *testing.T) {
	e := open(t, store.Memory())
	_, err := e.Start(t.Context(), operation.Spec{Kind: "x", Request: make(chan int)}, nothing)
	code(t, err, "bad-request")
	closeEngine(t, e)
	_, err = e.Start(t.Context(), vm("vm1"), nothing)
	code(t, err, "not-ready")
	if !errors.Is(err, operation.ErrShutdown) {
		t.Errorf("the cause is not told: %v", err)
	}
	if _, err := operation.Open(operation.Options{}); err == nil {
		t.Error("an engine without a store")
	}
}

func TestOperationOutlivesItsRequest(t *testing.T) {
	e := open(t, store.Memory())
	ctx, stop := context.WithCancel(t.Context())
	proceed := make(chan struct{})
	op, err := e.Start(ctx, vm("vm1"), func(ctx context.Context, _ *operation.Op) (any, error) {
		<-proceed
		return nil, ctx.Err()
	})
	must(t, err)
	stop()
	close(proceed)
	if op := ended(t, e, op.ID); op.Status != api.StatusSucceeded {
		t.Errorf("ended as %s, %v", op.Status, op.Error)
	}
}
