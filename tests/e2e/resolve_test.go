//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// doubtless settles what earlier tests have left in doubt: their instances are gone, and
// their names are to be free.
func (w *world) doubtless() {
	w.Helper()
	for _, s := range w.sides() {
		ops, err := s.api.Operations(w.ctx, client.OperationFilter{Project: client.AllProjects, Status: api.StatusNeedsDecision})
		w.must(err)
		for _, op := range ops {
			r := api.ResolveRequest{Keep: api.SideSource, OtherHost: api.OtherDown}
			switch op.Kind {
			case "migrate":
			case "receive":
				r.OtherHost = api.OtherHasIt
			default:
				continue
			}
			_, err := s.api.Resolve(w.ctx, op.ID, r, "")
			if api.CodeOf(err) == "not-found" {
				continue // the other host has told it
			}
			w.must(err)
			w.wait(s, op.ID)
		}
	}
}

// inDoubt has a migration of a fresh instance end with a decision needed: the
// destination runs it and nobody has heard, so libvirt has started it at the
// source again. All that would have kept it from that was killed, the guard too, and
// the agent has paused it since.
func (w *world) inDoubt(name string) api.Operation {
	w.Helper()
	w.heavy(w.a, name, mib)
	var hung atomic.Bool
	port := w.libvirtWithout(w.b, finish, func() {
		_ = w.a.KillAgent(w.ctx)
		// Until it is gone it holds the disks.
		_, _ = w.a.Exec(w.ctx, "sh", "-c", `pkill -KILL -f "[w]herry guard "; while pgrep -f "[w]herry guard " >/dev/null; do sleep 0.01; done`)
	}, &hung)
	w.cleanup("starting the agent", func(ctx context.Context) error { return w.a.Agent(ctx, "start") })
	w.agentWith(w.b, fmt.Sprintf("WHERRY_MIGRATION_LIBVIRT_URI=qemu+tcp://wherry-b:%s/system", port))
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.must(harness.Until(w.ctx, "libvirt to start it at the source again", func(ctx context.Context) error {
		state, err := w.a.State(ctx, name)
		if err == nil && (!hung.Load() || state != "running") {
			err = fmt.Errorf("it is %q, the answer is lost: %v", state, hung.Load())
		}
		return err
	}))
	w.must(w.a.Agent(w.ctx, "start"))
	op := w.wait(w.a, id)
	if op.Status != api.StatusNeedsDecision {
		w.Fatalf("the operation ended as %s: %s (the answer was lost: %v)", op.Status, describe(op.Error), hung.Load())
	}
	return op
}

// command has the agent's own command run on a host, as a person would.
func (w *world) command(on *side, line string) (string, error) {
	w.Helper()
	return on.Exec(w.ctx, strings.Fields(line)...)
}

// Whoever decides gets what both hosts say, and each of the two commands settles
// it: one copy runs with all its bytes, and nothing is left on the other host.
func TestEachCommandSettlesIt(t *testing.T) {
	for i, keep := range []string{api.SideSource, api.SideDestination} {
		t.Run(keep, func(t *testing.T) {
			w := begin(t)
			name := w.unique("vm")
			op := w.inDoubt(name)
			if len(op.Error.Sides) != 2 || len(op.Error.Commands) != 2 {
				t.Fatalf("error %s; want both sides' facts and two commands", describe(op.Error))
			}
			for n, want := range []string{"paused", "running"} {
				f := op.Error.Sides[n]
				if f.State != want || f.Process != "runs" || f.SeenAt == nil || len(f.Volumes) != 1 || !f.Volumes[0].Present {
					t.Errorf("the %s is %+v; want it %s, with its process and its volume", f.Side, f, want)
				}
			}
			in, err := w.b.api.Incoming(w.ctx, op.ID)
			if err != nil || in.Held == "" {
				t.Errorf("reservation %+v, %v; want it held", in, err)
			}
			_, err = w.a.api.Migrate(w.ctx, ref(name), api.MigrateRequest{Destination: w.b.URL()}, "")
			if p := w.problem(err, "busy"); p.Operation != op.ID {
				t.Errorf("%s; want it to name operation %s", describe(p), op.ID)
			}
			for range 2 { // the second time it is settled already
				out, err := w.command(w.a, op.Error.Commands[i])
				if err != nil {
					t.Fatalf("%s: %v: %s", op.Error.Commands[i], err, out)
				}
			}
			winner, loser := w.a, w.b
			if keep == api.SideDestination {
				winner, loser = w.b, w.a
			}
			w.alive(name, winner)
			w.clean(name, loser)
			if out, err := w.command(w.a, op.Error.Commands[1-i]); err == nil {
				t.Errorf("the opposite, after it was settled: %s", out)
			}
		})
	}
}

