package harness

import (
	"context"
	"fmt"
	"time"
)

const (
	pollEvery   = 50 * time.Millisecond
	pollTimeout = 60 * time.Second // where the context has no deadline
)

// Until polls check until it returns nil. When the context ends first, the error says what was waited for and why
// check was not content the last time.
func Until(ctx context.Context, what string, check func(context.Context) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pollTimeout)
		defer cancel()
	}
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// What a check says after the end of its context is no more than that.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; at last: %w", what, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}
