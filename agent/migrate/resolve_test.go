package migrate_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// there is the instance's copy at the destination, as its agent has it.
type there struct {
	w      *world
	state  string
	silent bool
}

// doubtful has a migration end with the source started again by libvirt, and
// the destination in that state: nobody but a person can tell what counts.
func (w *world) doubtful(state string) (*there, api.Operation) {
	w.t.Helper()
	at := &there{w: w}
	answer := func(in api.Incoming) (api.Incoming, error) {
		if at.silent {
			return in, api.NewProblem("peer-unreachable", "no route to host")
		}
		in.Domain, in.Running, in.Process = at.state, at.state == "running", "runs"
		return in, nil
	}
	w.peer.mu.Lock()
	w.peer.renew = answer
	w.peer.settle = func(in api.Incoming, act string) (api.Incoming, error) {
		switch {
		case at.silent:
		case act == api.SettleResume:
			if w.libvirt.state("vm") == hypervisor.Running {
				w.t.Error("two copies run")
			}
			at.state = "running"
		case act == api.SettleEnd:
			at.state = ""
		}
		return answer(in)
	}
	w.peer.mu.Unlock()
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.sent = true
		at.state = "running"
		return errors.New("connection reset")
	}
	op := w.migrated(api.MigrateRequest{})
	if op.Status != api.StatusNeedsDecision {
		w.t.Fatalf("operation %s, %+v", op.Status, op.Error)
	}
	at.state = state
	return at, op
}

func (w *world) resolve(id, keep, other string) (api.Operation, error) {
	return w.Resolve(w.t.Context(), id, api.ResolveRequest{Keep: keep, OtherHost: other})
}

// settled resolves, which must come to that end.
func (w *world) settledAs(id, keep, other, status string) api.Operation {
	w.t.Helper()
	op, err := w.resolve(id, keep, other)
	must(w.t, err)
	if op.ID != id {
		w.t.Errorf("operation %s; want the same one, %s", op.ID, id)
	}
	op = w.ended(id)
	if op.Status != status {
		w.t.Fatalf("ended as %s: %+v", op.Status, op.Error)
	}
	return op
}

// Whoever decides gets what both hosts say and the commands, and until then the
// destination keeps what it has and nobody else touches the instance.
func TestDecisionHasTheFacts(t *testing.T) {
	w := newWorld(t)
	w.options.Runs = func(name, id string) (bool, error) { return name == "vm" && id == uuid, nil }
	w.restart()
	_, op := w.doubtful("running")
	p := op.Error
	if want := []string{"wherry operation resolve " + op.ID + " --keep source", "wherry operation resolve " + op.ID + " --keep destination"}; !slices.Equal(p.Commands, want) {
		t.Errorf("commands %q", p.Commands)
	}
	if len(p.Sides) != 2 {
		t.Fatalf("sides %+v", p.Sides)
	}
	src, dst := p.Sides[0], p.Sides[1]
	if src.Side != api.SideSource || src.Host != "a" || src.State != "paused" || !src.Sent || !src.Halted || src.Process != "runs" || src.SeenAt == nil ||
		len(src.Volumes) != 1 || src.Volumes[0].Path != w.disk || !src.Volumes[0].Present {
		t.Errorf("source %+v", src)
	}
	if dst.Side != api.SideDestination || dst.Host != "b" || dst.State != "running" || dst.Process != "runs" || dst.SeenAt == nil || len(dst.Volumes) != 1 {
		t.Errorf("destination %+v", dst)
	}
	if !slices.Equal(w.peer.settled, []string{api.SettleHold}) {
		t.Errorf("the destination was told %q; want it to hold", w.peer.settled)
	}
	_, err := w.Migrate(t.Context(), vm, api.MigrateRequest{Destination: "https://b:8470"}, api.Idempotency{})
	if api.CodeOf(err) != "busy" {
		t.Errorf("a second migration: %v", err)
	}
}

