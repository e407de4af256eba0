package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// LiveOnly is what to give to Events for no replay.
const LiveOnly = math.MaxUint64

const (
	// idBlock is how many event ids are reserved by one write to the store:
	// progress events would otherwise cost an fsync each.
	idBlock = 1000
	// slack is how many events a reader may be behind before it is dropped.
	slack = 256
)

// events keeps the last ones in memory and hands new ones out. Their ids go on
// after a restart; the events themselves do not survive it, and a reader that
// comes back is told that some are missing.
type events struct {
	store Store
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	ring    []api.Event // event id at ring[id % len]
	first   uint64      // first id of this process
	next    uint64
	ceiling uint64 // first id not reserved
	readers map[*reader]struct{}
	closed  bool
}

type reader struct{ ch chan api.Event }

func openEvents(s Store, keep int, now func() time.Time, log *slog.Logger) (*events, error) {
	v := &events{store: s, now: now, log: log, ring: make([]api.Event, keep), next: 1, readers: map[*reader]struct{}{}}
	value, err := s.Get(bucketEvents, "ceiling")
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("event ids: %w", err)
	default:
		if err := json.Unmarshal(value, &v.next); err != nil {
			return nil, fmt.Errorf("event ids: %w", err)
		}
	}
	v.first, v.ceiling = v.next, v.next
	return v, nil
}

func (v *events) reserve(ceiling uint64) error {
	value, err := json.Marshal(ceiling)
	if err != nil {
		return err
	}
	return v.store.Put(bucketEvents, "ceiling", value)
}

// publish gives the event its id and hands it to every reader. One that does
// not keep up is dropped: it comes back with the last id it saw, while waiting
// for it would hold up every operation.
func (v *events) publish(ev api.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	if v.next >= v.ceiling {
		// Reserved on disk before the first is given out.
		if err := v.reserve(v.next + idBlock); err != nil {
			v.log.Error("event ids not reserved; they may repeat after a restart", "error", err)
		}
		v.ceiling = v.next + idBlock
	}
	ev.ID = v.next
	v.next++
	if ev.At.IsZero() {
		ev.At = v.now().UTC()
	}
	v.ring[ev.ID%uint64(len(v.ring))] = ev
	for r := range v.readers {
		select {
		case r.ch <- ev:
		default:
			v.drop(r)
		}
	}
}

// drop ends a reader. Needs mu.
func (v *events) drop(r *reader) {
	if _, there := v.readers[r]; there {
		delete(v.readers, r)
		close(r.ch)
	}
}

func (v *events) subscribe(ctx context.Context, after uint64) (<-chan api.Event, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, api.NewProblem("not-ready", "%w", ErrShutdown)
	}
	old := v.replay(after)
	r := &reader{ch: make(chan api.Event, len(old)+slack)}
	for _, ev := range old {
		r.ch <- ev
	}
	v.readers[r] = struct{}{}
	context.AfterFunc(ctx, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.drop(r)
	})
	return r.ch, nil
}

// replay gives the kept events after an id, headed by a notice where some
// between are missing. Needs mu.
func (v *events) replay(after uint64) (out []api.Event) {
	if after == LiveOnly {
		return nil
	}
	oldest := v.first
	if n := uint64(len(v.ring)); v.next > n {
		oldest = max(oldest, v.next-n)
	}
	if after >= v.next || after != 0 && after+1 < oldest {
		out = append(out, api.Event{
			ID: oldest - 1, Kind: "host", At: v.now().UTC(),
			Detail: fmt.Sprintf("events after %d are not kept up to %d: read the lists again", after, oldest),
		})
		after = 0
	}
	for id := max(after+1, oldest); id < v.next; id++ {
		out = append(out, v.ring[id%uint64(len(v.ring))])
	}
	return out
}

// close ends every reader and journals how far the ids came.
func (v *events) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	for r := range v.readers {
		v.drop(r)
	}
	return v.reserve(v.next)
}
