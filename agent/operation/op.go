package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// Op is a running operation, for the function that does its work. Its methods
// may be called at the same time.
type Op struct {
	e  *Engine
	en *entry
}

// ID gives the operation's id, a ULID.
func (o *Op) ID() string { return o.en.id }

// Ref gives the instance that the operation is about.
func (o *Op) Ref() api.Ref { return o.en.about }

// Kind gives the operation's kind.
func (o *Op) Kind() string { return o.en.kind }

// Request decodes the request that the operation was started with.
func (o *Op) Request(into any) error {
	if err := json.Unmarshal(o.en.request, into); err != nil {
		return fmt.Errorf("request of operation %s: %w", o.ID(), err)
	}
	return nil
}

// Save keeps data of this operation for its recovery. It has reached the disk
// when Save returns, so call it before the side effect that it describes. The
// data is deleted with the operation.
func (o *Op) Save(key string, v any) error {
	value, err := json.Marshal(v)
	if err == nil {
		err = o.e.store.Put(bucketData, o.dataKey(key), value)
	}
	if err != nil {
		return fmt.Errorf("data %q of operation %s: %w", key, o.ID(), err)
	}
	return nil
}

// Load reads what Save kept; false where nothing was.
func (o *Op) Load(key string, into any) (bool, error) {
	value, err := o.e.store.Get(bucketData, o.dataKey(key))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(value, into)
	}
	if err != nil {
		return false, fmt.Errorf("data %q of operation %s: %w", key, o.ID(), err)
	}
	return true, nil
}

func (o *Op) dataKey(key string) string { return o.ID() + "/" + key }

// Progress is shown to readers at once, published as an event at most twice a
// second, or when its Detail is another, and journalled with the next step.
func (o *Op) Progress(p api.Progress) {
	// JSON has no such numbers: one of them would break the journal.
	if math.IsNaN(p.Percent) || math.IsInf(p.Percent, 0) {
		p.Percent = 0
	}
	p.Percent = min(max(p.Percent, 0), 100)
	p.Disks = slices.Clone(p.Disks)
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	waits := p.Detail != o.en.progress.Detail
	o.en.progress = p
	now := o.e.now()
	if !waits && now.Sub(o.en.published) < progressEvery || o.en.rec.Ended() {
		return
	}
	o.en.published = now
	o.e.publishOperation(o.en, "progress")
}

const progressEvery = 500 * time.Millisecond

// NotCancellable closes the door to Cancel. One that came through before is
// told by Cancelled, or by the context, which then has already ended: check
// after this call and before the point of no return.
func (o *Op) NotCancellable() { o.setCancellable(false, "") }

// NotCancellableFor is NotCancellable with what is said to who tries.
func (o *Op) NotCancellableFor(why string) { o.setCancellable(false, why) }

// Irrevocable is NotCancellable for good: the point of no return is passed. What
// follows shows its own phases, and where it fails that is no cancel. It tells
// whether a cancel came through before, which has come too late.
func (o *Op) Irrevocable() (cancelled bool) {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.en.cancellable, o.en.whyNot, o.en.late = false, "", true
	return o.en.cancelled
}

// Cancellable opens the door to Cancel.
func (o *Op) Cancellable() { o.setCancellable(true, "") }

func (o *Op) setCancellable(v bool, why string) {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.en.cancellable, o.en.whyNot = v, why
}

// Cancelled tells whether someone asked for the operation to be cancelled, in
// this process or before it was recovered.
func (o *Op) Cancelled() bool {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	return o.en.cancelled
}

// Recovered tells whether an earlier process left the operation unfinished.
func (o *Op) Recovered() bool { return o.en.recovered }

// Interrupted names the step that was running when the earlier process ended:
// whether it took effect is not known. "" where none was.
func (o *Op) Interrupted() string { return o.en.interrupted }

// Failure is why the earlier process was rolling the operation back when it
// ended; nil where it was not.
func (o *Op) Failure() *api.Problem {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	return o.en.rec.Failure
}

// Steps gives a copy of the steps so far.
func (o *Op) Steps() []api.Step {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	return slices.Clone(o.en.rec.Steps)
}

// Undo pushes a function that undoes what was done, or is about to be done.
// If the operation fails they run in reverse, each on a context that
// cancelling does not reach, with Options.UndoTimeout; fn must return when
// that context ends. Push before the side effect, and let fn find out what is
// there. Undo functions do not survive the process: the kind's recovery does
// their work then.
func (o *Op) Undo(name string, fn func(context.Context) error) {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.en.undo = append(o.en.undo, undo{name, fn})
}

// DropUndo forgets all undo functions: the point of no return is passed.
func (o *Op) DropUndo() {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.en.undo = nil
}
