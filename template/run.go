package template

import (
	"context"
	"sync"
	"time"
)

const (
	// apart is how far from each other attempts begin by themselves: what one
	// cut cable made fail together need not all ask together again, nor what
	// fell due while the agent was down.
	apart = time.Second
	// atMost is how long Run waits without a look at the clock, which may jump.
	atMost = time.Minute
)

// Run brings, until ctx ends, the copies whose time has come: after a failure,
// after the agent stopped in the middle, after a copy was lost. When it
// returns nothing that it began is running; what had come is kept.
func (r *Registry) Run(ctx context.Context) {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop(r.stopping)
	// Others may stop only later, each with a cause of its own.
	defer r.halting.Store(true)
	var last time.Time
	for ctx.Err() == nil {
		now := r.now()
		next, wait := due(r.waiting(), now, last)
		if next != nil {
			last = now
			r.retry(work, *next, &running)
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.poke:
		case <-r.after(wait):
		}
	}
}

// waiter is a copy that is to be brought, and when.
type waiter struct {
	place
	at time.Time
}

// due decides which copy to bring now, if any, or else how long to wait.
func due(all []waiter, now, last time.Time) (*place, time.Duration) {
	if len(all) == 0 {
		return nil, atMost
	}
	first := all[0]
	for _, w := range all {
		if w.at.Before(first.at) {
			first = w
		}
	}
	at := first.at
	if free := last.Add(apart); !last.IsZero() && at.Before(free) {
		at = free
	}
	if !at.After(now) {
		return &first.place, 0
	}
	return nil, min(at.Sub(now), atMost)
}

// waiting lists the copies with a time, but for those that Run is at.
func (r *Registry) waiting() []waiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []waiter
	for id, t := range r.templates {
		for _, c := range t.Copies {
			p := place{id, c.Pool}
			if c.RetryAt != nil && c.State != StateReady && r.wanted(t, c.Pool) && !r.retrying[p] && !r.removing[id] {
				out = append(out, waiter{p, *c.RetryAt})
			}
		}
	}
	return out
}

func (r *Registry) retry(ctx context.Context, p place, running *sync.WaitGroup) {
	r.mu.Lock()
	r.retrying[p] = true
	r.mu.Unlock()
	running.Go(func() {
		// What went wrong is the copy's to tell.
		_ = r.bring(ctx, job{place: p})
		r.mu.Lock()
		delete(r.retrying, p)
		r.mu.Unlock()
		r.wake()
	})
}
