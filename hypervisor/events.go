package hypervisor

import (
	"context"
	"sync"
	"time"
)

// Kinds of events.
const (
	KindLifecycle    = "lifecycle"     // Action and Detail say what, e.g. "started", "migrated"
	KindJobCompleted = "job-completed" // a migration out of this host ended
	KindIteration    = "iteration"     // Iteration says which pass over memory begins
	KindBlockJob     = "block-job"     // Target, Action (status), Detail (type)
	KindConnection   = "connection"    // Detail "up", "down" or "overflow": list again, events may be missing
)

// Event is something that happened to a domain of this host, or to the
// connection.
type Event struct {
	Kind       string
	Name, UUID string // of the domain; empty for "connection"
	Action     string // lifecycle: defined, undefined, started, suspended, resumed, stopped, shutdown, pmsuspended, crashed
	Detail     string // libvirt's reason, e.g. "booted", "migrated", "postcopy", "destroyed"
	Target     string // block-job: the disk's target
	Iteration  int
	At         time.Time
}

// queue is how many events a subscriber may be behind.
const queue = 256

// Subscribe returns a channel of events that is closed when ctx ends. A
// consumer that falls behind loses events, never delays libvirt's event loop;
// after the last event it did get comes a connection event with the detail
// "overflow", and it must list again.
func (c *Client) Subscribe(ctx context.Context) <-chan Event {
	return c.hub.subscribe(ctx)
}

type hub struct {
	mu   sync.Mutex
	subs map[chan Event]struct{}
}

func (h *hub) subscribe(ctx context.Context) <-chan Event {
	// One place beyond the queue is kept for the overflow note, so that the
	// note itself can always be delivered.
	ch := make(chan Event, queue+1)
	h.mu.Lock()
	if h.subs == nil {
		h.subs = make(map[chan Event]struct{})
	}
	h.subs[ch] = struct{}{}
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, ch)
		close(ch)
	})
	return ch
}

// publish never blocks: it is called from libvirt's event loop.
func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.subs {
		// Only publish sends, under the lock, so room seen is room there.
		switch n := len(ch); {
		case n < queue:
			ch <- e
		case n == queue:
			ch <- Event{Kind: KindConnection, Detail: "overflow", At: e.At}
		}
	}
}
