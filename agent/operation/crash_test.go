package operation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// world is what operations do things to. A process that died does nothing any
// more, whatever its goroutines still try.
type world struct {
	mu      sync.Mutex
	process int
	things  map[string]bool
}

func (w *world) act(process int, fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if process == w.process {
		fn()
	}
}

func (w *world) die() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.process++
}

var phases = []string{"connect", "prepare", "perform", "commit"}

// work makes one thing per phase, saying so before, and fails in the phase
// given, if any.
func (w *world) work(process int, failIn string) operation.Func {
	return func(ctx context.Context, op *operation.Op) (any, error) {
		for _, phase := range phases {
			err := op.Step(ctx, phase, func(context.Context) error {
				if err := op.Save("thing-"+phase, phase); err != nil {
					return err
				}
				op.Undo(phase, func(context.Context) error {
					w.act(process, func() { delete(w.things, phase) })
					return nil
				})
				w.act(process, func() { w.things[phase] = true })
				if phase == failIn {
					return errors.New("it failed")
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		return "arrived", nil
	}
}

// rollBack is the recovery: what was saved may exist, nothing else can.
func (w *world) rollBack(t *testing.T) operation.Func {
	return func(ctx context.Context, op *operation.Op) (any, error) {
		err := op.Step(ctx, "roll back", func(context.Context) error {
			for _, phase := range phases {
				var name string
				found, err := op.Load("thing-"+phase, &name)
				if err != nil {
					return err
				}
				w.mu.Lock()
				if w.things[phase] && !found {
					t.Errorf("%q was made but the journal does not know", phase)
				}
				delete(w.things, name)
				w.mu.Unlock()
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if p := op.Failure(); p != nil {
			return nil, p
		}
		return nil, api.NewProblem("interrupted", "rolled back after a crash")
	}
}

// TestCrashAtEveryJournalWrite kills the agent after each write to its store
// in turn, and looks at what the next one makes of it.
func TestCrashAtEveryJournalWrite(t *testing.T) {
	for _, failIn := range []string{"", "perform"} {
		t.Run("failing in "+failIn, func(t *testing.T) {
			for after := 2; ; after++ { // the first two: event ids, the operation itself
				if !crashAfter(t, after, failIn) {
					t.Logf("%d crashes survived", after-2)
					if after < 10 {
						t.Errorf("only %d writes", after)
					}
					return
				}
			}
		})
	}
}

// crashAfter tells whether the operation wrote often enough to crash there.
func crashAfter(t *testing.T, writes int, failIn string) bool {
	path := filepath.Join(t.TempDir(), "store.db")
	db, err := store.Open(path, time.Second)
	must(t, err)
	w := &world{things: map[string]bool{}}
	dead := make(chan struct{})
	f := &faulty{Store: db, dieAfter: writes, died: func() { w.die(); close(dead) }}
	e := open(t, f)
	op := start(t, e, vm("vm1"), w.work(0, failIn))
	ended(t, e, op.ID) // in the dead process this means nothing
	crashed := false
	select {
	case <-dead:
		crashed = true
	default:
	}
	must(t, db.Close())

	db, err = store.Open(path, time.Second)
	must(t, err)
	next := open(t, db)
	before, err := next.Get(t.Context(), op.ID)
	must(t, err)
	if crashed && !before.Ended() && next.Holder(api.Ref{Name: "vm1"}) != op.ID {
		t.Errorf("crash after write %d: the instance is free", writes)
	}
	for thing := range maps.Keys(w.things) {
		if !slices.ContainsFunc(before.Steps, func(s api.Step) bool { return s.Name == thing }) {
			t.Errorf("crash after write %d: %q was made outside of any journalled step", writes, thing)
		}
	}
	next.Recover("test", w.rollBack(t))
	must(t, next.Resume(t.Context()))
	got := ended(t, next, op.ID)
	if err := verdict(got, w.things, failIn); err != nil {
		t.Errorf("crash after write %d: %v; steps %v", writes, err, steps(got))
	}
	closeEngine(t, next)
	must(t, db.Close())
	return crashed
}

// verdict: all or nothing, and the operation says which.
func verdict(op api.Operation, things map[string]bool, failIn string) error {
	switch {
	case op.Status == api.StatusSucceeded && failIn == "" && len(things) == len(phases):
		return nil
	case op.Status == api.StatusFailed && len(things) == 0:
		if failIn != "" && op.Error.Code == "internal" && op.Error.Detail != "it failed" {
			return fmt.Errorf("the cause was lost: %w", op.Error)
		}
		for _, s := range op.Steps {
			if s.Status == operation.StepRunning {
				return fmt.Errorf("step %q of an ended operation is running", s.Name)
			}
		}
		return nil
	}
	return fmt.Errorf("status %s (%s) with %v in the world", op.Status, api.CodeOf(op.Error), things)
}
