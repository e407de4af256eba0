//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// impatient has an agent act on memory that comes no nearer to its end as soon
// as it can tell.
func (w *world) impatient(on *side) {
	w.Helper()
	w.agentWith(on, "WHERRY_MIGRATION_PATIENCE=1s", "WHERRY_MIGRATION_LAST_PATIENCE=2s")
}

// busy boots an instance so much of whose memory, in MiB, changes again and again
// faster than the link carries it.
func (w *world) busy(on *side, name string, memory int) *harness.Guest {
	w.Helper()
	w.heavy(on, name, mib)
	guest := w.lab.Guest(name)
	w.must(guest.Dirty(w.ctx, on.Host, memory))
	w.rate(on, slow)
	return guest
}

// step finds what an operation says of a step.
func step(op api.Operation, name string) string {
	at := slices.IndexFunc(op.Steps, func(s api.Step) bool { return s.Name == name })
	if at < 0 {
		return ""
	}
	return op.Steps[at].Detail
}

// Its migration is given up, with the figures, once a longer downtime was tried;
// the guest has run on.
func TestBusyGuestIsGivenUpWithTheFigures(t *testing.T) {
	w := begin(t)
	w.impatient(w.a)
	name := w.unique("vm")
	guest := w.busy(w.a, name, 16)
	id := w.begun(w.a, name, api.MigrateRequest{MaxDowntime: api.Duration(400 * time.Millisecond)})
	op := w.failed(w.a, id, "not-converging", "perform", "", "to send at", "the guest writes", "400ms is allowed")
	if why := step(op, "converge"); !strings.Contains(why, "up to 400ms") {
		t.Errorf("steps %+v; want the longer downtime", op.Steps)
	}
	if c := op.Progress.Convergence; c == nil || c.Action != "abort" || c.Iteration < 3 || c.Bandwidth <= 0 {
		t.Errorf("shown %+v", c)
	}
	w.must(guest.Dirty(w.ctx, w.a.Host, 0))
	w.must(w.a.Rate(w.ctx, "off"))
	w.stayed(name, w.a, id)
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
}

