package hypervisor

import (
	"context"
)

// spare is one more connection of the client, opened when it is first needed
// and closed with the client's own.
type spare struct{ link *link } // guarded by Client.mu

// open gives the connection, a new one where there is none or it was lost.
func (c *Client) open(ctx context.Context, s *spare, op, name string) (*link, error) {
	if l := c.kept(s); l != nil {
		return l, nil
	}
	got := make(chan reply[*link], 1)
	go func() {
		l, err := dialLink(c.opts.URI, KeepAlive{}, c.log, &c.handles)
		got <- reply[*link]{l, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, r.err
		}
		return c.keep(s, r.value, op, name)
	case <-ctx.Done():
		go func() {
			if r := <-got; r.err == nil {
				r.value.close()
			}
		}()
		return nil, wrap(op, name, context.Cause(ctx))
	}
}

// kept gives the connection that is there; nil where there is none that works.
func (c *Client) kept(s *spare) *link {
	c.mu.Lock()
	l := s.link
	lost := l != nil && l.isGone()
	if lost {
		s.link = nil
	}
	c.mu.Unlock()
	if lost {
		l.close() // without the lock: libvirt may take its time
		return nil
	}
	return l
}

// keep keeps the connection for the next call, unless the client went down
// meanwhile, when nobody would close it, or another call was faster.
func (c *Client) keep(s *spare, l *link, op, name string) (*link, error) {
	c.mu.Lock()
	down, other := c.control == nil, s.link
	if !down && other == nil {
		s.link = l
	}
	c.mu.Unlock()
	switch {
	case down:
		l.close()
		return nil, wrap(op, name, ErrDown)
	case other != nil:
		l.close()
		return other, nil
	}
	return l, nil
}

func (c *Client) closeSpares() {
	for _, s := range []*spare{&c.stats, &c.looks} {
		c.mu.Lock()
		l := s.link
		s.link = nil
		c.mu.Unlock()
		if l != nil {
			l.close()
		}
	}
}

// onLooks runs fn on the connection for looks: calls that libvirt answers
// without QEMU and without waiting for anybody who has asked QEMU. On the
// control connection a domain whose QEMU hangs may hold up to five calls, and
// all others with them: libvirt gives not even its XML before the call to its
// monitor has come back.
func onLooks[T any](ctx context.Context, c *Client, op, name string, fn func(*link) (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, wrap(op, name, context.Cause(ctx))
	}
	if !c.Up() {
		return zero, wrap(op, name, ErrDown)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	l, err := c.open(ctx, &c.looks, op, name)
	if err != nil {
		return zero, err
	}
	return do(ctx, l, op, name, fn)
}
