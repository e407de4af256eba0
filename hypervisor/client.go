package hypervisor

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultURI is the system-wide QEMU driver of this host.
const DefaultURI = "qemu:///system"

// KeepAlive says how a dead libvirt is noticed: a probe every Interval, and
// after Count of them without an answer the connection is given up.
type KeepAlive struct {
	Interval time.Duration // whole seconds
	Count    uint
}

// Options are a client's settings; the zero value is good.
type Options struct {
	URI         string        // "" = DefaultURI
	Log         *slog.Logger  // nil = slog.Default()
	KeepAlive   KeepAlive     // zero = every 5 s, 5 times
	CallTimeout time.Duration // for a context without a deadline; 0 = one minute
	AbortGrace  time.Duration // from the abort of a migration to the yank; 0 = 5 s
}

func (o Options) withDefaults() Options {
	o.URI = cmp.Or(o.URI, DefaultURI)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.KeepAlive.Interval = cmp.Or(o.KeepAlive.Interval, 5*time.Second)
	o.KeepAlive.Count = cmp.Or(o.KeepAlive.Count, 5)
	o.CallTimeout = cmp.Or(o.CallTimeout, time.Minute)
	o.AbortGrace = cmp.Or(o.AbortGrace, 5*time.Second)
	return o
}

// Client is this host's libvirt. Methods may be called from many goroutines;
// those that need a connection return ErrDown at once while there is none.
type Client struct {
	opts Options
	log  *slog.Logger
	hub  hub

	mu      sync.Mutex
	control *link
	running chan struct{} // non-nil while Run is running; closed when it ends

	stop    context.CancelFunc
	stopped context.Context
	handles atomic.Int64
	statsMu chan struct{} // one bulk read at a time

	stats, looks spare
}

// New makes a client that has no connection yet; see Run.
func New(o Options) *Client {
	o = o.withDefaults()
	c := &Client{opts: o, log: o.Log.With("uri", o.URI), statsMu: make(chan struct{}, 1)}
	c.stopped, c.stop = context.WithCancel(context.Background())
	return c
}

// Up tells whether there is a connection just now.
func (c *Client) Up() bool { return c.link() != nil }

// Handles is the number of libvirt objects, connections included, that are not
// freed. It is 0 after Run has returned and every call with it. What makes it
// grow from one idle time to the next leaks.
func (c *Client) Handles() int64 { return c.handles.Load() }

func (c *Client) link() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.control == nil {
		return nil
	}
	select {
	case <-c.control.lost:
		return nil
	default:
		return c.control
	}
}

func (c *Client) setControl(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control = l
}

// bounded gives a context without a deadline one.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.opts.CallTimeout)
}

// onControl runs fn on the control connection, see do.
func onControl[T any](ctx context.Context, c *Client, op, name string, fn func(*link) (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, wrap(op, name, context.Cause(ctx))
	}
	l := c.link()
	if l == nil {
		return zero, wrap(op, name, ErrDown)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return do(ctx, l, op, name, fn)
}

// none is the value of a call that only succeeds or fails.
type none struct{}
