package hypervisor

import (
	"context"
	"errors"
	"sync"

	"libvirt.org/go/libvirt"
)

// ErrPending says that an earlier call of the same kind has not come back from
// libvirt, though its caller has given it up.
var ErrPending = errors.New("an earlier call has not come back")

// lane is a connection for one call at a time about one domain.
type lane struct {
	c    *Client
	name string

	mu      sync.Mutex
	link    *link
	pending bool
	closed  bool
}

// ask makes one call, and waits for it or for ctx.
func (n *lane) ask(ctx context.Context, op string, fn func(*libvirt.Domain) error) error {
	if ctx.Err() != nil {
		return wrap(op, n.name, context.Cause(ctx))
	}
	ctx, cancel := n.c.bounded(ctx)
	defer cancel()
	if err := n.begin(); err != nil {
		return wrap(op, n.name, err)
	}
	done := make(chan error, 1)
	go func() {
		err := n.call(op, fn)
		n.end() // before the answer: who has it may ask again
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return wrap(op, n.name, context.Cause(ctx))
	}
}

func (n *lane) begin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return ErrDown
	case n.pending:
		return ErrPending
	}
	n.pending = true
	return nil
}

func (n *lane) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = false
	if n.closed {
		n.drop()
	}
}

// call runs on a goroutine of its own, and blocks as long as libvirt does.
func (n *lane) call(op string, fn func(*libvirt.Domain) error) error {
	l, err := n.dial()
	if err != nil {
		return err
	}
	d, free, err := l.domain(n.name)
	if err == nil {
		err = fn(d)
		free()
	}
	return l.judge(op, n.name, err)
}

// dial gives the lane's connection, a new one where the last was lost.
func (n *lane) dial() (*link, error) {
	n.mu.Lock()
	l := n.link
	n.mu.Unlock()
	if l != nil && !l.isGone() {
		return l, nil
	}
	fresh, err := dialLink(n.c.opts.URI, n.c.opts.KeepAlive, n.c.log, &n.c.handles)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop()
	n.link = fresh // closed at the end of the call where the lane is closed meanwhile
	return fresh, nil
}

// drop closes the connection. Needs mu, and no call under way.
func (n *lane) drop() {
	if n.link != nil {
		n.link.close()
		n.link = nil
	}
}

// close ends the lane, at once or when the call under way has come back.
func (n *lane) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if !n.pending {
		n.drop()
	}
}
