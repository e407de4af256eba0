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

// end is how a fault in the switchover may end: for each there is one only.
type end string

const (
	stays end = "it runs at the source, and the operation has failed"
	moves end = "it runs at the destination, and the operation has succeeded"
	// The guest was handed over, and its QEMU at the destination was killed.
	movesOff end = "it is shut off at the destination with all that it wrote, and the operation has succeeded"
	// Libvirt has left the source's copy paused, and nobody can know whether the
	// other one has run.
	pausedAtSource end = "a decision is needed: it is paused at the source, and not at the destination"
)

// fault is what happens while the message is held back. What it does not lose on
// its way goes on when strike is over.
type fault struct {
	name   string
	strike func(*crossing)
	// mend puts right what waits until the agents have noticed.
	mend func(*crossing)
}

var faults = []fault{
	{"link cut", (*crossing).cutLink, (*crossing).joinLink},
	{"source agent killed", func(c *crossing) { c.killAgent(c.a) }, nil},
	{"destination agent killed", func(c *crossing) { c.killAgent(c.b) }, nil},
	{"source libvirtd killed", func(c *crossing) { c.killLibvirtd(c.a) }, nil},
	{"destination libvirtd killed", func(c *crossing) { c.killLibvirtd(c.b) }, nil},
	{"source QEMU killed", func(c *crossing) { c.endQEMU(c.a) }, nil},
	{"destination QEMU killed", func(c *crossing) { c.endQEMU(c.b) }, nil},
}

// crossing is one migration with one fault.
type crossing struct {
	*strait
	name  string
	id    string
	at    narrow
	watch *watcher
	join  func()
}

// The window between "memory is done" and "confirmed", first part: the guest does
// not run at the destination yet.
func TestFaultBeforeTheGuestIsStarted(t *testing.T) {
	crossings(t, beforeFinish, []end{stays, moves, moves, pausedAtSource, stays, moves, stays})
}

// Second part: it runs there, and the source's libvirt has not heard. It would start
// the source's copy again, and cannot.
func TestFaultBeforeTheSourceHears(t *testing.T) {
	crossings(t, beforeAnswer, []end{moves, moves, moves, moves, moves, moves, movesOff})
}

// Third part: libvirt is done, and the agents have not told each other.
func TestFaultBeforeTheDestinationConfirms(t *testing.T) {
	crossings(t, beforeCommit, []end{moves, moves, moves, moves, moves, moves, movesOff})
}

// agentsInTheStrait shorten the waits that are there for slower hosts.
var agentsInTheStrait = []string{"WHERRY_MIGRATION_DECISION_TIMEOUT=20s"}

// crossings has the faults, the first of them, each end as is said.
func crossings(t *testing.T, at narrow, ends []end) {
	w := begin(t)
	w.atMost(8 * testTime)
	s := w.strait(w.b)
	w.agentWith(w.a, agentsInTheStrait...)
	w.agentWith(w.b, s.environment(w.b)...)
	for n, want := range ends {
		f := faults[n]
		t.Run(f.name, func(t *testing.T) {
			inner := begin(t)
			inner.atMost(2 * testTime) // for some boot twice
			c := &crossing{strait: s, at: at}
			s.world = inner
			c.cross(f, want)
		})
	}
}

func (s *strait) environment(on *side) []string {
	if on.Name == "a" {
		return agentsInTheStrait
	}
	return append([]string{"WHERRY_MIGRATION_LIBVIRT_URI=" + s.libvirt}, agentsInTheStrait...)
}

// cross has the fault happen, and judges the course and the end.
func (c *crossing) cross(f fault, want end) {
	c.Helper()
	c.name = c.unique("vm")
	if f.mend != nil && c.at != beforeCommit {
		c.impatient()
	}
	c.heavy(c.a, c.name, mib)
	confirmed := c.confirmed.Load()
	c.watch = c.strait.watch(c.name, func() bool { return c.confirmed.Load() > confirmed })
	h := c.hold(c.at)
	c.Cleanup(h.release)
	c.id = c.begun(c.a, c.name, api.MigrateRequest{Destination: c.agent})
	select {
	case <-h.reached:
	case <-c.ctx.Done():
		c.Fatalf("it was never there: %s", c.at)
	}
	began := time.Now()
	f.strike(c)
	if c.at != beforeFinish || c.join == nil { // which a cut link loses
		h.release()
	}
	if f.mend != nil {
		f.mend(c)
	}
	op := c.wait(c.a, c.id)
	c.Logf("%s; %s: after %s it is %s: %s", c.at, f.name, time.Since(began).Round(time.Millisecond), op.Status, describe(op.Error))
	c.ended(op, want)
}

// ended wants the operation to have ended like that, truly.
func (c *crossing) ended(op api.Operation, want end) {
	c.Helper()
	status := map[end]string{stays: api.StatusFailed, moves: api.StatusSucceeded, movesOff: api.StatusSucceeded,
		pausedAtSource: api.StatusNeedsDecision}[want]
	if op.Status != status {
		c.Fatalf("the operation ended as %s: %s; want that %s", op.Status, describe(op.Error), want)
	}
	switch want {
	case stays:
		c.stayed(c.name, c.a, c.id)
		c.noQEMU(c.b, c.name)
		c.exists(c.a, c.name+".qcow2", true)
	case moves:
		c.alive(c.name, c.b)
		c.clean(c.name, c.a)
		c.noQEMU(c.a, c.name)
	case movesOff:
		c.restarted()
		c.clean(c.name, c.a)
		c.noQEMU(c.a, c.name)
	case pausedAtSource:
		c.undecided(op, "paused", "absent")
		c.watch.judge()
		c.choose(op, api.SideSource) // the only one that there is
	}
	c.watch.stop()
	c.watch.judge()
}

