package template

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// Tending is how copies are looked after once they are ready: whether they are
// still what they were, and whether anybody needs them. All of it is optional.
type Tending struct {
	// Interval is from one look at the copies to the next; default ten seconds:
	// an instance may be starting on one that is gone.
	Interval time.Duration
	// ReadRate bounds, in bytes per second, how fast a copy is read that has
	// changed: guests read from the same disk. Default 128 MiB; a scrub that
	// somebody asked for knows no bound.
	ReadRate int64
	// Chains gives what the volumes of this host really stand on, whatever the
	// store says. nil: the store is believed.
	Chains func(ctx context.Context) (Chains, error)
	// Keep says how long unused copies are kept; zero: for ever. Its AtLeast is
	// an hour by default.
	Keep Keeping
	// Space gives what the file system of a folder has.
	Space func(folder string) (Space, error)
	// Open opens a copy to read all of it.
	Open func(path string) (*os.File, error)
	// Checked is told the result of each look at a copy, Collected why one was
	// deleted. They must not block.
	Checked   func(result string)
	Collected func(reason string)
}

// Defaults of [Tending].
const (
	DefaultCheckInterval = 10 * time.Second
	// DefaultCollectInterval is from one search for unused copies and for files
	// that nobody owns to the next: it reads the chains of all instances.
	DefaultCollectInterval = time.Minute
	DefaultReadRate        = 128 << 20
	DefaultKeepAtLeast     = time.Hour
)

func (o *Tending) defaults() {
	if o.Interval <= 0 {
		o.Interval = DefaultCheckInterval
	}
	if o.ReadRate <= 0 {
		o.ReadRate = DefaultReadRate
	}
	if o.Keep.AtLeast <= 0 {
		o.Keep.AtLeast = DefaultKeepAtLeast
	}
	if o.Space == nil {
		o.Space = spaceOf
	}
	if o.Open == nil {
		o.Open = func(path string) (*os.File, error) {
			return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		}
	}
	if o.Checked == nil {
		o.Checked = func(string) {}
	}
	if o.Collected == nil {
		o.Collected = func(string) {}
	}
}

// readLimiter bounds a reading to a rate, in pieces of the reader's buffer.
func (o Tending) readLimiter() *rate.Limiter {
	return rate.NewLimiter(rate.Limit(o.ReadRate), int(max(o.ReadRate, hashBuffer)))
}

func spaceOf(folder string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return Space{}, fmt.Errorf("space of %q: %w", folder, err)
	}
	return Space{Free: int64(st.Bavail) * st.Frsize, Capacity: int64(st.Blocks) * st.Frsize}, nil
}

// Tend looks after the copies until ctx ends: at once, then at every interval,
// and as soon as one seems to have changed.
func (r *Registry) Tend(ctx context.Context) {
	var collected time.Time
	for {
		r.Check(ctx)
		if now := r.now(); collected.IsZero() || now.Sub(collected) >= DefaultCollectInterval {
			collected = now
			r.tidy(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.tend:
		case <-r.after(r.tending.Interval):
		}
	}
}

// tidy deletes what nothing stands on, and finds what nobody owns.
func (r *Registry) tidy(ctx context.Context) {
	if err := r.Collect(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("template copies that nothing stands on were not deleted", "error", err)
	}
	r.findUnowned(ctx)
}

// tendSoon has Tend look again before its time.
func (r *Registry) tendSoon() {
	select {
	case r.tend <- struct{}{}:
	default: // it was told already
	}
}
