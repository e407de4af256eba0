package hypervisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"libvirt.org/go/libvirt"
)

// ErrPending says that an earlier call of the same session has not come back
// from libvirt, though its caller has given it up.
var ErrPending = errors.New("an earlier call has not come back")

// agentPatience is how long libvirt waits for the answer to a ping. Before
// that it finds out whether the agent is there at all, for five seconds of its
// own where the guest holds the port open and says nothing.
const agentPatience = 2 * time.Second

// Session asks one domain's guest and QEMU for what changes its power, on a
// connection of its own.
//
// A QEMU that hangs, one stopped by SIGSTOP say, does not answer its monitor,
// and libvirt waits with the caller for as long as that lasts. One connection
// serves five requests at a time, and libvirt as a whole has twenty workers
// (libvirtd.conf: max_client_requests, max_workers). So a session is no other
// domain's, and has one call under way at most: what hangs holds up nothing
// else, and does not gather calls that wait for it. Looking at the domain's
// state is for the Client, and needs no answer of QEMU.
//
// It connects when it is first asked, and again when the connection was lost.
// Methods may be called at the same time; all but one of them get ErrPending.
type Session struct {
	c    *Client
	name string

	mu      sync.Mutex
	link    *link
	pending bool
	closed  bool
}

// Session opens nothing yet. Close it.
func (c *Client) Session(name string) *Session { return &Session{c: c, name: name} }

// Shutdown asks the guest to shut down and does not wait for it.
func (s *Session) Shutdown(ctx context.Context, mode ShutdownMode) error {
	flags, err := mode.flags()
	if err != nil {
		return err
	}
	return s.ask(ctx, "shut down", func(d *libvirt.Domain) error { return d.ShutdownFlags(flags) })
}

// PingAgent returns nil when the guest agent answers. A domain without one
// gives ErrUnsupported, an agent that is not running ErrAgent, both at once.
func (s *Session) PingAgent(ctx context.Context) error {
	return s.ask(ctx, "ping the guest agent of", func(d *libvirt.Domain) error {
		_, err := d.QemuAgentCommand(`{"execute":"guest-ping"}`, libvirt.DomainQemuAgentCommandTimeout(agentPatience/time.Second), 0)
		return err
	})
}

// Resume lets the domain's CPUs run.
func (s *Session) Resume(ctx context.Context) error {
	return s.ask(ctx, "resume", (*libvirt.Domain).Resume)
}

// Wakeup wakes a guest that was suspended to memory by itself.
func (s *Session) Wakeup(ctx context.Context) error {
	return s.ask(ctx, "wake", func(d *libvirt.Domain) error { return d.PMWakeup(0) })
}

// Quit tells QEMU to end (QMP quit): it writes its caches back, the guest's are
// lost. QEMU may be gone before its answer is read, which is an error here.
func (s *Session) Quit(ctx context.Context) error {
	return s.ask(ctx, "quit", func(d *libvirt.Domain) error {
		text, err := d.QemuMonitorCommand(`{"execute":"quit"}`, libvirt.DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
		if err != nil {
			return err
		}
		_, err = qmpReturn([]byte(text))
		return err
	})
}

// Destroy has libvirt end the process, by SIGTERM and then SIGKILL, and waits
// for that. It does so although another call hangs in the domain's monitor, so
// it goes past an earlier one of this session, on one more connection. One
// that does not run is success.
func (s *Session) Destroy(ctx context.Context) error {
	apart := s.c.Session(s.name)
	defer apart.Close()
	return apart.ask(ctx, "destroy", destroy)
}

// ask makes one call, and waits for it or for ctx.
func (s *Session) ask(ctx context.Context, op string, fn func(*libvirt.Domain) error) error {
	if ctx.Err() != nil {
		return wrap(op, s.name, context.Cause(ctx))
	}
	ctx, cancel := s.c.bounded(ctx)
	defer cancel()
	if err := s.begin(); err != nil {
		return wrap(op, s.name, err)
	}
	done := make(chan error, 1)
	go func() {
		err := s.call(op, fn)
		s.end() // before the answer: who has it may ask again
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return wrap(op, s.name, context.Cause(ctx))
	}
}

func (s *Session) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrDown
	case s.pending:
		return ErrPending
	}
	s.pending = true
	return nil
}

func (s *Session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = false
	if s.closed {
		s.drop()
	}
}

// call runs on a goroutine of its own, and blocks as long as libvirt does.
func (s *Session) call(op string, fn func(*libvirt.Domain) error) error {
	l, err := s.dial()
	if err != nil {
		return err
	}
	d, free, err := l.domain(s.name)
	if err == nil {
		err = fn(d)
		free()
	}
	return l.judge(op, s.name, err)
}

// dial gives the session's connection, a new one where the last was lost.
func (s *Session) dial() (*link, error) {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		select {
		case <-l.lost:
		default:
			return l, nil
		}
	}
	fresh, err := dialLink(s.c.opts.URI, s.c.opts.KeepAlive, s.c.log, &s.c.handles)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	s.link = fresh // closed at the end of the call where the session is closed meanwhile
	return fresh, nil
}

// drop closes the connection. Needs mu, and no call under way.
func (s *Session) drop() {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
}

// Close ends the session, at once or when the call under way has come back.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if !s.pending {
		s.drop()
	}
}