// undecided wants both sides' facts, two commands, and nothing destroyed.
func (c *crossing) undecided(op api.Operation, source, destination string) {
	c.Helper()
	if len(op.Error.Sides) != 2 || len(op.Error.Commands) != 2 {
		c.Fatalf("error %s; want both sides' facts and two commands", describe(op.Error))
	}
	for n, want := range []string{source, destination} {
		f := op.Error.Sides[n]
		if f.State != want || f.SeenAt == nil || len(f.Volumes) != 1 || !f.Volumes[0].Present || (f.Process == "runs") != (want != "absent") {
			c.Errorf("the %s is %+v; want it %s, and its volume there", f.Side, f, want)
		}
		s := c.sides()[n]
		c.exists(s, c.name+".qcow2", true)
		state, err := s.State(c.ctx, c.name)
		if err != nil || state != strings.TrimPrefix(want, "absent") {
			c.Errorf("on host %s it is %q (%v); want %s", s.Name, state, err, want)
		}
	}
}

// choose settles it as a person would.
func (c *crossing) choose(op api.Operation, keep string) {
	c.Helper()
	n, winner, loser := 0, c.a, c.b
	if keep == api.SideDestination {
		n, winner, loser = 1, c.b, c.a
	}
	if out, err := c.command(c.a, op.Error.Commands[n]); err != nil {
		c.Fatalf("%s: %v: %s", op.Error.Commands[n], err, out)
	}
	c.alive(c.name, winner)
	c.clean(c.name, loser)
	c.noQEMU(loser, c.name)
}

// restarted wants the instance shut off at the destination, and to find all that
// it wrote when its agent starts it.
func (c *crossing) restarted() {
	c.Helper()
	if state, err := c.b.State(c.ctx, c.name); err != nil || state != "shut off" {
		c.Fatalf("it is %q at the destination (%v); want it shut off", state, err)
	}
	op, err := c.b.api.Start(c.ctx, ref(c.name), "")
	c.run(c.b, op, err)
	guest := c.lab.Guest(c.name)
	last, err := guest.LastBlock(c.ctx, c.b.Host, "vda")
	c.must(err)
	atSource, err := guest.LastBlock(c.ctx, c.a.Host, "vda")
	c.must(err)
	c.must(guest.WaitBlock(c.ctx, c.b.Host, "vda", max(last, atSource)+3))
	if _, err := guest.Verify(c.ctx, c.b.Host); err != nil {
		c.Error(err)
	}
	if boots, err := guest.Boots(c.ctx); err != nil || len(boots) != 2 {
		c.Errorf("boots %q, %v; want two", boots, err)
	}
}

// impatient has the source's libvirt find out soon that its peer does not answer.
func (c *crossing) impatient() {
	c.Helper()
	c.cleanup("giving libvirt its patience back", func(ctx context.Context) error {
		_, err := c.a.Exec(ctx, "sed", "-i", "/^keepalive_/d", "/etc/libvirt/qemu.conf")
		return errors.Join(err, c.a.Libvirtd(ctx, "restart"))
	})
	c.exec(c.a, "sh", "-c", `printf 'keepalive_interval = 2\nkeepalive_count = 3\n' >>/etc/libvirt/qemu.conf`)
	c.must(c.a.Libvirtd(c.ctx, "restart"))
	c.libvirtUp(c.a, 1)
}

// cutLink loses what is on its way, and what would be sent.
func (c *crossing) cutLink() { c.Helper(); c.join = c.cut(c.b) }

// joinLink joins it when the source's libvirt has given up, and could not start its
// copy again.
func (c *crossing) joinLink() {
	c.Helper()
	if c.at != beforeCommit {
		c.must(harness.Until(c.ctx, "libvirt to have failed to start the source's copy", func(ctx context.Context) error {
			state, err := c.a.Virsh(ctx, "domstate", "--reason", c.name)
			if err == nil && state != "paused (api error)" {
				err = fmt.Errorf("it is %q", state)
			}
			return err
		}))
	}
	c.join()
}

func (c *crossing) killAgent(on *side) {
	c.Helper()
	environment := c.environment(on)
	c.cleanup("starting the agent", func(ctx context.Context) error { return on.Agent(ctx, "start", environment...) })
	c.must(on.KillAgent(c.ctx))
	c.must(on.Agent(c.ctx, "start", environment...))
}

func (c *crossing) killLibvirtd(on *side) {
	c.Helper()
	c.cleanup("starting libvirtd", func(ctx context.Context) error { return on.Libvirtd(ctx, "start") })
	c.must(on.Libvirtd(c.ctx, "kill"))
	c.must(on.Libvirtd(c.ctx, "start"))
}

// endQEMU kills a QEMU. Once libvirt is done there is none at the source.
func (c *crossing) endQEMU(on *side) {
	c.Helper()
	if c.at == beforeCommit && on == c.a {
		c.noQEMU(on, c.name)
		return
	}
	c.killQEMU(on, c.name)
}
