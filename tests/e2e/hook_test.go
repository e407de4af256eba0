//go:build lab

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// cleaned waits until what was owed to an instance that ended is done.
func (s *stopped) cleaned(login bool) {
	s.Helper()
	s.must(harness.Until(s.ctx, s.name+" to be cleaned up after", func(context.Context) error {
		keeps := slices.ContainsFunc(s.logins(s.on), func(l string) bool { return strings.Contains(l, s.name) })
		if !s.record("power_state: stopped") || keeps != login {
			return fmt.Errorf("the record says stopped: %v, the login is there: %v", s.record("power_state: stopped"), keeps)
		}
		return nil
	}))
}

// An instance that ends by itself, or by virsh, is cleaned up after: by the
// agent, or without it from the record. Libvirt is not kept waiting.
func TestHook(t *testing.T) {
	w := begin(t)
	d := w.falls()
	s := w.toStop("vm").start()
	w.exec(w.a, "virsh", "-q", "shutdown", "--mode", "acpi", s.name)
	s.cleaned(false)

	s.start()
	w.must(w.a.Agent(w.ctx, "kill"))
	s.within(10*time.Second, "virsh destroy without an agent", func() { w.exec(w.a, "virsh", "-q", "destroy", s.name) })
	s.cleaned(true) // libvirt keeps the login, and its hook does not ask libvirt
	w.must(w.a.Agent(w.ctx, "start"))
	s.cleaned(false)
	s.leftNothing()

	s.start()
	w.exec(w.a, "sh", "-c", "kill -STOP $(cat /run/lab-agent.pid)")
	s.within(10*time.Second, "virsh destroy with an agent that hangs", func() { w.exec(w.a, "virsh", "-q", "destroy", s.name) })
	s.cleaned(true)
	d.restored()
	s.cleaned(false)
	s.leftNothing()
	s.start() // what cleaned up did so once, and stands in nobody's way
	// A word of an earlier end that comes late, without the agent and with it.
	s.within(10*time.Second, "a clean-up that comes late", func() {
		w.exec(w.a, "wherry", "hook", "--clean", "--", "default", s.name, s.uuid, "1s")
	})
	w.must(w.a.api.Hook(w.ctx, api.HookRequest{Name: s.name, UUID: s.uuid, Operation: "release", Called: api.Duration(time.Second)}))
	s.runsOn()
	if keeps := slices.ContainsFunc(s.logins(s.on), func(l string) bool { return strings.Contains(l, s.name) }); !keeps || !s.record("power_state: running") {
		t.Errorf("what runs again has its login: %v, its record says so: %v", keeps, s.record("power_state: running"))
	}
}
