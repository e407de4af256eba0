package hypervisor

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
)

func testLink(t *testing.T, handles *atomic.Int64) *link {
	t.Helper()
	l, err := dialLink("test:///default", KeepAlive{Interval: time.Second, Count: 1}, slog.New(slog.DiscardHandler), handles)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A call that its caller gave up on may still be inside libvirt: the connection
// must outlive it, and close when it returns.
func TestAbandonedCallKeepsItsConnection(t *testing.T) {
	var handles atomic.Int64
	l := testLink(t, &handles)
	entered, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("gave up")
	go func() { <-entered; cancel(why) }()
	_, err := do(ctx, l, "hang on", "vm", func(l *link) (none, error) {
		d, free, err := l.domain("test")
		if err != nil {
			return none{}, err
		}
		defer free()
		close(entered)
		<-release
		_, err = d.GetName()
		return none{}, err
	})
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	l.close()
	select {
	case <-l.closedCh:
		t.Error("closed under the call")
	default:
	}
	if _, err := do(t.Context(), l, "call", "", func(*link) (none, error) { return none{}, nil }); !errors.Is(err, ErrDown) {
		t.Errorf("call on a closing connection: %v", err)
	}
	close(release)
	<-l.closedCh
	if n := handles.Load(); n != 0 {
		t.Errorf("%d handles", n)
	}
}

func TestCallsAreBounded(t *testing.T) {
	var handles atomic.Int64
	l := testLink(t, &handles)
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{}, maxCalls)
	for range maxCalls {
		go func() {
			_, _ = do(ctx, l, "hang", "", func(*link) (none, error) { started <- struct{}{}; <-release; return none{}, nil })
		}()
	}
	for range maxCalls {
		<-started
	}
	cancel() // the callers leave, the calls stay
	short, end := context.WithTimeout(t.Context(), time.Millisecond)
	defer end()
	if _, err := do(short, l, "one more", "", func(*link) (none, error) { return none{}, nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one call more than the bound: %v", err)
	}
	l.markLost()
	if _, err := do(t.Context(), l, "one more", "", func(*link) (none, error) { return none{}, nil }); !errors.Is(err, ErrDown) {
		t.Errorf("while waiting for a lost connection: %v", err)
	}
	close(release)
	l.close()
	<-l.closedCh
}

func TestErrorWords(t *testing.T) {
	inner := libvirt.Error{Code: libvirt.ERR_NO_DOMAIN, Message: "Domain not found: no domain 'vm'"}
	err := wrap("start", "vm", inner)
	if got, want := err.Error(), `start "vm": Domain not found: no domain 'vm'`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(err, ErrNoDomain) || !errors.Is(err, libvirt.ERR_NO_DOMAIN) {
		t.Error("lost what it is")
	}
	if wrap("start", "vm", err) != err { //nolint:errorlint // the very same
		t.Error("said twice")
	}
	broken := wrap("start", "vm", brokenError{libvirt.Error{Code: libvirt.ERR_INTERNAL_ERROR, Message: "client socket is closed"}})
	if got, want := broken.Error(), `start "vm": libvirt is not connected: client socket is closed`; got != want || !errors.Is(broken, ErrDown) {
		t.Errorf("%q, want %q", got, want)
	}
	for code, want := range map[libvirt.ErrorNumber]error{
		libvirt.ERR_OPERATION_INVALID: ErrInvalidState, libvirt.ERR_OPERATION_TIMEOUT: ErrBusy, libvirt.ERR_OPERATION_ABORTED: ErrAborted,
		libvirt.ERR_MIGRATE_PERSIST_FAILED: ErrNotPersisted, libvirt.ERR_AGENT_UNRESPONSIVE: ErrAgent, libvirt.ERR_NO_SUPPORT: ErrUnsupported,
	} {
		if err := wrap("x", "", libvirt.Error{Code: code}); !errors.Is(err, want) {
			t.Errorf("code %d is not %q", code, want)
		}
	}
	if wrap("start", "vm", nil) != nil {
		t.Error("an error out of nothing")
	}
}

func TestBackoff(t *testing.T) {
	last := time.Duration(0)
	for n := range 100 {
		d := backoff(n)
		if d < last || d <= 0 || d > 10*time.Second {
			t.Fatalf("attempt %d waits %v after %v", n, d, last)
		}
		last = d
	}
	if backoff(0) > time.Second || last != 10*time.Second {
		t.Errorf("from %v to %v", backoff(0), last)
	}
}

func TestVersionText(t *testing.T) {
	if got := versionText(10_002_013); got != "10.2.13" {
		t.Error(got)
	}
}

// The words of states and events are tables whose index is libvirt's number.
func TestWordsMatchLibvirtsNumbers(t *testing.T) {
	for _, tc := range []struct {
		state  libvirt.DomainState
		reason int
		want   string
	}{
		{libvirt.DOMAIN_RUNNING, int(libvirt.DOMAIN_RUNNING_BOOTED), "booted"},
		{libvirt.DOMAIN_RUNNING, int(libvirt.DOMAIN_RUNNING_MIGRATED), "migrated"},
		{libvirt.DOMAIN_RUNNING, int(libvirt.DOMAIN_RUNNING_POSTCOPY_FAILED), "postcopy-failed"},
		{libvirt.DOMAIN_PAUSED, int(libvirt.DOMAIN_PAUSED_MIGRATION), "migration"},
		{libvirt.DOMAIN_PAUSED, int(libvirt.DOMAIN_PAUSED_IOERROR), "ioerror"},
		{libvirt.DOMAIN_PAUSED, int(libvirt.DOMAIN_PAUSED_STARTING_UP), "starting-up"},
		{libvirt.DOMAIN_PAUSED, int(libvirt.DOMAIN_PAUSED_API_ERROR), "api-error"},
		{libvirt.DOMAIN_SHUTOFF, int(libvirt.DOMAIN_SHUTOFF_MIGRATED), "migrated"},
		{libvirt.DOMAIN_SHUTOFF, int(libvirt.DOMAIN_SHUTOFF_DAEMON), "daemon"},
		{libvirt.DOMAIN_CRASHED, int(libvirt.DOMAIN_CRASHED_PANICKED), "panicked"},
		{libvirt.DOMAIN_RUNNING, 99, "99"},
	} {
		if got := reasonOf(tc.state, tc.reason); got != tc.want {
			t.Errorf("state %d reason %d: %q, want %q", tc.state, tc.reason, got, tc.want)
		}
	}
	for _, tc := range []struct {
		event        libvirt.DomainEventType
		detail       int
		action, want string
	}{
		{libvirt.DOMAIN_EVENT_STARTED, int(libvirt.DOMAIN_EVENT_STARTED_MIGRATED), "started", "migrated"},
		{libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_DESTROYED), "stopped", "destroyed"},
		{libvirt.DOMAIN_EVENT_STOPPED, int(libvirt.DOMAIN_EVENT_STOPPED_MIGRATED), "stopped", "migrated"},
		{libvirt.DOMAIN_EVENT_SUSPENDED, int(libvirt.DOMAIN_EVENT_SUSPENDED_POSTCOPY), "suspended", "postcopy"},
		{libvirt.DOMAIN_EVENT_RESUMED, int(libvirt.DOMAIN_EVENT_RESUMED_UNPAUSED), "resumed", "unpaused"},
		{libvirt.DOMAIN_EVENT_UNDEFINED, int(libvirt.DOMAIN_EVENT_UNDEFINED_REMOVED), "undefined", "removed"},
		{libvirt.DOMAIN_EVENT_CRASHED, int(libvirt.DOMAIN_EVENT_CRASHED_PANICKED), "crashed", "panicked"},
	} {
		if action, detail := lifecycleText(tc.event, tc.detail); action != tc.action || detail != tc.want {
			t.Errorf("event %d detail %d: %q %q, want %q %q", tc.event, tc.detail, action, detail, tc.action, tc.want)
		}
	}
}

