package template

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/wherry-kvm/wherry/template/fault"
)

// flightKey is what is fetched once at a time, however many ask, and for
// however many pools: the second pool copies from the first.
type flightKey struct{ checksum, format string }

func keyOf(t Template) flightKey { return flightKey{t.Checksum, t.Format} }

// flight is one fetch with those who wait for it. It runs on its own, and is
// called back when the last of them has gone.
type flight struct {
	place  // for whom the bytes are
	key    flightKey
	ctx    context.Context
	cancel context.CancelCauseFunc
	// ended is closed when err and calledOff are there.
	ended     chan struct{}
	err       error
	calledOff bool                   // somebody's wish, and no failure of the fetch
	followers map[*follower]struct{} // guarded by the registry's mu
	// done and total are bytes; total is -1 where it is not known.
	done, total atomic.Int64
	telling     sync.Mutex // held while followers are told, one after the other
}

// follower is one who waits. Its identity matters, so that it is never empty.
type follower struct{ progress Progress }

// Causes of the end of a flight's context.
var (
	errStopping = errors.New("the agent stops")
	errRemoved  = errors.New("the template is being removed")
)

// bring makes one copy ready, or waits for who is doing it.
func (r *Registry) bring(ctx context.Context, j job) error {
	me := &follower{j.progress}
	for {
		f, err := r.join(ctx, j, me)
		if err != nil {
			return wrap(j.place, err)
		}
		f.catchUp(me)
		select {
		case <-ctx.Done():
			r.leave(ctx, f, me)
			return wrap(j.place, context.Cause(ctx))
		case <-f.ended:
		}
		switch {
		case f.calledOff:
			// Somebody's wish, not ours: go on in their place.
		case f.place == j.place:
			return wrap(j.place, f.err)
		case f.err != nil && r.concerns(f, j):
			return wrap(j.place, errors.Join(f.err, r.shareFailure(j, f.err)))
		}
		// The same bytes are there now under another id or in another pool, or
		// what went wrong there need not go wrong here.
	}
}

// concerns tells whether a flight's failure would be that of another copy of
// the same bytes, too. Nobody waits for the next attempt because of another's
// URL or folder.
func (r *Registry) concerns(f *flight, j job) bool {
	switch why := fault.Of(f.err); {
	case why.Class == fault.Policy && why.Permanent:
		return true // the bytes themselves were refused
	case why.Class == fault.Local:
		return f.pool == j.pool
	}
	theirs, known := r.Lookup(f.id)
	ours, _ := r.Lookup(j.id)
	return known && theirs.URL == ours.URL && theirs.SyncFrom == ours.SyncFrom && maps.Equal(theirs.Headers, ours.Headers)
}

func wrap(p place, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("template %q on pool %q: %w", p.id, p.pool, err)
}

// join makes the caller follow a flight, which it starts if there is none.
func (r *Registry) join(ctx context.Context, j job, me *follower) (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, known := r.templates[j.id]
	if !known || !r.wanted(t, j.pool) || r.removing[j.id] {
		return nil, fmt.Errorf("template %q: %w", j.id, ErrNotFound)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	key := keyOf(t)
	f, flying := r.flights[key]
	if !flying {
		f = &flight{place: j.place, key: key, ended: make(chan struct{}), followers: map[*follower]struct{}{}}
		f.total.Store(-1)
		// Not the caller's context: others may come to follow, and stay longer.
		f.ctx, f.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		r.flights[key] = f
		go r.fly(f, j)
	}
	f.followers[me] = struct{}{}
	return f, nil
}

func (r *Registry) fly(f *flight, j job) {
	err := r.attempt(f, j)
	r.mu.Lock()
	delete(r.flights, f.key)
	f.err, f.calledOff = err, err != nil && f.ctx.Err() != nil
	r.mu.Unlock()
	close(f.ended)
	f.cancel(nil)
}

// leave is what a follower does whose own context ended. The last one takes
// the flight down, and sees it down: nothing of it is left when it returns.
func (r *Registry) leave(ctx context.Context, f *flight, me *follower) {
	r.mu.Lock()
	delete(f.followers, me)
	last := len(f.followers) == 0
	r.mu.Unlock()
	f.telling.Lock()   // who left is told nothing more
	f.telling.Unlock() //nolint:staticcheck // only waited for
	if !last {
		return
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, r.stopping) || r.halting.Load() {
		cause = errStopping
	}
	f.cancel(cause)
	<-f.ended
}

// report tells all who wait how far the flight is.
func (r *Registry) report(f *flight, done, total int64) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.done.Store(done)
	f.total.Store(total)
	r.mu.Lock()
	all := make([]Progress, 0, len(f.followers))
	for me := range f.followers {
		if me.progress != nil {
			all = append(all, me.progress)
		}
	}
	r.mu.Unlock()
	for _, progress := range all {
		progress(done, total)
	}
}

// catchUp tells one who came later: the next bytes may be long in coming.
func (f *flight) catchUp(me *follower) {
	f.telling.Lock()
	defer f.telling.Unlock()
	if me.progress != nil {
		me.progress(f.done.Load(), f.total.Load())
	}
}
