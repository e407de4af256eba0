package power

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Libvirt looks at domains, without asking their QEMU.
type Libvirt interface {
	// Domain returns an error that is hypervisor.ErrNoDomain for one that is
	// not there; any other means that libvirt did not answer.
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	Subscribe(ctx context.Context) <-chan hypervisor.Event
}

// Session asks a domain's guest and QEMU. All methods block until they are
// answered or ctx ends, whatever becomes of the domain meanwhile.
type Session interface {
	PingAgent(ctx context.Context) error
	AskAgent(ctx context.Context) error
	Press(ctx context.Context) error
	Resume(ctx context.Context) error
	Wakeup(ctx context.Context) error
	Quit(ctx context.Context) error
	Destroy(ctx context.Context) error
	Close()
}

// Process is the QEMU process of a domain, which is pinned: its number means
// no other one.
type Process interface {
	PID() int
	Gone() <-chan struct{}
	Signal(signal syscall.Signal) error
	Close()
}

// Ladder brings instances down, any number at the same time: nothing is shared
// between two of them. The zero value of Log is silence.
type Ladder struct {
	Libvirt Libvirt
	// Session opens nothing before it is asked.
	Session func(name string) Session
	// Find gives the process that the domain is, pinned and proven to be its
	// own; nil without an error where there is none.
	Find func(name, uuid string) (Process, error)
	// Status asks QEMU itself for its run state (QMP query-status) while libvirt
	// does not answer; nil = it is not asked.
	Status func(ctx context.Context, name, uuid string) (string, error)
	Log    *slog.Logger
}

// Result says how an instance came to be down, or what was tried in vain.
type Result = api.StopResult

// Deadlines of single calls. A monitor that hangs is given no more.
const (
	lookTimeout    = 5 * time.Second
	askTimeout     = 3 * time.Second
	statusTimeout  = 2 * time.Second
	destroyTimeout = 40 * time.Second // libvirt itself waits for SIGTERM and SIGKILL
	lookEvery      = time.Second      // without having been told: an event may be lost
)

// Down brings the instance down and returns when its process is gone and
// libvirt agrees; one that does not run is success. An error is a problem:
// "timeout" where the guest did not obey, "conflict" where it cannot or may
// not be stopped, with a hint. The result tells then what was tried. When ctx
// ends Down returns its cause, and leaves the instance as it is.
func (l Ladder) Down(ctx context.Context, name, uuid string, o Options) (Result, error) {
	c := &climb{Ladder: l, name: name, uuid: uuid, session: l.Session(name)}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("instance", name)
	defer c.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Before the first look, so that no change falls in between.
	c.events = l.Libvirt.Subscribe(ctx)
	c.s = situation{began: time.Now(), tried: map[act]try{}, domain: hypervisor.Domain{ID: -1}, first: hypervisor.Domain{ID: -1}, unheard: true}
	for ctx.Err() == nil {
		c.look(ctx)
		d := decide(c.s, o)
		switch d.act {
		case actDone:
			return c.result(d), nil
		case actFail:
			return c.result(d), d.err
		case actWait:
			c.wait(ctx, d.wait)
		default:
			c.try(ctx, d)
		}
	}
	return c.result(decision{}), context.Cause(ctx)
}

// climb is one instance on its way down.
type climb struct {
	Ladder
	name, uuid string
	session    Session
	process    Process
	events     <-chan hypervisor.Event
	s          situation
	blind      error
}

func (c *climb) close() {
	c.session.Close()
	if c.process != nil {
		c.process.Close()
	}
}

// look brings the situation up to date.
func (c *climb) look(ctx context.Context) {
	// The process first: pinned before libvirt is asked, it cannot be one that
	// was started after libvirt's answer.
	c.find()
	once, cancel := context.WithTimeout(ctx, lookTimeout)
	d, err := c.Libvirt.Domain(once, c.name)
	cancel()
	own, told := "", false
	if err != nil && !errors.Is(err, hypervisor.ErrNoDomain) {
		own, told = c.ask(ctx)
	}
	now := time.Now()
	c.s.now = now
	gone := errors.Is(err, hypervisor.ErrNoDomain) || err == nil && d.UUID != c.uuid
	switch {
	case gone:
		c.s.absent, c.s.silent = true, time.Time{}
	case err != nil:
		if c.s.silent.IsZero() {
			c.s.silent = now
			c.Log.Warn("libvirt does not answer", "error", err)
		}
		if c.s.own = told; told {
			ownWord(own, &c.s.domain)
		}
	default:
		c.s.domain, c.s.absent, c.s.silent = d, false, time.Time{}
		if c.s.unheard {
			c.s.first = d
		}
	}
	if gone || err == nil {
		c.s.unheard, c.s.own = false, false
	}
	c.s.offSince = since(!c.s.unheard && c.s.off(), c.s.offSince, now)
	c.seeProcess(now)
}

