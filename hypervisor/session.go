package hypervisor

import (
	"context"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
)

// agentPatience is how long libvirt waits for the answer to a ping. Before
// that it finds out whether the agent is there at all, for five seconds of its
// own where the guest holds the port open and says nothing.
const agentPatience = 2 * time.Second

// Session asks one domain's guest and QEMU for what changes its power, on
// connections of its own.
//
// A QEMU that hangs, one stopped by SIGSTOP say, does not answer its monitor,
// and libvirt waits with the caller for as long as that lasts. One connection
// serves five requests at a time, and libvirt as a whole has twenty workers
// (libvirtd.conf: max_client_requests, max_workers). So a session is no other
// domain's, and has one call to the monitor and one to the guest agent under
// way at most: what hangs holds up nothing else, and does not gather calls that
// wait for it. Looking at the domain's state is for the Client, and needs no
// answer of QEMU.
//
// It connects when it is first asked, and again when the connection was lost.
// Methods may be called at the same time, and get ErrPending then.
type Session struct {
	c              *Client
	name           string
	monitor, agent lane
}

// Session opens nothing yet. Close it.
func (c *Client) Session(name string) *Session {
	return &Session{c: c, name: name, monitor: lane{c: c, name: name}, agent: lane{c: c, name: name}}
}

// Press presses the power button and does not wait for what comes of it.
func (s *Session) Press(ctx context.Context) error {
	return s.monitor.ask(ctx, "press the power button of", func(d *libvirt.Domain) error {
		if err := stayOff(d); err != nil {
			return err
		}
		return d.ShutdownFlags(libvirt.DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
	})
}

// PingAgent returns nil when the guest agent answers. A domain without one
// gives ErrUnsupported, an agent that is not running ErrAgent, both at once.
func (s *Session) PingAgent(ctx context.Context) error {
	return s.agent.ask(ctx, "ping the guest agent of", func(d *libvirt.Domain) error {
		_, err := d.QemuAgentCommand(`{"execute":"guest-ping"}`, libvirt.DomainQemuAgentCommandTimeout(agentPatience/time.Second), 0)
		return err
	})
}

// AskAgent asks the guest agent to shut down. The agent answers nothing where
// it obeys (QEMU's guest-shutdown), so libvirt waits for the guest to be down:
// that ctx ended is no sign that the guest does not obey.
func (s *Session) AskAgent(ctx context.Context) error {
	return s.agent.ask(ctx, "ask the guest agent to shut down", func(d *libvirt.Domain) error {
		if err := stayOff(d); err != nil {
			return err
		}
		return d.ShutdownFlags(libvirt.DOMAIN_SHUTDOWN_GUEST_AGENT)
	})
}

// stayOff has a guest that powers off be off, where its definition would have
// libvirt reset it instead (<on_poweroff>restart</on_poweroff>): told to stop, it
// would obey and be back. The definition of the next start keeps its word.
func stayOff(d *libvirt.Domain) error {
	text, err := d.GetXMLDesc(0)
	// Were this found elsewhere in the text, setting what is set would do no harm.
	if err != nil || !strings.Contains(text, "<on_poweroff>restart</on_poweroff>") {
		return err
	}
	return d.SetLifecycleAction(libvirt.DOMAIN_LIFECYCLE_POWEROFF, libvirt.DOMAIN_LIFECYCLE_ACTION_DESTROY, uint32(libvirt.DOMAIN_AFFECT_LIVE))
}

// Resume lets the domain's CPUs run.
func (s *Session) Resume(ctx context.Context) error {
	return s.monitor.ask(ctx, "resume", (*libvirt.Domain).Resume)
}

// Wakeup wakes a guest that was suspended to memory by itself.
func (s *Session) Wakeup(ctx context.Context) error {
	return s.monitor.ask(ctx, "wake", func(d *libvirt.Domain) error { return d.PMWakeup(0) })
}

// Quit tells QEMU to end (QMP quit): it writes its caches back, the guest's are
// lost. QEMU may be gone before its answer is read, which is an error here.
func (s *Session) Quit(ctx context.Context) error {
	return s.monitor.ask(ctx, "quit", func(d *libvirt.Domain) error {
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
	apart := lane{c: s.c, name: s.name}
	defer apart.close()
	return apart.ask(ctx, "destroy", destroy)
}

// Close ends the session, at once or when the calls under way have come back.
func (s *Session) Close() {
	s.monitor.close()
	s.agent.close()
}
