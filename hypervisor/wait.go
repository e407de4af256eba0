package hypervisor

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// recheck is how often WaitState looks without having been told: an event may
// have been lost with a connection.
const recheck = 2 * time.Second

// WaitState waits until the domain is in one of the states. It returns what it
// saw last together with ctx's cause when ctx ends first, and ErrNoDomain at
// once when the domain is gone (a transient domain that stopped, say). An
// interrupted connection is waited out.
func (c *Client) WaitState(ctx context.Context, name string, states ...State) (Domain, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	// Subscribed before the first look, so that no change falls in between.
	events := c.Subscribe(ctx)
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	var last Domain
	for {
		d, err := c.Domain(ctx, name)
		switch {
		case err == nil && slices.Contains(states, d.State):
			return d, nil
		case err == nil:
			last = d
		case !isDown(err):
			return last, err
		}
		if !nextChange(ctx, events, tick.C, name) {
			return last, fmt.Errorf("wait for %q to be %v, last seen %q: %w", name, states, last.State, context.Cause(ctx))
		}
	}
}

// nextChange blocks until it is worth looking at the domain again.
func nextChange(ctx context.Context, events <-chan Event, tick <-chan time.Time, name string) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case e, ok := <-events:
			if !ok {
				return false
			}
			if e.Kind == KindConnection || (e.Kind == KindLifecycle && e.Name == name) {
				return true
			}
		}
	}
}
