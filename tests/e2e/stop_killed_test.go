//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// resumed starts the agent again and gives how the operation ended.
func (s *stopped) resumed(id string) api.Operation {
	s.Helper()
	s.must(s.on.Agent(s.ctx, "start"))
	return s.wait(s.on, id)
}

// The agent dies while the guest takes its time to shut down, and the next one
// finishes the stop: the guest, down meanwhile or not, is not stopped again.
func TestAgentKilledWhileAGuestShutsDown(t *testing.T) {
	for name, waits := range map[string]bool{"and is back before the guest is down": false, "and is back after": true} {
		t.Run(name, func(t *testing.T) {
			s := begin(t).toStop("vm", options("wherry.slow=4s")).start()
			id := s.stopping(api.StopRequest{})
			s.line("POWEROFF in 4s")
			s.kill(s.on)
			if waits {
				s.line("POWEROFF")
				s.must(harness.Until(s.ctx, "the instance to be off", func(ctx context.Context) error {
					state, err := s.on.State(ctx, s.name)
					if err == nil && state != "shut off" {
						err = errors.New(state)
					}
					return err
				}))
			}
			if op := s.resumed(id); op.Status != api.StatusSucceeded {
				t.Errorf("operation %s: %s", op.Status, describe(op.Error))
			}
			s.down(true)
		})
	}
}

// It dies on every rung of a forced stop.
func TestAgentKilledWhileItForces(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 6 * time.Second} { // told to quit; told to end
		t.Run(after.String(), func(t *testing.T) {
			s := begin(t).toStop("vm").start()
			s.must(s.signal(s.ctx, "STOP"))
			id := s.stopping(api.StopRequest{Force: true})
			began := time.Now()
			s.must(harness.Until(s.ctx, "the moment", func(context.Context) error {
				if left := after - time.Since(began); left > 0 {
					return fmt.Errorf("%s are left", left)
				}
				return nil
			}))
			s.kill(s.on)
			s.result(s.resumed(id), api.RungKill)
			s.down(false)
		})
	}
}

// freeze keeps libvirt from answering, until the test ends or the function is
// called that it gives.
func (s *stopped) freeze() (thaw func()) {
	s.Helper()
	libvirtd := strings.TrimSpace(s.exec(s.on, "cat", "/run/lab-libvirtd.pid"))
	signal := func(ctx context.Context, what string) error {
		_, err := s.on.Exec(ctx, "kill", what, libvirtd)
		return err
	}
	s.cleanup("letting libvirtd go on", func(ctx context.Context) error { return signal(ctx, "-CONT") })
	s.must(signal(s.ctx, "-STOP"))
	return func() { s.Helper(); s.must(signal(s.ctx, "-CONT")) }
}

// Libvirt answers nothing, and the instance is stopped without it, by force.
// What libvirt is needed for stays owed, is said, and is done once it answers.
func TestStopWithoutLibvirt(t *testing.T) {
	s := begin(t).toStop("vm").start()
	thaw := s.freeze()
	op := s.fails(s.stopping(api.StopRequest{Force: true}), "internal")
	if !strings.Contains(op.Error.Detail, "is down (sigterm)") || !strings.Contains(op.Error.Detail, s.name) || op.Error.Hint == "" {
		t.Errorf("problem %s; want what was done, what was not, and what comes next", describe(op.Error))
	}
	thaw()
	s.must(harness.Until(s.ctx, "what is owed to be done", func(ctx context.Context) error {
		out, err := s.on.Exec(ctx, "sh", "-c", "find /var/lib/wherry/cleanup -type f")
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	}))
	s.down(false)
}

// The store is lost with the agent: what is owed is in a file of its own.
func TestStoreLostInTheMiddleOfAStop(t *testing.T) {
	s := begin(t).toStop("vm", options("wherry.slow=3s")).start()
	s.stopping(api.StopRequest{})
	s.line("POWEROFF in 3s")
	s.kill(s.on)
	s.exec(s.on, "rm", "/var/lib/wherry/wherry.db")
	s.line("POWEROFF")
	s.must(harness.Until(s.ctx, "the process to end", func(ctx context.Context) error {
		out, err := s.on.Exec(ctx, "sh", "-c", `pgrep -f -- "-uuid $0" || true`, s.uuid)
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New("it lives")
		}
		return err
	}))
	s.must(s.on.Agent(s.ctx, "start"))
	s.must(harness.Until(s.ctx, "what is owed to be done", func(ctx context.Context) error {
		out, err := s.on.Exec(ctx, "sh", "-c", "find /var/lib/wherry/cleanup -type f")
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	}))
	s.down(true)
}
