//go:build lab

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// kill ends an agent without a warning, and starts it again at the test's end
// unless the test does.
func (w *world) kill(s *side) {
	w.Helper()
	w.cleanup("starting the agent", func(ctx context.Context) error { return s.Agent(ctx, "start") })
	w.must(s.Agent(w.ctx, "kill"))
}

// The source's agent dies while disks are copied. Libvirt carries on without
// it; the agent that comes back takes the migration up where it is.
func TestSourceAgentKilledWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 32*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	before := w.copying(w.a, id)
	w.kill(w.a)
	w.must(w.a.Agent(w.ctx, "start"))
	after := w.seenOp(w.a, id, "going on", func(op api.Operation) bool {
		return op.Status == api.StatusRunning && op.Progress.BytesDone > before.Progress.BytesDone
	})
	if after.Progress.Percent < before.Progress.Percent {
		t.Errorf("progress %+v after %+v; want no step back", after.Progress, before.Progress)
	}
	w.must(w.a.Rate(w.ctx, "off"))
	// Nobody else may touch the instance meanwhile.
	_, err := w.a.api.Migrate(w.ctx, ref(name), api.MigrateRequest{Destination: w.b.URL()}, "")
	if p := w.problem(err, "busy"); p.Operation != id {
		t.Errorf("%s; want it to name operation %s", describe(p), id)
	}
	result := w.moved(name, w.a, id)
	if result.Bytes.Disk < 32*mib || result.Mode != api.ModeFull {
		t.Errorf("result %+v; want the truth about what moved", result)
	}
}

// The source's agent stays away for so long that all is over when it returns.
func TestSourceAgentReturnsAfterTheEnd(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 16*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	w.kill(w.a)
	w.must(w.a.Rate(w.ctx, "off"))
	w.must(harness.Until(w.ctx, "the instance to arrive by itself", func(ctx context.Context) error {
		state, err := w.b.State(ctx, name)
		if err == nil && state != "running" {
			err = fmt.Errorf("it is %q there", state)
		}
		return err
	}))
	w.must(w.a.Agent(w.ctx, "start"))
	w.moved(name, w.a, id)
}

// A migration that was cancelled before the agent died is not carried on after.
func TestAdoptedMigrationCanBeCancelled(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 32*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	w.kill(w.a)
	w.must(w.a.Agent(w.ctx, "start"))
	w.seenOp(w.a, id, "adopted", func(op api.Operation) bool { return op.Phase == "perform" && op.Cancellable })
	w.cancelled(w.a, id)
	w.stayed(name, w.a, id)
}

// The destination's agent dies while disks are copied. It has no part in that,
// and is back for the commit.
func TestDestinationAgentKilledWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 16*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	w.kill(w.b)
	w.must(w.b.Agent(w.ctx, "start"))
	w.must(w.a.Rate(w.ctx, "off"))
	w.moved(name, w.a, id)
}

// Both agents die, and the destination's stays away longer.
func TestBothAgentsKilledWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 16*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	w.kill(w.a)
	w.kill(w.b)
	w.must(w.a.Agent(w.ctx, "start"))
	w.must(w.a.Rate(w.ctx, "off"))
	w.must(harness.Until(w.ctx, "the instance to leave", func(ctx context.Context) error {
		state, err := w.a.State(ctx, name)
		if err == nil && state != "" {
			err = fmt.Errorf("it is %q there", state)
		}
		return err
	}))
	op, err := w.a.api.Operation(w.ctx, id)
	w.must(err)
	if op.Ended() {
		t.Errorf("the operation ended as %s (%s) though the destination has not confirmed", op.Status, describe(op.Error))
	}
	w.must(w.b.Agent(w.ctx, "start"))
	w.moved(name, w.a, id)
}

