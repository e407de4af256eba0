package operation

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// undecided tells whether someone must decide about the operation.
func (r *record) undecided() bool {
	return r.Decidable && r.Status == api.StatusNeedsDecision
}

// noteUndecided keeps which instances wait for a decision. Needs mu, or that
// nobody knows the engine yet.
func (e *Engine) noteUndecided(r *record) {
	ref, ok := r.ref()
	switch {
	case !ok:
	case r.undecided():
		e.undecided[ref] = r.ID
	case e.undecided[ref] == r.ID:
		delete(e.undecided, ref)
	}
}

// decidedBefore refuses to begin anything but a stop on an instance of which
// nobody knows yet where it is to go on. A stop makes no second copy, and the
// host must be able to go down.
func (e *Engine) decidedBefore(spec Spec) error {
	if spec.Instance == "" || spec.NoLock || strength[cmp.Or(spec.Claim, Claim(spec.Kind))] >= strength[ClaimStop] {
		return nil
	}
	ref := api.Ref{Project: spec.Project, Name: spec.Instance}
	e.mu.Lock()
	by := e.undecided[ref]
	e.mu.Unlock()
	if by == "" {
		return nil
	}
	return api.NewProblem("busy", "operation %s about instance %q needs a decision first", by, ref).WithOperation(by).
		WithHint("`wherry operation info %s` shows what both hosts say, and the commands that settle it", by)
}

// Reopen takes up an operation that ended in needs_decision: it takes the
// instance's lock, keeps note under the name for [Op.Load], journals both at
// once, and runs fn as the operation's continuation. After a crash the kind's
// recovery goes on, and finds the note. Where fn ends with "needs-decision" it
// can be taken up once more.
//
// Problems: "not-found", "conflict" for an operation that is in no such doubt,
// "busy" while another holds the instance, "not-ready" while the engine closes.
func (e *Engine) Reopen(_ context.Context, id, name string, note any, fn Func) (api.Operation, error) {
	value, err := json.Marshal(note)
	if err != nil {
		return api.Operation{}, fmt.Errorf("data %q of operation %s: %w", name, id, err)
	}
	e.order.Lock()
	defer e.order.Unlock()
	if e.closing() {
		return api.Operation{}, api.NewProblem("not-ready", "%w", ErrShutdown)
	}
	if en := e.find(id); en != nil && e.read(en).Ended() {
		if err := e.journalLate(en); err != nil {
			return e.read(en), err
		}
	}
	if en := e.find(id); en != nil {
		op := e.read(en)
		return op, api.NewProblem("conflict", "operation %s is %s: there is nothing to decide", id, op.Status).WithOperation(id)
	}
	r, err := e.stored(id)
	if err != nil {
		return api.Operation{}, err
	}
	if !r.undecided() {
		return r.Operation, api.NewProblem("conflict", "operation %s has %s: there is nothing to decide", id, r.Status).WithOperation(id)
	}
	en := e.newEntry(r)
	en.progress = r.Progress
	if ref, ok := r.ref(); ok {
		en.hold = newHolder(holder{operation: id, kind: en.kind, claim: en.claim()})
		if by, _ := e.locks.try(ref, en.hold, e.now()); by != nil {
			en.cancel(nil)
			return api.Operation{}, by.busy(ref)
		}
		en.unlock = e.locks.releaser(ref, en.hold, e.now)
	}
	err = e.journalOrdered(en, "taken up again", func(r *record) {
		r.Status, r.Error, r.Failure, r.CancelRequested = api.StatusRunning, nil, nil, false
		r.SupersededBy, r.SupersededClaim = "", ""
	}, func(tx store.Tx) error { return tx.Put(bucketData, id+"/"+name, value) })
	if err != nil {
		en.unlock()
		en.cancel(err)
		return api.Operation{}, err
	}
	e.mu.Lock()
	e.live[id] = en
	op := en.snapshot()
	e.mu.Unlock()
	e.work.Go(func() { e.run(en, fn) }) //nolint:contextcheck // an operation outlives its request: its context is the engine's
	return op, nil
}

// Load reads what an operation's work kept by [Op.Save], also after its end;
// false where nothing was.
func (e *Engine) Load(id, name string, into any) (bool, error) {
	return (&Op{e, &entry{id: id}}).Load(name, into)
}

// Unsettled gives fn, for each operation that has not ended or about which
// someone must decide, all that the journal keeps of it, as JSON values: what
// these name is still needed. It stops at the first error.
func (e *Engine) Unsettled(fn func(id string, value []byte) error) error {
	open := map[string]bool{}
	err := e.store.List(bucketOperations, func(id string, value []byte) error {
		r, err := decode(id, value)
		if err != nil {
			return err // what it names cannot be known
		}
		if r.Ended() && r.Status != api.StatusNeedsDecision {
			return nil
		}
		open[id] = true
		return fn(id, value)
	})
	if err != nil {
		return err
	}
	return e.store.List(bucketData, func(key string, value []byte) error {
		if id, _, _ := strings.Cut(key, "/"); open[id] {
			return fn(id, value)
		}
		return nil
	})
}
