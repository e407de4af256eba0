package cleanup

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-kvm/wherry/agent/durable"
	"github.com/wherry-kvm/wherry/http/api"
)

const (
	// lockWait is for short work on an instance. An operation on it does what
	// is owed itself, and is not waited for.
	lockWait = time.Second
	// cleanTimeout bounds one instance: another's must not wait for ever.
	cleanTimeout = 2 * time.Minute
)

// Lock takes an instance's lock; nil where nobody else is there.
type Lock func(ctx context.Context, ref api.Ref, who string) (unlock func(), err error)

// Resume does what earlier runs of the agent, or earlier tries, have left. One
// that runs is not owed anything: the stop did not happen, or it was started
// since. It returns every failure, joined; those notes stay. What interrupted
// writes of notes and records have left goes too, whosever it is.
func (c Cleaner) Resume(ctx context.Context, lock Lock) error {
	notes, err := c.Pending()
	before := c.Now().Add(-youngest)
	errs := []error{err, durable.TidyBelow(c.Dir, suffix, before), c.Records.TidyAll(before)}
	for _, n := range notes {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		errs = append(errs, c.resume(ctx, n.Ref(), lock))
	}
	return errors.Join(errs...)
}

func (c Cleaner) resume(ctx context.Context, ref api.Ref, lock Lock) error {
	if lock != nil {
		wait, cancel := context.WithTimeout(ctx, lockWait)
		unlock, err := lock(wait, ref, "clean-up")
		cancel()
		if err != nil {
			return nil
		}
		defer unlock()
	}
	// Under the lock: it may have been done, or taken back, meanwhile.
	n, owed, err := c.Owed(ref)
	if err != nil || !owed {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	err = c.Clean(ctx, n)
	if errors.Is(err, ErrRuns) {
		return c.Forget(ref)
	}
	if err == nil {
		c.Log.Info("cleaned up after an instance", "instance", ref.String(), "owed since", n.Since)
	}
	return err
}

// Run resumes at once and then at every tick, until ctx ends.
func (c Cleaner) Run(ctx context.Context, lock Lock, ticks <-chan time.Time) {
	for {
		if err := c.Resume(ctx, lock); err != nil && ctx.Err() == nil {
			c.Log.Warn("something is left to be cleaned up; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
	}
}
