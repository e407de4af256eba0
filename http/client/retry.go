package client

import (
	"context"
	"time"
)

// maxPause bounds the pause between two attempts.
const maxPause = 2 * time.Second

// retry paces attempts while an agent is away.
type retry struct {
	first, patience time.Duration

	next  time.Duration
	since time.Time // of the first failure in a row
}

func (c *Client) retry() *retry { return &retry{first: c.first, patience: c.patience, next: c.first} }

// reset notes that the agent answered.
func (r *retry) reset() { r.next, r.since = r.first, time.Time{} }

// connected notes that the agent is there, though it has told nothing yet. The
// pauses go on growing: one that hangs up at once is not to be asked in a storm.
func (r *retry) connected() { r.since = time.Time{} }

// pause waits before the next attempt. It gives the failure back when patience
// is over, or ctx's error.
func (r *retry) pause(ctx context.Context, failure error) error {
	now := time.Now()
	if r.since.IsZero() {
		r.since = now
	}
	if now.Sub(r.since) >= r.patience {
		return failure
	}
	d := r.next
	r.next = min(2*r.next, maxPause)
	return sleep(ctx, d)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