// Calls that hang, as many as the control connection takes, hold up no look.
func TestLooksPassCallsThatHang(t *testing.T) {
	c := New(Options{URI: "test:///default", Log: slog.New(slog.DiscardHandler), KeepAlive: KeepAlive{Interval: time.Second, Count: 1}})
	ctx, stop := context.WithCancel(t.Context())
	up := c.Subscribe(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	<-up
	release := make(chan struct{})
	entered := make(chan struct{}, maxCalls)
	given, giveUp := context.WithCancel(t.Context())
	for range maxCalls {
		go func() {
			_, _ = onControl(given, c, "hang", "", func(*link) (none, error) { entered <- struct{}{}; <-release; return none{}, nil })
		}()
	}
	for range maxCalls {
		<-entered
	}
	if d, err := c.Domain(t.Context(), "test"); err != nil || d.State != Running {
		t.Errorf("a look at one: %+v, error %v", d, err)
	}
	if all, err := c.Domains(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("a look at all: %+v, error %v", all, err)
	}
	// The connection for looks is made anew when it was lost.
	c.kept(&c.looks).markLost()
	if _, err := c.Domain(t.Context(), "test"); err != nil {
		t.Errorf("after it was lost: %v", err)
	}
	giveUp()
	close(release)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	emptied(t, c)
	if _, err := c.Domain(t.Context(), "test"); !errors.Is(err, ErrDown) {
		t.Errorf("after the end: %v", err)
	}
}

// A libvirt that hangs is found by the connection that nobody calls on.
func TestPulse(t *testing.T) {
	c := New(Options{URI: "test:///default", Log: slog.New(slog.DiscardHandler), KeepAlive: KeepAlive{Interval: time.Second, Count: 1}})
	if err := startEventLoop(); err != nil {
		t.Fatal(err)
	}
	l, pulse, err := c.dialBoth()
	if err != nil {
		t.Fatal(err)
	}
	events := c.Subscribe(t.Context())
	held := make(chan struct{})
	go func() { defer close(held); c.hold(t.Context(), l, pulse) }()
	if e := <-events; e.Detail != "up" || !c.Up() {
		t.Errorf("event %+v, up %v", e, c.Up())
	}
	pulse.markLost()
	<-held
	if e := <-events; e.Detail != "down" || c.Up() || !l.isGone() {
		t.Errorf("event %+v, up %v", e, c.Up())
	}
	emptied(t, c)
}
