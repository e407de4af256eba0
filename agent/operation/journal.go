package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// Buckets of the store.
const (
	bucketOperations = "operations"      // id -> record
	bucketData       = "operation-data"  // id/key -> what Op.Save was given
	bucketKeys       = "operation-keys"  // idempotency key -> keyRecord
	bucketEvents     = "operation-event" // "ceiling" -> first event id not reserved
)

// record is an operation as the journal keeps it.
type record struct {
	api.Operation
	Request         json.RawMessage `json:"request,omitempty"`
	Key             string          `json:"key,omitempty"`
	NoLock          bool            `json:"no_lock,omitempty"`
	CancelRequested bool            `json:"cancel_requested,omitempty"`
	// Claim is the operation's in a contest for its instance; "" = its kind.
	Claim Claim `json:"claim,omitempty"`
	// SupersededBy is the operation that ended this one, and the claim by which.
	SupersededBy    string `json:"superseded_by,omitempty"`
	SupersededClaim Claim  `json:"superseded_claim,omitempty"`
	// Decidable: where it ends in needs_decision it can be taken up again, see
	// [Engine.Reopen], and its instance waits for that.
	Decidable bool `json:"decidable,omitempty"`
	// Failure is why the operation began to roll back.
	Failure *api.Problem `json:"failure,omitempty"`
}

// keyRecord is what an idempotency key was used for.
type keyRecord struct {
	Operation   string `json:"operation"`
	Fingerprint string `json:"fingerprint"`
}

// ref is the instance whose lock the operation holds; false where it holds none.
func (r *record) ref() (api.Ref, bool) {
	return api.Ref{Project: r.Project, Name: r.Instance}, r.Instance != "" && !r.NoLock
}

// entry is an operation that has not ended, in this process.
type entry struct {
	// What never changes, readable without a lock.
	id, kind string
	about    api.Ref
	request  json.RawMessage

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it ended
	unlock func()
	hold   *holder // the lock, or the place in its queue; nil without an instance
	waits  bool    // it had to queue, and has to see that it is granted
	// recovered: found unfinished in the journal; interrupted: the step that
	// was running then.
	recovered   bool
	interrupted string

	// Guarded by Engine.mu. rec is always what the journal has; what changes
	// without a journal entry lies beside it and is written with the next one.
	rec         record
	progress    api.Progress
	published   time.Time // of the last progress event
	cancellable bool
	whyNot      string // it is not cancellable, where the work has said so
	// cancellableThen is what cancellable is to be when the lock is granted.
	cancellableThen bool
	cancelled       bool
	late            bool // past the point of no return, whether cancelled or not
	ending          bool // the function has returned, undoing may go on
	resumed         bool
	undo            []undo
}

// snapshot gives the operation as a reader sees it. Needs mu. The slices are
// shared: the journal replaces them and never changes them in place.
func (en *entry) snapshot() api.Operation {
	op := en.rec.Operation
	if !op.Ended() {
		op.Progress = en.progress
		op.Cancellable = en.cancellable
	}
	return op
}

// journal changes an operation: first in the store, then in memory, then as
// an event. If the store fails, nothing has changed.
func (e *Engine) journal(en *entry, detail string, change func(*record)) error {
	e.order.Lock()
	defer e.order.Unlock()
	return e.journalOrdered(en, detail, change, nil)
}

// journalOrdered is journal for a caller that holds order; also, where given,
// writes more in the same transaction.
func (e *Engine) journalOrdered(en *entry, detail string, change func(*record), also func(store.Tx) error) error {
	d, err := e.draft(en, change)
	if err != nil {
		return err
	}
	err = e.store.Update(func(tx store.Tx) error {
		if err := tx.Put(bucketOperations, d.next.ID, d.value); err != nil || also == nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return fmt.Errorf("journal of operation %s: %w", en.id, err)
	}
	e.adopt(en, d.next, detail)
	return nil
}

// draft is what the journal is to have of an operation.
type draft struct {
	en    *entry
	next  record
	value []byte
}

// draft changes a copy of an operation's record. Needs order.
func (e *Engine) draft(en *entry, change func(*record)) (draft, error) {
	e.mu.Lock()
	next := en.rec
	next.Progress, next.Cancellable = en.progress, en.cancellable
	e.mu.Unlock()
	next.Steps = slices.Clone(next.Steps)
	change(&next)
	next.UpdatedAt = e.now().UTC()
	value, err := json.Marshal(next)
	if err != nil {
		return draft{}, fmt.Errorf("journal of operation %s: %w", en.id, err)
	}
	return draft{en, next, value}, nil
}

// adopt makes the record what readers see. Publishing under mu keeps an older
// progress event from following a newer state.
func (e *Engine) adopt(en *entry, next record, detail string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if next.Ended() {
		// After the journal, or a crash could leave two unfinished operations
		// on one instance; before any reader, who may start the next one.
		en.unlock()
	}
	en.rec = next
	e.noteUndecided(&next)
	e.publishOperation(en, detail)
}

func (e *Engine) publishOperation(en *entry, detail string) {
	op := en.snapshot()
	e.events.publish(api.Event{
		Kind: "operation", Project: op.Project, Instance: op.Instance, Detail: detail, Operation: &op,
	})
}

// stored reads an operation from the journal.
func (e *Engine) stored(id string) (record, error) {
	value, err := e.store.Get(bucketOperations, id)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
		return record{}, api.NewProblem("not-found", "no operation %q", id)
	}
	if err != nil {
		return record{}, fmt.Errorf("operation %q: %w", id, err)
	}
	return decode(id, value)
}

func decode(id string, value []byte) (record, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return record{}, fmt.Errorf("journal of operation %q: %w", id, err)
	}
	return r, nil
}
