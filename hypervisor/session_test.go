package hypervisor

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
)

func testSession(t *testing.T) (*Client, *Session) {
	t.Helper()
	c := New(Options{URI: "test:///default", Log: slog.New(slog.DiscardHandler), KeepAlive: KeepAlive{Interval: time.Second, Count: 1}})
	return c, c.Session("test")
}

// emptied waits until nothing of libvirt is held any more.
func emptied(t *testing.T, c *Client) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for c.Handles() != 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d handles are left", c.Handles())
		}
	}
}

// What is asked reaches the domain without the client's own connection.
func TestSession(t *testing.T) {
	c, s := testSession(t)
	state := func() (got libvirt.DomainState) {
		t.Helper()
		err := s.monitor.ask(t.Context(), "look at", func(d *libvirt.Domain) (err error) {
			got, _, err = d.GetState()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err := s.monitor.ask(t.Context(), "suspend", (*libvirt.Domain).Suspend); err != nil {
		t.Fatal(err)
	}
	if err := s.Resume(t.Context()); err != nil || state() != libvirt.DOMAIN_RUNNING {
		t.Errorf("resumed: %v, error %v", state(), err)
	}
	for what, err := range map[string]error{"agent": s.PingAgent(t.Context()), "wake": s.Wakeup(t.Context()), "quit": s.Quit(t.Context())} {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s on the test driver: %v", what, err)
		}
	}
	for range 2 { // the second finds it stopped
		if err := s.Destroy(t.Context()); err != nil || state() != libvirt.DOMAIN_SHUTOFF {
			t.Errorf("destroyed: %v, error %v", state(), err)
		}
	}
	if err := s.Press(t.Context()); err == nil {
		t.Error("the button of what does not run was pressed")
	}
	s.Close()
	if err := s.Resume(t.Context()); !errors.Is(err, ErrDown) {
		t.Errorf("after Close: %v", err)
	}
	emptied(t, c)
}

func TestSessionOfNoDomain(t *testing.T) {
	c, _ := testSession(t)
	s := c.Session("nope")
	defer s.Close()
	if err := s.Resume(t.Context()); !errors.Is(err, ErrNoDomain) {
		t.Errorf("error %v", err)
	}
}

// A call that hangs in one domain holds up no other session, gathers no second
// call behind itself, and keeps its connection until it comes back.
func TestSessionHangs(t *testing.T) {
	c, s := testSession(t)
	entered, release := make(chan struct{}), make(chan struct{})
	ctx, giveUp := context.WithCancelCause(t.Context())
	why := errors.New("gave up")
	go func() { <-entered; giveUp(why) }()
	err := s.monitor.ask(ctx, "hang", func(*libvirt.Domain) error { close(entered); <-release; return nil })
	if !errors.Is(err, why) {
		t.Fatalf("error %v; want the reason for giving up", err)
	}
	if err := s.Resume(t.Context()); !errors.Is(err, ErrPending) {
		t.Errorf("while another hangs: %v", err)
	}
	if err := s.PingAgent(t.Context()); !errors.Is(err, ErrUnsupported) {
		t.Errorf("the agent, while the monitor hangs: %v", err)
	}
	other := c.Session("test")
	if err := other.monitor.ask(t.Context(), "look at", func(d *libvirt.Domain) error { _, err := d.GetID(); return err }); err != nil {
		t.Errorf("another session: %v", err)
	}
	other.Close()
	if err := s.Destroy(t.Context()); err != nil {
		t.Errorf("destroying past what hangs: %v", err)
	}
	s.Close()
	if c.Handles() == 0 {
		t.Error("the connection was closed under the call")
	}
	close(release)
	emptied(t, c)
}

// A connection that was lost is made again.
func TestSessionReconnects(t *testing.T) {
	c, s := testSession(t)
	look := func() error {
		return s.monitor.ask(t.Context(), "look at", func(d *libvirt.Domain) error { _, err := d.GetID(); return err })
	}
	if err := look(); err != nil {
		t.Fatal(err)
	}
	first := s.monitor.link
	first.markLost()
	if err := look(); err != nil || s.monitor.link == first {
		t.Errorf("error %v, the same connection: %v", err, s.monitor.link == first)
	}
	s.Close()
	emptied(t, c)
}

// What its definition would start again, told to stop, is off when it obeys. The
// next start finds the definition as it was.
func TestStayOff(t *testing.T) {
	c, s := testSession(t)
	defer emptied(t, c)
	defer s.Close()
	for _, row := range []struct{ defined, want string }{{"restart", "destroy"}, {"destroy", "destroy"}} {
		err := s.monitor.ask(t.Context(), "define", func(d *libvirt.Domain) error {
			conn, err := d.DomainGetConnect()
			if err != nil {
				return err
			}
			defer conn.Close() //nolint:errcheck // a reference
			n, err := conn.DomainDefineXML(`<domain type='test'><name>off-` + row.defined + `</name><memory>1024</memory><os><type>hvm</type></os>
				<on_poweroff>` + row.defined + `</on_poweroff></domain>`)
			if err != nil {
				return err
			}
			defer n.Free() //nolint:errcheck // a reference
			if err := errors.Join(n.Create(), stayOff(n)); err != nil {
				return err
			}
			live, errLive := n.GetXMLDesc(0)
			next, errNext := n.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
			if !strings.Contains(live, "<on_poweroff>"+row.want+"<") || !strings.Contains(next, "<on_poweroff>"+row.defined+"<") {
				t.Errorf("defined to %s: now\n%s\nat the next start\n%s", row.defined, live, next)
			}
			return errors.Join(errLive, errNext, n.Destroy())
		})
		if err != nil {
			t.Error(err)
		}
	}
}