// It is paused, and runs on at the destination; or at the source, where the
// migration is cancelled meanwhile.
func TestBusyGuestIsPausedToCross(t *testing.T) {
	w := begin(t)
	w.impatient(w.a)
	name := w.unique("vm")
	w.busy(w.a, name, 8)
	request := api.MigrateRequest{OnNotConverging: "pause", MaxDowntime: api.Duration(100 * time.Millisecond)}
	id := w.begun(w.a, name, request)
	w.seenOp(w.a, id, "paused", func(op api.Operation) bool { return strings.HasPrefix(step(op, "converge"), "pause") })
	w.cancelled(w.a, id)
	w.stayed(name, w.a, id)

	id = w.begun(w.a, name, request)
	op := w.run(w.a, api.Operation{ID: id}, nil)
	if why := step(op, "converge"); !strings.HasPrefix(why, "pause") {
		t.Errorf("steps %+v; want a pause", op.Steps)
	}
	w.must(w.lab.Guest(name).Dirty(w.ctx, w.b.Host, 0))
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Post-copy brings it across, and is not to be cancelled half-way.
func TestBusyGuestCrossesByPostCopy(t *testing.T) {
	w := begin(t)
	w.impatient(w.a)
	name := w.unique("vm")
	w.busy(w.a, name, 16) // what is left of it is what post-copy has to carry
	w.cleanup("resetting the bandwidth", w.resetBandwidth)
	id := w.begun(w.a, name, api.MigrateRequest{PostCopy: true, Timeout: api.Duration(time.Minute)})
	w.seenOp(w.a, id, "in post-copy", func(op api.Operation) bool { return step(op, "post-copy") != "" })
	_, err := w.a.api.Cancel(w.ctx, id)
	if p := w.problem(err, "conflict"); p.Status != 409 || !strings.Contains(p.Detail, "post-copy") {
		t.Errorf("cancelling: %s; want it refused with why", describe(p))
	}
	// Nothing else ends it half-way either, and it stays within the host's
	// bandwidth, to be changed meanwhile.
	limited := func(want int64) {
		t.Helper()
		w.must(harness.Until(w.ctx, fmt.Sprintf("post-copy to be limited to %d", want), func(ctx context.Context) error {
			reply, err := w.a.Exec(ctx, "virsh", "qemu-monitor-command", name, `{"execute":"query-migrate-parameters"}`)
			if err != nil {
				return err
			}
			if part := fmt.Sprintf(`"max-postcopy-bandwidth":%d,`, want); !strings.Contains(reply, part) {
				return fmt.Errorf("%s lacks %s", reply, part)
			}
			return nil
		}))
	}
	_, err = w.a.api.SetBandwidth(w.ctx, mib)
	w.must(err)
	limited(mib)
	_, err = w.a.api.Stop(w.ctx, api.Ref{Name: name}, api.StopRequest{Force: true}, "")
	w.problem(err, "busy")
	w.must(w.a.Agent(w.ctx, "kill"))
	w.must(w.a.Agent(w.ctx, "start"))
	_, err = w.a.api.SetBandwidth(w.ctx, 0)
	w.must(err)
	op := w.run(w.a, api.Operation{ID: id}, nil)
	if why := step(op, "post-copy"); strings.Contains(why, "refused") || strings.Contains(why, "without an answer") {
		t.Errorf("post-copy: %s", why)
	}
	w.must(w.lab.Guest(name).Dirty(w.ctx, w.b.Host, 0))
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Post-copy breaks off: a part of the guest is on each host. Nothing is destroyed, and
// nothing is chosen while there are both. To take it up again cannot be shown here:
// the emulated guest's QEMU waits for missing memory with its lock held, and does
// not hear libvirt's call. So it is given up, in the way that is told.
func TestPostCopyThatBreaksOffIsNeverGuessedAbout(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, "WHERRY_MIGRATION_PATIENCE=1s", "WHERRY_MIGRATION_LAST_PATIENCE=2s", "WHERRY_MIGRATION_DECISION_TIMEOUT=10s")
	name := w.unique("vm")
	w.busy(w.a, name, 16)
	id := w.begun(w.a, name, api.MigrateRequest{PostCopy: true})
	w.seenOp(w.a, id, "in post-copy", func(op api.Operation) bool { return step(op, "post-copy") != "" })
	w.rate(w.a, "4mbit") // or it is over before it breaks off
	w.must(harness.Until(w.ctx, "QEMU to break off", func(ctx context.Context) error {
		// Broken off before the other half runs, that one ends.
		state, err := w.b.Virsh(ctx, "domstate", "--reason", name)
		if err == nil && state != "running (post-copy)" {
			err = fmt.Errorf("at the destination it is %q", state)
		}
		if err != nil {
			return err
		}
		reply, err := w.a.Exec(ctx, "virsh", "qemu-monitor-command", name, `{"execute":"migrate-pause"}`)
		if err == nil && !strings.Contains(reply, `"return"`) {
			err = errors.New(reply)
		}
		return err
	}))
	op := w.wait(w.a, id)
	if op.Status != api.StatusNeedsDecision || op.Error == nil || len(op.Error.Sides) != 2 || len(op.Error.Commands) != 2 ||
		!strings.Contains(op.Error.Hint, "--postcopy-resume "+name) {
		t.Fatalf("it ended as %s: %s; want a decision asked for, with both sides", op.Status, describe(op.Error))
	}
	for _, side := range op.Error.Sides {
		if !strings.HasPrefix(side.Reason, "postcopy") || side.Process != "runs" || side.SeenAt == nil {
			t.Errorf("%+v; want half a guest there", side)
		}
	}
	for _, keep := range op.Error.Commands {
		if out, err := w.command(w.a, keep); err == nil {
			t.Fatalf("%s of half a guest: done: %s", keep, out)
		}
	}
	for _, s := range w.sides() {
		if out, err := w.command(s, "wherry stop --force "+name); err != nil {
			t.Fatalf("stopping the half on host %s: %v: %s", s.Name, err, out)
		}
		w.noQEMU(s, name)
	}
	if out, err := w.command(w.a, op.Error.Commands[0]); err != nil || !strings.Contains(out, "runs on neither host") {
		t.Errorf("%s: %v: %s; want to be told that it is off", op.Error.Commands[0], err, out)
	}
	for _, s := range w.sides() {
		w.exists(s, name+".qcow2", true) // the last writes are in the destination's
	}
}
