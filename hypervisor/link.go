package hypervisor

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"libvirt.org/go/libvirt"
)

// maxCalls bounds the calls that may wait in one connection. Each holds a
// thread, and libvirt itself works on five at a time, so a daemon that no
// longer answers must not be able to gather thousands.
const maxCalls = 32

// link is one libvirt connection, closed when nobody uses it any more: a call
// that its caller gave up on may still be inside libvirt.
type link struct {
	conn    *libvirt.Connect
	log     *slog.Logger
	handles *atomic.Int64 // of the client: objects not freed yet
	slots   chan struct{}
	lost    chan struct{} // closed once the connection is known to be gone

	mu       sync.Mutex
	users    int
	closing  bool
	isLost   bool
	onClose  []func() // undo of event registrations, before the connection closes
	closedCh chan struct{}
}

// dialLink opens a connection. It blocks as long as libvirt does.
//
// With a keepalive a connection may have one call at a time: when the probes
// find a libvirt that hangs, only one of several calls is told, the others and
// the close callback wait for libvirt to go on, and the library of libvirt 9.0
// crashes then. So who makes more calls has none (the zero value), and learns
// of a libvirt that hangs by another connection.
func dialLink(uri string, keepAlive KeepAlive, log *slog.Logger, handles *atomic.Int64) (*link, error) {
	if err := startEventLoop(); err != nil {
		return nil, err
	}
	conn, err := libvirt.NewConnect(uri)
	if err != nil {
		return nil, wrap("connect to", uri, err)
	}
	handles.Add(1)
	l := &link{
		conn: conn, log: log, handles: handles,
		slots: make(chan struct{}, maxCalls), lost: make(chan struct{}), closedCh: make(chan struct{}),
	}
	// Drivers inside the process (test:///) have neither keepalive nor an end.
	if keepAlive.Interval > 0 {
		if err := conn.SetKeepAlive(int(keepAlive.Interval.Seconds()), keepAlive.Count); err != nil && !isCode(err, libvirt.ERR_NO_SUPPORT) {
			log.Debug("libvirt keepalive", "err", err)
		}
	}
	if err := conn.RegisterCloseCallback(func(*libvirt.Connect, libvirt.ConnectCloseReason) { l.markLost() }); err == nil {
		l.onClose = append(l.onClose, func() { _ = conn.UnregisterCloseCallback() })
	}
	return l, nil
}

// markLost tells everybody that this connection is gone. It only closes a
// channel, since libvirt calls it from its event loop.
func (l *link) markLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isLost {
		l.isLost = true
		close(l.lost)
	}
}

// isGone tells whether the connection is known to be gone.
func (l *link) isGone() bool {
	select {
	case <-l.lost:
		return true
	default:
		return false
	}
}

// retain keeps the connection open until release; false when it is closing.
func (l *link) retain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.users++
	return true
}

func (l *link) release() {
	l.mu.Lock()
	l.users--
	last := l.closing && l.users == 0
	l.mu.Unlock()
	if last {
		l.shut()
	}
}

// close ends the connection, at once or when the last call has returned.
func (l *link) close() {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return
	}
	l.closing = true
	last := l.users == 0
	l.mu.Unlock()
	if last {
		l.shut()
	}
}

// closePatience is how long the end of a connection is waited for: libvirt is
// told of it, and one that hangs does not answer.
const closePatience = 3 * time.Second

func (l *link) shut() {
	go func() {
		for _, undo := range l.onClose {
			undo()
		}
		if left, err := l.conn.Close(); err != nil {
			l.log.Warn("close libvirt connection", "err", err)
		} else if left > 0 {
			l.log.Warn("libvirt connection still referenced after close", "references", left)
		}
		l.handles.Add(-1)
		close(l.closedCh)
	}()
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case <-l.closedCh:
	case <-patience.C:
	}
}

// alive is a look at the local socket, not a round trip.
func (l *link) alive() bool {
	ok, err := l.conn.IsAlive()
	return err != nil || ok
}

// reply is what a call on a goroutine hands back.
type reply[T any] struct {
	value T
	err   error
}

// do runs fn, which may block in libvirt, and waits for it or for ctx. fn must
// free what it opens, because nobody may be waiting for it any more.
func do[T any](ctx context.Context, l *link, op, name string, fn func(*link) (T, error)) (T, error) {
	var zero T
	select {
	case l.slots <- struct{}{}:
	case <-l.lost:
		return zero, wrap(op, name, ErrDown)
	case <-ctx.Done():
		return zero, wrap(op, name, context.Cause(ctx))
	}
	if !l.retain() {
		<-l.slots
		return zero, wrap(op, name, ErrDown)
	}
	done := make(chan reply[T], 1)
	go func() {
		v, err := fn(l)
		err = l.judge(op, name, err)
		<-l.slots
		l.release()
		done <- reply[T]{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return zero, wrap(op, name, context.Cause(ctx))
	}
}

// judge wraps a call's error, and notices when the connection is its cause.
func (l *link) judge(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if !l.alive() {
		l.markLost()
		return wrap(op, name, brokenError{err})
	}
	return wrap(op, name, err)
}

// domain looks a domain up; free must be called.
func (l *link) domain(name string) (d *libvirt.Domain, free func(), err error) {
	d, err = l.conn.LookupDomainByName(name)
	if err != nil {
		return nil, nil, err
	}
	return d, l.own(d), nil
}

// freer is every libvirt object.
type freer interface{ Free() error }

// own counts an object and returns what frees it.
func (l *link) own(f freer) (free func()) {
	l.handles.Add(1)
	return func() {
		if err := f.Free(); err != nil {
			l.log.Warn("free libvirt object", "err", err)
		}
		l.handles.Add(-1)
	}
}