// ask has QEMU itself tell its state, where there is one to be asked.
func (c *climb) ask(ctx context.Context) (state string, ok bool) {
	if c.Status == nil || c.process == nil || c.s.absent {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	state, err := c.Status(ctx, c.name, c.uuid)
	if err != nil {
		c.Log.Debug("QEMU does not tell its state", "error", err)
	}
	return state, err == nil
}

func since(is bool, before, now time.Time) time.Time {
	switch {
	case !is:
		return time.Time{}
	case before.IsZero():
		return now
	}
	return before
}

// find looks for the process as long as it has none. That the host cannot be
// asked for processes leaves libvirt to end it.
func (c *climb) find() {
	if c.process != nil {
		return
	}
	p, err := c.Find(c.name, c.uuid)
	if err != nil {
		if c.blind == nil {
			c.Log.Warn("the process of the instance cannot be looked for", "error", err)
		}
		c.blind = err
		return
	}
	c.process, c.blind = p, nil
}

func (c *climb) seeProcess(now time.Time) {
	if c.process == nil {
		return
	}
	c.s.process = alive
	select {
	case <-c.process.Gone():
		c.s.process = ended
	default:
	}
	c.s.endSince = since(c.s.process == ended, c.s.endSince, now)
}

// wait returns when it is worth looking again.
func (c *climb) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(min(d, lookEvery))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-c.ending():
			return
		case e, ok := <-c.events:
			if !ok {
				c.events = nil
				continue
			}
			if e.Kind == hypervisor.KindConnection || e.Kind == hypervisor.KindLifecycle && e.Name == c.name {
				return
			}
		}
	}
}

// ending is closed when the process ends; nil, for ever, once that is known.
func (c *climb) ending() <-chan struct{} {
	if c.process == nil || c.s.process == ended {
		return nil
	}
	return c.process.Gone()
}

// try does one thing, and notes what came of it.
func (c *climb) try(ctx context.Context, d decision) {
	t, again := c.s.tried[d.act]
	if !again {
		t.first = c.s.now
		c.Log.Info("stopping", "by", string(d.act), "because", d.why)
	}
	t.err = c.do(ctx, d.act)
	if c.obeyed(d.act, t.err) {
		t.err = nil
	}
	t.landed = t.landed || t.err == nil || d.act == actQuit
	if t.err != nil {
		c.Log.Info("that had no effect", "by", string(d.act), "error", t.err)
	}
	t.count++
	t.last = time.Now()
	c.s.tried[d.act] = t
}

// obeyed: the process is gone, or it is not known in time that the act failed.
// The guest agent, where it obeys, never says so.
func (c *climb) obeyed(a act, err error) bool {
	if c.process != nil {
		select {
		case <-c.process.Gone():
			return true
		default:
		}
	}
	return errors.Is(err, context.DeadlineExceeded) && a != actPing && a != actQuit
}

func (c *climb) do(ctx context.Context, a act) error {
	timeout := askTimeout
	if a == actDestroy {
		timeout = destroyTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The end of the process is the answer to whatever was asked.
	if gone := c.ending(); gone != nil {
		returned := make(chan struct{})
		defer close(returned)
		go func() {
			select {
			case <-gone:
				cancel()
			case <-returned:
			}
		}()
	}
	switch a {
	case actPing:
		return c.session.PingAgent(ctx)
	case actAgent:
		return c.session.AskAgent(ctx)
	case actPress:
		return c.session.Press(ctx)
	case actResume:
		return c.session.Resume(ctx)
	case actWake:
		return c.session.Wakeup(ctx)
	case actQuit:
		return c.session.Quit(ctx)
	case actDestroy:
		return c.session.Destroy(ctx)
	case actTerm, actEnd:
		return c.process.Signal(syscall.SIGTERM)
	case actKill:
		return c.process.Signal(syscall.SIGKILL)
	}
	return fmt.Errorf("%q is nothing that can be done", a)
}
