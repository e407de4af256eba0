package power

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/hypervisor"
)

var errAway = errors.New("libvirt is not connected")

// world is a host with one instance, in the time of a synctest bubble. What is
// never is shown as a nil function or a zero time.
type world struct {
	// What the instance does when it is told something; nil = nothing.
	press  func(w *world, n int)
	agent  func(w *world)
	quit   func(w *world)
	signal func(w *world, s syscall.Signal)
	resume func(w *world)
	wake   func(w *world)
	// destroy is libvirt's.
	destroy func(w *world) error
	ping    error         // what the agent says
	notice  time.Duration // by libvirt, of the end of the process
	hidden  error         // processes cannot be looked for
	own     string        // what QEMU says of itself, and is asked past libvirt; "" = it is not

	born    time.Time
	mu      sync.Mutex
	domain  hypervisor.Domain
	absent  bool
	away    bool // libvirt
	hung    bool // QEMU, as after SIGSTOP
	gone    chan struct{}
	presses int
	crashed bool // the guest, at some time
	did     []deed
	events  chan hypervisor.Event
	open    int // sessions and processes not closed
}

// deed is something that was done to the instance, and when.
type deed struct {
	what  act
	after time.Duration
}

func (d deed) String() string { return fmt.Sprintf("%s@%s", d.what, d.after) }

func running() *world {
	return &world{born: time.Now(), domain: hypervisor.Domain{Name: "vm", UUID: "u", ID: 3, State: hypervisor.Running, Reason: "booted"},
		ping: hypervisor.ErrUnsupported, gone: make(chan struct{}), events: make(chan hypervisor.Event, 100)}
}

func (w *world) ladder() Ladder {
	l := Ladder{Libvirt: w, Session: func(string) Session { w.mu.Lock(); defer w.mu.Unlock(); w.open++; return fakeSession{w} },
		Find: func(string, string) (Process, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.gone == nil || w.isGone() || w.hidden != nil {
				return nil, w.hidden
			}
			w.open++
			return fakeProcess{w}, nil
		}}
	if w.own != "" {
		l.Status = func(context.Context, string, string) (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.own, nil
		}
	}
	return l
}

// isGone needs mu, or that nobody else is there.
func (w *world) isGone() bool {
	select {
	case <-w.gone:
		return true
	default:
		return false
	}
}

// after does something later.
func (w *world) after(d time.Duration, do func()) {
	time.AfterFunc(d, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		do()
	})
}

// at does something at a time that may be now. It is for the setting up.
func (w *world) at(d time.Duration, do func()) {
	if d == 0 {
		do()
		return
	}
	w.after(d, do)
}

// end ends the process, and libvirt notices. Needs mu.
func (w *world) end(reason string) {
	if w.isGone() {
		return
	}
	close(w.gone)
	w.after(w.notice, func() { w.off(reason) })
}

// off is what libvirt makes of the end. Needs mu.
func (w *world) off(reason string) {
	w.domain.State, w.domain.Reason, w.domain.ID = hypervisor.Shutoff, reason, -1
	w.tell("stopped")
}

func (w *world) set(state hypervisor.State, reason string) {
	w.crashed = w.crashed || state == hypervisor.Crashed || reason == "crashed"
	w.domain.State, w.domain.Reason = state, reason
	w.tell("suspended")
}

func (w *world) tell(action string) {
	select {
	case w.events <- hypervisor.Event{Kind: hypervisor.KindLifecycle, Name: "vm", Action: action}:
	default:
	}
}

func (w *world) Domain(context.Context, string) (hypervisor.Domain, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.away:
		return hypervisor.Domain{}, errAway
	case w.absent:
		return hypervisor.Domain{}, hypervisor.ErrNoDomain
	}
	return w.domain, nil
}

func (w *world) Subscribe(context.Context) <-chan hypervisor.Event { return w.events }

// told notes a deed, and lets the instance react unless it cannot.
func (w *world) told(ctx context.Context, what act, needsQEMU bool, react func() error) error {
	w.mu.Lock()
	w.did = append(w.did, deed{what, time.Since(w.born)})
	switch {
	case needsQEMU && w.away && w.own == "":
		w.mu.Unlock()
		return errAway
	case needsQEMU && w.hung && !w.isGone():
		w.mu.Unlock()
		select { // libvirt waits for QEMU
		case <-ctx.Done():
			return ctx.Err()
		case <-w.gone:
			return errors.New("end of file from the monitor")
		}
	}
	defer w.mu.Unlock()
	return react()
}

func with(w *world, do func(*world)) func() error {
	return func() error {
		if do != nil {
			do(w)
		}
		return nil
	}
}

type fakeSession struct{ w *world }

func (s fakeSession) PingAgent(ctx context.Context) error {
	return s.w.told(ctx, actPing, true, func() error { return s.w.ping })
}

func (s fakeSession) AskAgent(ctx context.Context) error {
	if err := s.w.told(ctx, actAgent, true, with(s.w, s.w.agent)); err != nil {
		return err
	}
	select { // it does not answer where it obeys
	case <-ctx.Done():
		return ctx.Err()
	case <-s.w.gone:
		return nil
	}
}

func (s fakeSession) Press(ctx context.Context) error {
	return s.w.told(ctx, actPress, true, func() error {
		s.w.presses++
		if s.w.press != nil && (s.w.domain.State == hypervisor.Running || s.w.own != "") {
			s.w.press(s.w, s.w.presses)
		}
		return nil
	})
}

func (s fakeSession) Resume(ctx context.Context) error {
	return s.w.told(ctx, actResume, true, with(s.w, s.w.resume))
}

func (s fakeSession) Wakeup(ctx context.Context) error {
	return s.w.told(ctx, actWake, true, with(s.w, s.w.wake))
}

func (s fakeSession) Quit(ctx context.Context) error {
	return s.w.told(ctx, actQuit, true, with(s.w, s.w.quit))
}

func (s fakeSession) Destroy(ctx context.Context) error {
	return s.w.told(ctx, actDestroy, false, func() error {
		if s.w.away {
			return errAway
		}
		if s.w.destroy == nil {
			return nil
		}
		return s.w.destroy(s.w)
	})
}

func (s fakeSession) Close() { s.w.closed() }

func (w *world) closed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open--
}

type fakeProcess struct{ w *world }

func (p fakeProcess) PID() int              { return 4711 }
func (p fakeProcess) Gone() <-chan struct{} { return p.w.gone }
func (p fakeProcess) Close()                { p.w.closed() }

func (p fakeProcess) Signal(sig syscall.Signal) error {
	what := map[syscall.Signal]act{syscall.SIGTERM: actTerm, syscall.SIGKILL: actKill}[sig]
	return p.w.told(context.Background(), what, false, func() error {
		switch {
		case p.w.signal != nil:
			p.w.signal(p.w, sig)
		case sig == syscall.SIGKILL || !p.w.hung:
			p.w.end("crashed")
		}
		return nil
	})
}

// acts gives what was done, in order, and when.
func (w *world) acts() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.did {
		out = append(out, d.String())
	}
	return out
}

func (w *world) wantClosed(t testing.TB) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != 0 {
		t.Errorf("%d sessions and processes were not closed", w.open)
	}
}

// obeys is a guest that powers off some time after it was told.
func obeys(after time.Duration) func(*world) {
	return func(w *world) { w.after(after, func() { w.end("shutdown") }) }
}
