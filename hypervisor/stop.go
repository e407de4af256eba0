package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// stopper ends a migration under way, without breaking the guest.
type stopper struct {
	yankDisks     func(context.Context) error
	yankMigration func(context.Context) error
	abort         func(context.Context) error
	grace         time.Duration // for the call to return after each step
	log           *slog.Logger
}

func (c *Client) stopper(name string) stopper {
	return stopper{
		yankDisks:     func(ctx context.Context) error { _, err := c.Yank(ctx, name); return err },
		yankMigration: func(ctx context.Context) error { _, err := c.YankMigration(ctx, name); return err },
		abort:         func(ctx context.Context) error { return c.Abort(ctx, name) },
		grace:         c.opts.AbortGrace,
		log:           c.log.With("domain", name),
	}
}

// stop ends the migration whose call reports to done, and returns what it
// reported, or ErrUnknownOutcome when it never does.
//
// The disks' connections are cut before libvirt is asked to abort. Cancelling a
// mirror that is in step with the guest makes QEMU's main loop wait for the
// requests under way; if the network is dead that wait lasts until TCP gives
// up, QEMU answers nothing, and the guest itself stands still. Cut first, the
// requests fail at once, the mirror ends, and the guest never notices.
func (s stopper) stop(ctx context.Context, done <-chan error) error {
	var failed []error
	for _, step := range []struct {
		what  string
		act   func(context.Context) error
		grace time.Duration
	}{
		{"yank disks", s.yankDisks, 0},
		{"abort", s.abort, s.grace},
		// A copy may have begun between the first yank and the abort.
		{"yank disks again", s.yankDisks, s.grace},
		{"yank migration", s.yankMigration, s.grace},
		// libvirt's own keepalive to the destination gives up after 30 s.
		{"wait", func(context.Context) error { return nil }, max(8*s.grace, 40*time.Second)},
	} {
		if err := s.step(ctx, step.act); err != nil {
			// "No job is active" is usual when the migration ends by itself.
			s.log.Info("stop migration", "step", step.what, "err", err)
			failed = append(failed, fmt.Errorf("%s: %w", step.what, err))
		}
		timer := time.NewTimer(step.grace)
		select {
		case err := <-done:
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, errors.Join(failed...))
}

func (s stopper) step(ctx context.Context, act func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.grace)
	defer cancel()
	return act(ctx)
}