func TestKeepDestination(t *testing.T) {
	for _, state := range []string{"running", "paused"} {
		t.Run(state, func(t *testing.T) {
			w := newWorld(t)
			at, op := w.doubtful(state)
			w.settledAs(op.ID, api.SideDestination, "", api.StatusSucceeded)
			if _, err := w.libvirt.Domain(t.Context(), "vm"); !errors.Is(err, hypervisor.ErrNoDomain) || w.exists(w.disk) {
				t.Errorf("at the source: %v, its volume exists: %v", err, w.exists(w.disk))
			}
			if at.state != "running" || w.peer.commits != 1 || w.peer.removed != 0 {
				t.Errorf("at the destination it is %q, committed %d times", at.state, w.peer.commits)
			}
			w.settledAs(op.ID, api.SideDestination, "", api.StatusSucceeded)
			if _, err := w.resolve(op.ID, api.SideSource, ""); api.CodeOf(err) != "conflict" || !strings.Contains(err.Error(), "keep the destination") {
				t.Errorf("the opposite, after it was settled: %v", err)
			}
		})
	}
}

func TestKeepSource(t *testing.T) {
	for _, state := range []string{"running", "paused", ""} {
		t.Run("destination "+state, func(t *testing.T) {
			w := newWorld(t)
			at, op := w.doubtful(state)
			op = w.settledAs(op.ID, api.SideSource, "", api.StatusFailed)
			if op.Error.Code != "kept-at-source" || op.Error.Hint != "" {
				t.Errorf("error %+v", op.Error)
			}
			if at.state != "" || w.libvirt.state("vm") != hypervisor.Running || !w.exists(w.disk) || w.peer.removed != 1 {
				t.Errorf("at the destination it is %q, removed %d times; at the source %q", at.state, w.peer.removed, w.libvirt.state("vm"))
			}
			w.settledAs(op.ID, api.SideSource, "", api.StatusFailed)
			// The instance is free again.
			w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error { w.libvirt.gone("vm"); return nil }
			w.libvirt.sent = false
			w.peer.mu.Lock()
			w.peer.renew = nil
			w.peer.mu.Unlock()
			w.succeeds(api.MigrateRequest{})
		})
	}
}

// What could make two running copies or destroy the only one is refused at once
// and changes nothing; a silent destination only by what is said of it.
func TestResolveIsRefused(t *testing.T) {
	w := newWorld(t)
	at, op := w.doubtful("running")
	at.silent = true
	refused := func(keep, other, why string) {
		t.Helper()
		_, err := w.resolve(op.ID, keep, other)
		p := api.AsProblem(err)
		if p == nil || p.Code != "conflict" || !strings.Contains(p.Detail, why) || len(p.Sides) != 2 {
			t.Errorf("keep %s, %q: %v; want a refusal: %s", keep, other, err, why)
		}
	}
	refused(api.SideDestination, "", "the only copy could be destroyed")
	refused(api.SideDestination, api.OtherDown, "the only copy could be destroyed")
	refused(api.SideSource, "", "two running copies")
	refused(api.SideSource, api.OtherHasIt, "two running copies")
	at.silent, at.state = false, ""
	refused(api.SideDestination, api.OtherHasIt, "nothing of it at the destination")
	if now, _ := w.engine.Get(t.Context(), op.ID); now.Status != api.StatusNeedsDecision || w.libvirt.state("vm") != hypervisor.Paused || !w.exists(w.disk) {
		t.Errorf("operation %s, the instance %s", now.Status, w.libvirt.state("vm"))
	}
	if _, err := w.resolve("01JZZZZZZZZZZZZZZZZZZZZZZZ", api.SideSource, ""); api.CodeOf(err) != "not-found" {
		t.Errorf("an operation that is not: %v", err)
	}
}

// A destination that cannot be asked, and is said to have the instance: the
// source's copy ends for good, but its volumes stay.
func TestKeepSilentDestination(t *testing.T) {
	w := newWorld(t)
	at, op := w.doubtful("running")
	at.silent = true
	op = w.settledAs(op.ID, api.SideDestination, api.OtherHasIt, api.StatusSucceeded)
	if r := w.result(op); !slices.ContainsFunc(r.Warnings, func(s string) bool { return strings.Contains(s, w.disk) }) {
		t.Errorf("warnings %q; want the volume that was kept", r.Warnings)
	}
	if _, err := w.libvirt.Domain(t.Context(), "vm"); !errors.Is(err, hypervisor.ErrNoDomain) || !w.exists(w.disk) || w.peer.commits != 0 {
		t.Errorf("at the source: %v, its volume exists: %v, committed %d times", err, w.exists(w.disk), w.peer.commits)
	}
}

