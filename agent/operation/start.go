package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// Spec says what an operation is about.
type Spec struct {
	// Kind chooses the recovery after a crash.
	Kind string
	// Project and Instance name the instance that is locked; without an
	// instance nothing is.
	Project, Instance string
	// Template is the one that the operation is about; it locks nothing.
	Template string
	Key      api.Idempotency
	// Request is journalled as JSON, for the recovery to read.
	Request any
	// NoLock: the instance is named but not locked.
	NoLock bool
	// Claim says whom the operation ends, and by whom it is ended; "" = Kind.
	Claim Claim
	// Decidable: one that ends in needs_decision is kept until it is taken up
	// again by Reopen, and until then nothing but a stop is begun on its
	// instance: it might be the start of a second copy.
	Decidable bool
	// Cancellable from the beginning; see Op.NotCancellable.
	Cancellable bool
}

// patience is how long Start waits for short work that holds the instance. An
// operation that holds it is never waited for.
const patience = 5 * time.Second

// maxKey is the longest idempotency key, in bytes.
const maxKey = 255

// Start journals an operation, with an fsync, and then runs fn on its own. It
// returns the operation as it was journalled. The same idempotency key and
// fingerprint give the operation that they gave the first time, whatever
// became of it.
//
// Where a weaker operation holds the instance (see Claim), that one is
// cancelled, and the new one runs when it has let go: until then it is pending,
// in phase "waiting". Problems: "busy" names the operation that holds the instance,
// "idempotency-reuse", "bad-request" for a request that is no JSON or a key
// that is too long, "not-ready" while the engine closes. An error that is no
// problem comes from the store, and then nothing runs.
func (e *Engine) Start(ctx context.Context, spec Spec, fn Func) (api.Operation, error) {
	if len(spec.Key.Key) > maxKey {
		return api.Operation{}, api.NewProblem("bad-request", "an idempotency key of %d bytes; %d at most", len(spec.Key.Key), maxKey)
	}
	request, err := json.Marshal(spec.Request)
	if err != nil {
		return api.Operation{}, api.NewProblem("bad-request", "request of operation %q: %w", spec.Kind, err)
	}
	if spec.Instance != "" {
		spec.Project = normal(api.Ref{Project: spec.Project}).Project
	}
	if spec.Instance != "" && !spec.NoLock {
		defer e.lockWaited(e.now())
	}
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	ref := api.Ref{Project: spec.Project, Name: spec.Instance}
	for {
		op, by, err := e.tryStart(ctx, spec, request, fn)
		if by == nil {
			return op, err
		}
		// A busy problem at once for an operation, in good time for short work.
		if by.operation != "" || !e.lingers(ctx, ref, newHolder(holder{kind: spec.Kind}), by) {
			return api.Operation{}, by.busy(ref)
		}
	}
}

// tryStart holds order from the look at the idempotency key to the journal
// entry, so that of two equal requests one starts and the other finds it.
func (e *Engine) tryStart(ctx context.Context, spec Spec, request json.RawMessage, fn Func) (api.Operation, *holder, error) {
	e.order.Lock()
	defer e.order.Unlock()
	if e.closing() {
		return api.Operation{}, nil, api.NewProblem("not-ready", "%w", ErrShutdown)
	}
	if op, found, err := e.earlier(ctx, spec.Key); found || err != nil {
		return op, nil, err
	}
	if err := e.decidedBefore(spec); err != nil {
		return api.Operation{}, nil, err
	}
	now := e.now().UTC()
	next, err := nextID(e.last, now)
	if err != nil {
		return api.Operation{}, nil, err
	}
	e.last = next
	id := next.String()
	en := e.newEntry(record{
		Operation: api.Operation{
			ID: id, Kind: spec.Kind, Project: spec.Project, Instance: spec.Instance, Template: spec.Template,
			Status: api.StatusPending, Steps: []api.Step{}, CreatedAt: now,
		},
		Request: request, Key: spec.Key.Key, NoLock: spec.NoLock, Claim: spec.Claim, Decidable: spec.Decidable,
	})
	en.cancellable = spec.Cancellable
	ended, by := e.lockOrContest(en)
	if by != nil {
		en.cancel(nil)
		return api.Operation{}, by, nil
	}
	if err := e.accept(en, spec.Key, ended); err != nil {
		en.unlock()
		en.cancel(err)
		return api.Operation{}, nil, err
	}
	e.mu.Lock()
	e.live[id] = en
	op := en.snapshot()
	e.mu.Unlock()
	e.work.Go(func() { e.run(en, fn) }) //nolint:contextcheck // an operation outlives its request: its context is the engine's
	return op, nil, nil
}

// accept journals a new operation together with its idempotency key and the
// orders to those that it ends: after a crash they must not go on either.
func (e *Engine) accept(en *entry, key api.Idempotency, ended []*entry) error {
	drafts, err := e.supersede(ended, en)
	if err != nil {
		return err
	}
	err = e.journalOrdered(en, "accepted", func(*record) {}, func(tx store.Tx) error {
		for _, d := range drafts {
			if err := tx.Put(bucketOperations, d.next.ID, d.value); err != nil {
				return err
			}
		}
		if key.Key == "" {
			return nil
		}
		value, err := json.Marshal(keyRecord{Operation: en.id, Fingerprint: key.Fingerprint})
		if err != nil {
			return err
		}
		return tx.Put(bucketKeys, key.Key, value)
	})
	if err != nil {
		return err
	}
	// Its place is taken only now: who was next before keeps it when the
	// journal fails. Whatever the holder did meanwhile, the queue knows.
	if en.waits {
		e.locks.queue(en.about, en.hold, e.now())
	}
	e.end(drafts, en)
	return nil
}

// earlier finds the operation that an idempotency key was used for.
func (e *Engine) earlier(ctx context.Context, key api.Idempotency) (op api.Operation, found bool, err error) {
	if key.Key == "" {
		return op, false, nil
	}
	value, err := e.store.Get(bucketKeys, key.Key)
	if errors.Is(err, store.ErrNotFound) {
		return op, false, nil
	}
	if err != nil {
		return op, false, fmt.Errorf("idempotency key %q: %w", key.Key, err)
	}
	var known keyRecord
	if err := json.Unmarshal(value, &known); err != nil {
		return op, false, fmt.Errorf("idempotency key %q: %w", key.Key, err)
	}
	if known.Fingerprint != key.Fingerprint {
		return op, true, api.NewProblem("idempotency-reuse",
			"idempotency key %q was used for another request", key.Key).WithOperation(known.Operation)
	}
	op, err = e.Get(ctx, known.Operation)
	return op, true, err
}

func (e *Engine) newEntry(r record) *entry {
	en := &entry{
		id: r.ID, kind: r.Kind, about: api.Ref{Project: r.Project, Name: r.Instance}, request: r.Request,
		rec: r, done: make(chan struct{}), unlock: func() {},
	}
	en.ctx, en.cancel = context.WithCancelCause(context.WithValue(e.base, agentKey{}, e.base))
	return en
}