// A destination that cannot be asked: neither side is chosen by guesswork, nor
// against what is known. Once it is back it is settled as usual.
func TestSilentDestinationIsNotGuessed(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	op := w.inDoubt(name)
	w.kill(w.b)
	for _, r := range []api.ResolveRequest{
		{Keep: api.SideDestination},
		{Keep: api.SideSource},
		{Keep: api.SideDestination, OtherHost: api.OtherDown},
		{Keep: api.SideSource, OtherHost: api.OtherHasIt},
	} {
		_, err := w.a.api.Resolve(w.ctx, op.ID, r, "")
		if p := w.problem(err, "conflict"); len(p.Sides) != 2 || p.Sides[1].State != "unknown" {
			t.Errorf("%+v: %s; want what is known", r, describe(p))
		}
	}
	for s, want := range map[*side]string{w.a: "paused", w.b: "running"} {
		if state, err := s.State(w.ctx, name); err != nil || state != want {
			t.Errorf("on host %s it is %q (%v); want %s", s.Name, state, err, want)
		}
		w.exists(s, name+".qcow2", true)
	}
	w.must(w.b.Agent(w.ctx, "start"))
	w.run(w.a, op, w.resolvedOnce(op.ID, api.SideDestination))
	w.alive(name, w.b)
	w.clean(name, w.a)
}

func (w *world) resolvedOnce(id, keep string) error {
	return harness.Until(w.ctx, "the destination's agent to answer", func(ctx context.Context) error {
		_, err := w.a.api.Resolve(ctx, id, api.ResolveRequest{Keep: keep}, "")
		return err
	})
}

// The source's agent dies while a decision is carried out: it goes on with it.
func TestDecisionSurvivesTheAgent(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	op := w.inDoubt(name)
	_, err := w.a.api.Resolve(w.ctx, op.ID, api.ResolveRequest{Keep: api.SideSource}, "")
	w.must(err)
	w.kill(w.a)
	w.must(w.a.Agent(w.ctx, "start"))
	if op = w.wait(w.a, op.ID); op.Status != api.StatusFailed || op.Error.Code != "kept-at-source" {
		t.Fatalf("the operation ended as %s: %s", op.Status, describe(op.Error))
	}
	w.alive(name, w.a)
	w.clean(name, w.b)
}

// A paused instance arrives, and its source never says that it has: it is not
// taken for the destination's own, nor removed when the lease is over. It is
// listed there and settled by what the operator knows; the source, when it is
// back, finds it done.
func TestArrivedPausedAndTheSourceIsLost(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	_, err := w.a.Virsh(w.ctx, "suspend", name)
	w.must(err)
	w.agentWith(w.a, "WHERRY_MIGRATION_LEASE=10s")
	committing := make(chan struct{}, 100)
	var deaf atomic.Bool
	deaf.Store(true)
	url := w.proxy(w.b, func(_ http.ResponseWriter, r *http.Request) bool {
		if !deaf.Load() || !strings.HasSuffix(r.URL.Path, "/commit") {
			return false
		}
		committing <- struct{}{}
		<-r.Context().Done()
		return true
	})
	id := w.begun(w.a, name, api.MigrateRequest{Destination: url})
	w.must(harness.Until(w.ctx, "the source to commit", func(context.Context) error {
		if len(committing) == 0 {
			return errors.New("it has not")
		}
		return nil
	}))
	w.kill(w.a)
	held := w.seenOp(w.b, id, "in doubt", func(op api.Operation) bool { return op.Status == api.StatusNeedsDecision })
	if held.Instance != name || len(held.Error.Commands) != 2 {
		t.Errorf("%+v, %s; want the instance and the commands", held, describe(held.Error))
	}
	if out, err := w.command(w.b, "wherry operation list --status needs_decision"); err != nil || !strings.Contains(out, id) {
		t.Errorf("listed %s (%v)", out, err)
	}
	_, err = w.b.api.Resolve(w.ctx, id, api.ResolveRequest{Keep: api.SideDestination}, "")
	w.problem(err, "conflict")
	if state, err := w.b.State(w.ctx, name); err != nil || state != "paused" {
		t.Errorf("it is %q (%v); want paused", state, err)
	}
	out, err := w.command(w.b, "wherry operation resolve "+id+" --keep destination --other-host down")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	deaf.Store(false)
	w.must(w.a.Agent(w.ctx, "start"))
	w.moved(name, w.a, id)
}
