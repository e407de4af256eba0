//go:build lab

package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// One deadline holds for all, and each instance has its own within it, by what
// its record says: who is to be cut is not asked, who does not obey is cut when
// its time is over, and nobody after it goes short.
func TestShutdownKeepsToThePolicies(t *testing.T) {
	w := begin(t)
	d := w.falls()
	deaf := d.guest("deaf", api.StopPolicy{Priority: 1, Timeout: api.Duration(10 * time.Minute)}, options("wherry.deaf=-1"))
	brief := d.guest("brief", api.StopPolicy{Priority: 1, Timeout: seconds(4)}, options("wherry.deaf=-1"))
	cut := d.guest("cut", api.StopPolicy{Priority: 1, Action: api.StopForce})
	last := d.guest("last", api.StopPolicy{})
	d.boot()
	w.must(w.a.Agent(w.ctx, "kill"))
	r, _ := d.command("--timeout", "45s")
	// Some of the time went into finding out that there is no agent.
	if whole := r.Deadline.Sub(r.Began); whole > 45*time.Second || whole < 35*time.Second {
		t.Errorf("the deadline is %s after the beginning; want what is left of the 45 s", whole)
	}
	rungs := func(s *stopped) (out []string) {
		for _, rung := range d.outcome(r, s).Rungs {
			out = append(out, rung.Rung)
		}
		return out
	}
	for s, want := range map[*stopped][]string{deaf: {api.RungACPI, api.RungQuit}, brief: {api.RungACPI, api.RungQuit}, cut: {api.RungQuit}, last: {api.RungACPI}} {
		if o := d.outcome(r, s); o.Outcome != api.ShutdownStopped || !slices.Equal(rungs(s), want) {
			t.Errorf("%+v; want it stopped by %q", o, want)
		}
	}
	// Those of the higher priority share the time with the last one.
	if took := d.outcome(r, deaf).Took.Std(); took < 10*time.Second || took > 40*time.Second {
		t.Errorf("who is deaf was waited for %s; want its share of the 45 s", took)
	}
	if took := d.outcome(r, brief).Took.Std(); took < 4*time.Second || took >= d.outcome(r, deaf).Took.Std() {
		t.Errorf("who wants 4 s was waited for %s", took)
	}
	d.restored()
	for _, s := range []*stopped{deaf, brief, cut} {
		s.boot = "" // no end in order
	}
	d.endedInOrder()
}

// The operator was stopping one when the agent died and the host went down: it
// is not started again with the others.
func TestShutdownLeavesStoppedWhatTheOperatorStops(t *testing.T) {
	w := begin(t)
	d := w.falls()
	leaving := d.guest("leaving", api.StopPolicy{}, options("wherry.slow=8s"))
	stays := d.guest("stays", api.StopPolicy{})
	d.boot()
	id := leaving.stopping(api.StopRequest{})
	leaving.line("POWEROFF in 8s")
	w.must(w.a.Agent(w.ctx, "kill"))
	r, _ := d.command("--timeout", "60s")
	d.asked(r, "command")
	if !leaving.record("power_state: stopped") || !stays.record("power_state: running") {
		t.Errorf("the records do not say what is to run:\n%s\n%s", w.recorded(w.a, leaving.name), w.recorded(w.a, stays.name))
	}
	for _, s := range d.all {
		s.untarget()
	}
	w.agentWith(w.a, "WHERRY_HOST_START_AGAIN=true")
	w.must(harness.Until(w.ctx, "the other one to run again", func(ctx context.Context) error {
		state, err := w.a.State(ctx, stays.name)
		if err == nil && state != "running" {
			err = errors.New(state)
		}
		return err
	}))
	if op := w.wait(w.a, id); op.Status != api.StatusSucceeded {
		t.Errorf("the operator's stop ended as %s: %s", op.Status, describe(op.Error))
	}
	d.inOrder(leaving)
	if !leaving.record("power_state: stopped") {
		t.Error("the record of what the operator stopped does not say so any more")
	}
}

// Guests that cannot be asked as they are: one that suspended itself is woken,
// one that an operator paused goes on, and one that crashed, and is kept, is
// cut. QEMU's own word does where libvirt is not there.
func TestShutdownOfGuestsThatAreNotUp(t *testing.T) {
	for name, c := range map[string]struct{ dead, cut string }{
		"libvirt there": {cut: api.RungQuit},
		"libvirt dead":  {dead: "libvirtd", cut: api.RungTerm},
	} {
		t.Run(name, func(t *testing.T) {
			w := begin(t)
			d := w.falls()
			crashed := d.toStop("crashed", extra("<panic model='isa'/>"))
			w.exec(w.a, "sh", "-c", `virsh dumpxml --inactive "$0" | sed 's|<on_crash>.*</on_crash>|<on_crash>preserve</on_crash>|' | virsh -q define /dev/stdin`, crashed.name)
			w.exec(w.a, "virsh", "-q", "start", crashed.name)
			asleep, paused := d.guest("asleep", api.StopPolicy{}), d.guest("paused", api.StopPolicy{})
			d.boot()
			// The guest's drivers say so by these ports of the machine: pvpanic's, and
			// sleep state 3 into the power management's control register.
			w.exec(w.a, "virsh", "-q", "qemu-monitor-command", "--hmp", crashed.name, "o /b 0x505 1")
			w.exec(w.a, "virsh", "-q", "qemu-monitor-command", "--hmp", asleep.name, "o /h 0x604 0x2400")
			w.exec(w.a, "virsh", "-q", "suspend", paused.name)
			for s, want := range map[*stopped]string{crashed: "crashed", asleep: "pmsuspended", paused: "paused"} {
				w.must(harness.Until(w.ctx, s.name+" to be "+want, func(ctx context.Context) error {
					state, err := w.a.State(ctx, s.name)
					if err == nil && state != want {
						err = errors.New(state)
					}
					return err
				}))
			}
			w.must(w.a.Agent(w.ctx, "kill"))
			if c.dead != "" {
				w.must(w.a.Libvirtd(w.ctx, "kill"))
			}
			r, _ := d.command("--timeout", "90s")
			d.asked(r, "command")
			if o := d.outcome(r, crashed); o.Outcome != api.ShutdownStopped || o.Rung != c.cut || strings.Contains(o.Error, "timeout") {
				t.Errorf("%+v; want it cut by %q", o, c.cut)
			}
			// It was woken with nothing to go on with, and booted anew.
			console, err := asleep.guest.Console(w.ctx, w.a.Host)
			w.must(err)
			boots := console.Boots()
			asleep.boot = boots[len(boots)-1]
			d.restored()
			d.endedInOrder()
			if state, err := w.a.State(w.ctx, crashed.name); err != nil || state != "shut off" {
				t.Errorf("what had crashed is %q (%v)", state, err)
			}
		})
	}
}
