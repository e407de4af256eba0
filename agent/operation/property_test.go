package operation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// model is what the engine should know. It drives operations through order
// channels: the work does exactly what it is told, one order at a time.
type model struct {
	t      *testing.T
	s      store.Store
	e      *operation.Engine
	orders map[string]orders
	lives  map[string]*life
	ids    []string
	lastEv uint64
}

// orders are carried out by an operation's work; done ends it with the error.
type orders chan func(*operation.Op) (done bool, err error)

type life struct {
	instance          string
	status            string // "" while it lives
	cancelled, closed bool
	undo, undone      int
	steps             int
	cancelledHere     bool // by this process: its context has ended
}

func obey(orders orders) operation.Func {
	return func(ctx context.Context, op *operation.Op) (any, error) {
		for {
			select {
			case order := <-orders:
				if done, err := order(op); done {
					return nil, err
				}
			case <-ctx.Done():
				if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
					return nil, ctx.Err()
				}
				// Cancelled: wait for the order to end, as a slow phase would.
				if done, err := (<-orders)(op); done {
					return nil, err
				}
			}
		}
	}
}

// tell gives an order and waits until it was carried out.
func (m *model) tell(id string, do func(*operation.Op) (bool, error)) {
	carried := make(chan struct{})
	m.orders[id] <- func(op *operation.Op) (bool, error) {
		defer close(carried)
		return do(op)
	}
	<-carried
}

