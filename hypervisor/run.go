package hypervisor

import (
	"context"
	"errors"
	"time"
)

// errRunning is returned by a second Run.
var errRunning = errors.New("client is already running")

// slowDial is when a connection that does not come up is worth a warning.
const slowDial = 30 * time.Second

// Run keeps the control connection: it connects, connects again with growing
// pauses when libvirt goes away, and subscribes to events each time. Every
// change of the connection is itself an event. It blocks until ctx ends or the
// client is closed, frees what it holds, and returns nil; an error means that
// it could not begin.
func (c *Client) Run(ctx context.Context) error {
	if err := startEventLoop(); err != nil {
		return err
	}
	ended := make(chan struct{})
	c.mu.Lock()
	if c.running != nil {
		c.mu.Unlock()
		return errRunning
	}
	c.running = ended
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.running = nil
		c.mu.Unlock()
		close(ended)
	}()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.stopped, cancel)()

	for attempt := 0; ctx.Err() == nil; attempt++ {
		l, pulse, err := c.dialControl(ctx)
		if err != nil {
			if ctx.Err() == nil {
				c.log.Warn("libvirt is not there", "err", err, "attempt", attempt+1)
			}
			pause(ctx, backoff(attempt))
			continue
		}
		attempt = -1
		c.hold(ctx, l, pulse)
	}
	return nil
}

// hold uses a connection until it is lost or ctx ends. The pulse is the
// connection that tells of a libvirt that hangs; nobody calls on it.
func (c *Client) hold(ctx context.Context, l, pulse *link) {
	c.setControl(l)
	c.log.Info("connected to libvirt")
	c.hub.publish(Event{Kind: KindConnection, Detail: "up", At: time.Now()})
	select {
	case <-l.lost:
		c.log.Warn("lost the connection to libvirt")
	case <-pulse.lost:
		c.log.Warn("libvirt does not answer")
		l.markLost()
	case <-ctx.Done():
	}
	c.setControl(nil)
	c.closeSpares()
	l.close()
	pulse.close()
	c.hub.publish(Event{Kind: KindConnection, Detail: "down", At: time.Now()})
}

// dialControl opens the control connection with its events, and the pulse.
// While libvirt does not answer there is one attempt under way, never a pile
// of them: each would hold a thread.
func (c *Client) dialControl(ctx context.Context) (l, pulse *link, err error) {
	got := make(chan reply[[2]*link], 1)
	go func() {
		l, pulse, err := c.dialBoth()
		got <- reply[[2]*link]{[2]*link{l, pulse}, err}
	}()
	slow := time.AfterFunc(slowDial, func() { c.log.Warn("libvirt accepts no connection yet", "since", slowDial) })
	defer slow.Stop()
	select {
	case r := <-got:
		return r.value[0], r.value[1], r.err
	case <-ctx.Done():
		go func() {
			if r := <-got; r.err == nil {
				r.value[0].close()
				r.value[1].close()
			}
		}()
		return nil, nil, context.Cause(ctx)
	}
}

func (c *Client) dialBoth() (l, pulse *link, err error) {
	if pulse, err = dialLink(c.opts.URI, c.opts.KeepAlive, c.log, &c.handles); err != nil {
		return nil, nil, err
	}
	l, err = dialLink(c.opts.URI, KeepAlive{}, c.log, &c.handles)
	if err == nil {
		if err = c.register(l); err != nil {
			l.close()
		}
	}
	if err != nil {
		pulse.close()
		return nil, nil, err
	}
	return l, pulse, nil
}

// Close ends Run and waits for it, ten seconds at most.
func (c *Client) Close() error {
	c.stop()
	c.mu.Lock()
	running := c.running
	c.mu.Unlock()
	if running == nil {
		return nil
	}
	select {
	case <-running:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("close libvirt client: still running after 10s")
	}
}

// backoff is the pause after the n-th failed attempt: a quarter of a second,
// doubled up to ten seconds. A restart of the daemon takes about one.
func backoff(n int) time.Duration {
	return min(250*time.Millisecond<<min(n, 6), 10*time.Second)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