// The caller dies. The migration is the agent's, not the caller's.
func TestCallerKilledWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 16*mib)
	w.rate(w.a, slow)
	var said bytes.Buffer
	caller := w.a.Command(w.ctx, "wherry", "migrate", name, w.b.URL())
	caller.Stdout, caller.Stderr = &said, &said
	w.must(caller.Start())
	var id string
	w.must(harness.Until(w.ctx, "the caller's operation", func(ctx context.Context) error {
		inst, err := w.a.api.Instance(ctx, ref(name))
		if err == nil && inst.Operation == "" {
			err = errors.New("the instance has none")
		}
		id = inst.Operation
		return err
	}))
	w.copying(w.a, id)
	w.must(caller.Process.Kill())
	if err := caller.Wait(); err == nil {
		t.Errorf("the caller ended by itself: %s", said.String())
	}
	w.must(w.a.Rate(w.ctx, "off"))
	w.moved(name, w.a, id)
}

// The source's libvirt dies while disks are copied, and takes the migration back
// when it returns. The operation ends with the truth, and the next one succeeds.
func TestSourceLibvirtKilledWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 32*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	w.cleanup("starting libvirtd", func(ctx context.Context) error { return w.a.Libvirtd(ctx, "start") })
	w.must(w.a.Libvirtd(w.ctx, "kill"))
	w.must(w.a.Libvirtd(w.ctx, "start"))
	w.failed(w.a, id, "migration-failed", "perform", "", "libvirt is not connected")
	w.stayed(name, w.a, id)
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Libvirt goes away and comes back. The agent says so meanwhile, and finds its
// way by itself.
func TestLibvirtRestartedUnderAnIdleAgent(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	w.libvirtUp(w.a, 1)
	w.cleanup("starting libvirtd", func(ctx context.Context) error { return w.a.Libvirtd(ctx, "start") })
	w.must(w.a.Libvirtd(w.ctx, "kill"))
	w.libvirtUp(w.a, 0)
	_, err := w.a.api.Instances(w.ctx, "")
	if p := w.problem(err, "libvirt-down"); p.Status != http.StatusServiceUnavailable {
		t.Errorf("%s; want 503", describe(p))
	}
	_, err = w.a.api.Migrate(w.ctx, ref(name), api.MigrateRequest{Destination: w.b.URL()}, "")
	w.problem(err, "libvirt-down")
	if err := w.a.api.Ready(w.ctx); err == nil {
		t.Error("the agent is ready though libvirt is away")
	}

	events := w.heard(w.a)
	w.must(w.a.Libvirtd(w.ctx, "start"))
	w.libvirtUp(w.a, 1)
	w.must(w.a.api.Ready(w.ctx))
	// Events flow again: what happens to a domain is heard of.
	_, err = w.a.Virsh(w.ctx, "suspend", name)
	w.must(err)
	w.must(harness.Until(w.ctx, "the event of the pause", func(context.Context) error {
		for len(events) > 0 {
			if e := <-events; e.Kind == "instance" && e.Instance == name && strings.Contains(e.Detail, "suspend") {
				return nil
			}
		}
		return errors.New("no such event yet")
	}))
	_, err = w.a.Virsh(w.ctx, "resume", name)
	w.must(err)
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
}

// libvirtUp waits until the agent's metric says so.
func (w *world) libvirtUp(s *side, want int) {
	w.Helper()
	line := fmt.Sprintf("wherry_libvirt_up %d", want)
	w.must(harness.Until(w.ctx, line, func(ctx context.Context) error {
		metrics, err := s.api.Metrics(ctx)
		if err == nil && !strings.Contains("\n"+string(metrics), "\n"+line+"\n") {
			err = errors.New("the metric says otherwise")
		}
		return err
	}))
}

// heard gives an agent's events as they come, until the test ends.
func (w *world) heard(s *side) <-chan api.Event {
	w.Helper()
	out := make(chan api.Event, 1000)
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() {
		done <- s.api.Events(ctx, 0, func(e api.Event) error {
			select {
			case out <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	w.Cleanup(func() { cancel(); <-done })
	return out
}