func (m *model) living() (ids []string) {
	for _, id := range m.ids {
		if m.lives[id].status == "" {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *model) holder(instance string) string {
	for _, id := range m.living() {
		if m.lives[id].instance == instance {
			return id
		}
	}
	return ""
}

func (m *model) start(r *rapid.T) {
	instance := rapid.SampledFrom([]string{"vm1", "vm2", "vm3"}).Draw(r, "instance")
	todo := make(orders)
	op, err := m.e.Start(context.Background(), operation.Spec{Kind: "test", Instance: instance, Cancellable: true}, obey(todo))
	if holder := m.holder(instance); holder != "" {
		p, ok := errors.AsType[*api.Problem](err)
		if !ok || p.Code != "busy" || p.Operation != holder {
			r.Fatalf("start on a held instance: %v", err)
		}
		return
	}
	if err != nil {
		r.Fatal(err)
	}
	m.orders[op.ID] = todo
	m.lives[op.ID] = &life{instance: instance}
	m.ids = append(m.ids, op.ID)
}

func (m *model) one(r *rapid.T) (string, *life) {
	ids := m.living()
	if len(ids) == 0 {
		r.Skip("nothing lives")
	}
	id := rapid.SampledFrom(ids).Draw(r, "operation")
	return id, m.lives[id]
}

func (m *model) step(r *rapid.T) {
	id, l := m.one(r)
	m.tell(id, func(op *operation.Op) (bool, error) {
		ran := false
		err := op.Step(context.Background(), fmt.Sprint("step ", l.steps), func(context.Context) error { ran = true; return nil })
		if err != nil || !ran {
			r.Errorf("step: ran %t, %v", ran, err)
		}
		op.Undo("it", func(context.Context) error { l.undone++; return nil })
		l.steps, l.undo = l.steps+1, l.undo+1
		return false, nil
	})
}

func (m *model) door(r *rapid.T) {
	id, l := m.one(r)
	l.closed = rapid.Bool().Draw(r, "closed")
	m.tell(id, func(op *operation.Op) (bool, error) {
		if l.closed {
			op.NotCancellable()
		} else {
			op.Cancellable()
		}
		return false, nil
	})
}

func (m *model) cancel(r *rapid.T) {
	if len(m.ids) == 0 {
		r.Skip("no operation")
	}
	id := rapid.SampledFrom(m.ids).Draw(r, "operation")
	l := m.lives[id]
	op, err := m.e.Cancel(context.Background(), id)
	switch {
	case l.status == "" && !l.cancelled && l.closed:
		if p, ok := errors.AsType[*api.Problem](err); !ok || p.Code != "conflict" {
			r.Fatalf("cancel behind a closed door: %v", err)
		}
	case err != nil:
		r.Fatalf("cancel: %v", err)
	case l.status == "":
		l.cancelledHere = l.cancelledHere || !l.cancelled
		l.cancelled = true
		if op.Ended() || op.Phase != "cancelling" {
			r.Fatalf("cancelled operation is %s in %q", op.Status, op.Phase)
		}
	}
}

func (m *model) end(r *rapid.T) {
	id, l := m.one(r)
	how := rapid.SampledFrom([]string{"well", "badly", "in doubt"}).Draw(r, "how")
	l.status = map[string]string{"well": api.StatusSucceeded, "badly": api.StatusFailed, "in doubt": api.StatusNeedsDecision}[how]
	if how == "badly" && l.cancelled {
		l.status = api.StatusCancelled
	}
	m.tell(id, func(*operation.Op) (bool, error) {
		switch how {
		case "badly":
			return true, errors.New("no")
		case "in doubt":
			return true, api.NewProblem("needs-decision", "both paused")
		}
		return true, nil
	})
	if op, err := m.e.Wait(context.Background(), id, deadline); err != nil || op.Status != l.status {
		r.Fatalf("ended %s: %s, %v; want %s", how, op.Status, err, l.status)
	}
	want := 0
	if how == "badly" {
		want = l.undo
	}
	if l.undone != want {
		r.Fatalf("ended %s: %d undone, want %d", how, l.undone, want)
	}
}

// restart closes the engine and opens the next, which resumes what lives.
func (m *model) restart(r *rapid.T) {
	m.watch(r)
	m.close()
	m.open(r)
}

func (m *model) close() {
	closed := make(chan struct{})
	go func() { closeEngine(m.t, m.e); close(closed) }()
	for _, id := range m.living() {
		if !m.lives[id].cancelledHere {
			continue // its context tells it to return
		}
		if _, err := m.e.Wait(context.Background(), id, deadline); err != nil { // until the engine closes
			m.t.Error(err)
		}
		m.tell(id, func(*operation.Op) (bool, error) { return true, errors.New("no") })
	}
	<-closed
}

func (m *model) open(r *rapid.T) {
	e, err := operation.Open(operation.Options{Store: m.s})
	if err != nil {
		r.Fatal(err)
	}
	m.e = e
	known, todo := map[string]life{}, maps.Clone(m.orders)
	for _, id := range m.living() {
		// What was to be undone is the recovery's now, and its door is shut.
		m.lives[id].undo, m.lives[id].closed, m.lives[id].cancelledHere = 0, true, false
		known[id] = *m.lives[id]
	}
	e.Recover("test", func(ctx context.Context, op *operation.Op) (any, error) {
		if l := known[op.ID()]; op.Cancelled() != l.cancelled || len(op.Steps()) != l.steps {
			m.t.Errorf("recovery of %s: cancelled %t, steps %v; should be %+v", op.ID(), op.Cancelled(), op.Steps(), l)
		}
		return obey(todo[op.ID()])(ctx, op)
	})
	if err := e.Resume(context.Background()); err != nil {
		r.Fatal(err)
	}
}

// watch reads the events so far: their ids only ever grow.
func (m *model) watch(r *rapid.T) {
	ctx, stop := context.WithCancel(context.Background())
	events, err := m.e.Events(ctx, m.lastEv)
	if err != nil {
		r.Fatal(err)
	}
	stop()
	for ev := range events {
		if ev.ID <= m.lastEv {
			r.Fatalf("event %d after %d", ev.ID, m.lastEv)
		}
		m.lastEv = ev.ID
	}
}

// check compares everything readable with the model.
func (m *model) check(r *rapid.T) {
	ops, err := m.e.List(context.Background(), "", "")
	if err != nil || len(ops) != len(m.ids) {
		r.Fatalf("%d operations listed, %d started, %v", len(ops), len(m.ids), err)
	}
	for i, op := range ops {
		l := m.lives[m.ids[i]]
		if op.ID != m.ids[i] {
			r.Fatalf("operation %d is %s, started as %s", i, op.ID, m.ids[i])
		}
		if l.status == "" && op.Ended() || l.status != "" && op.Status != l.status {
			r.Fatalf("%s is %s, should be %q", op.ID, op.Status, l.status)
		}
	}
	for _, instance := range []string{"vm1", "vm2", "vm3"} {
		if got, want := m.e.Holder(api.Ref{Name: instance}), m.holder(instance); got != want {
			r.Fatalf("%s is held by %q, should be %q", instance, got, want)
		}
	}
	if n := m.e.InFlight()["test"]; n != len(m.living()) {
		r.Fatalf("%d in flight, should be %d", n, len(m.living()))
	}
}

func TestEngineAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := &model{
			t: t, s: store.Memory(),
			orders: map[string]orders{}, lives: map[string]*life{},
		}
		m.open(r)
		defer m.close()
		r.Repeat(map[string]func(*rapid.T){
			"start": m.start, "step": m.step, "door": m.door, "cancel": m.cancel,
			"end": m.end, "restart": m.restart, "watch": m.watch, "": m.check,
		})
	})
}