// A destination that is said to be down: the source goes on alone.
func TestKeepSourceBesideASilentDestination(t *testing.T) {
	w := newWorld(t)
	at, op := w.doubtful("running")
	at.silent = true
	op = w.settledAs(op.ID, api.SideSource, api.OtherDown, api.StatusFailed)
	if w.libvirt.state("vm") != hypervisor.Running || w.peer.removed != 0 || op.Error.Hint == "" {
		t.Errorf("the source is %q, %+v", w.libvirt.state("vm"), op.Error)
	}
}

// What fails on the way leaves it open to another decision, and both copies.
func TestResolveThatFails(t *testing.T) {
	w := newWorld(t)
	at, op := w.doubtful("paused")
	good := w.peer.settle
	w.peer.settle = func(in api.Incoming, act string) (api.Incoming, error) {
		if act == api.SettleResume || act == api.SettleEnd {
			return in, api.NewProblem("libvirt-failed", "it does not want to")
		}
		return good(in, act)
	}
	for _, keep := range []string{api.SideDestination, api.SideSource} {
		op = w.settledAs(op.ID, keep, "", api.StatusNeedsDecision)
		if !strings.Contains(op.Error.Detail, "it does not want to") || len(op.Error.Commands) != 2 || len(op.Error.Sides) != 2 {
			t.Errorf("error %+v", op.Error)
		}
		if w.libvirt.state("vm") != hypervisor.Paused || !w.exists(w.disk) || at.state != "paused" {
			t.Errorf("the source is %q, the destination %q", w.libvirt.state("vm"), at.state)
		}
	}
	w.peer.settle = good
	w.settledAs(op.ID, api.SideSource, "", api.StatusFailed)
}

var errPower = errors.New("power is gone")

// diesAfter is a store that stops taking writes after so many: what it has then
// is what a crash leaves.
type diesAfter struct {
	store.Store
	left atomic.Int64
}

func (d *diesAfter) Put(bucket, key string, value []byte) error {
	if err := d.write(); err != nil {
		return err
	}
	return d.Store.Put(bucket, key, value)
}

func (d *diesAfter) Update(fn func(store.Tx) error) error {
	if err := d.write(); err != nil {
		return err
	}
	return d.Store.Update(fn)
}

func (d *diesAfter) write() error {
	if d.left.Add(-1) < 0 {
		return errPower
	}
	return nil
}

// The agent dies after each write to its journal: the next one goes on, and it
// comes to the same end, without ever two copies that run.
func TestResolveSurvivesACrash(t *testing.T) {
	for _, keep := range []string{api.SideSource, api.SideDestination} {
		for writes := 1; ; writes++ {
			w := newWorld(t)
			at, op := w.doubtful("paused")
			dying := &diesAfter{Store: w.store}
			dying.left.Store(int64(writes))
			w.close(w.engine)
			w.store = dying
			w.start()
			began, err := w.resolve(op.ID, keep, "")
			whole := false
			if err == nil {
				w.ended(began.ID)
				whole = dying.left.Load() >= 0
			}
			if err := w.engine.Close(t.Context()); err != nil && !errors.Is(err, errPower) {
				t.Fatal(err)
			}
			dying.left.Store(1 << 30)
			w.start()
			must(t, w.engine.Resume(t.Context()))
			after, err := w.engine.Wait(t.Context(), op.ID, deadline)
			must(t, err)
			if after.Status == api.StatusNeedsDecision {
				w.settledAs(op.ID, keep, "", map[string]string{api.SideSource: api.StatusFailed, api.SideDestination: api.StatusSucceeded}[keep])
			}
			here, there := "", at.state
			if d, err := w.libvirt.Domain(t.Context(), "vm"); err == nil {
				here = string(d.State)
			}
			if keep == api.SideSource && (here != "running" || there != "" || !w.exists(w.disk)) ||
				keep == api.SideDestination && (here != "" || there != "running") {
				t.Errorf("keep %s, a crash after %d writes: the source is %q, the destination %q, operation %s", keep, writes, here, there, after.Status)
			}
			if whole {
				if writes < 5 {
					t.Errorf("keep %s: it was over after %d writes", keep, writes)
				}
				break
			}
		}
	}
}

var _ operation.Store = &diesAfter{}
