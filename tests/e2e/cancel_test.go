//go:build lab

package e2e

import (
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// soon is how long the end of what was told to end may take. It is far below
// every time-out that would end it otherwise.
const soon = 25 * time.Second

// cancelled cancels an operation, twice, and wants it to end soon.
func (w *world) cancelled(on *side, id string) api.Operation {
	w.Helper()
	start := time.Now()
	for range 2 {
		if _, err := on.api.Cancel(w.ctx, id); err != nil {
			w.Errorf("cancelling: %v", err)
		}
	}
	op := w.wait(on, id)
	if op.Status != api.StatusCancelled || op.Error == nil || op.Error.Code != "cancelled" || op.Error.Phase != "perform" {
		w.Fatalf("the operation ended as %s (%s); want it cancelled in phase perform", op.Status, describe(op.Error))
	}
	if took := time.Since(start); took > soon {
		w.Errorf("the end took %s; want it within %s", took, soon)
	}
	if _, err := on.api.Cancel(w.ctx, id); err != nil {
		w.Errorf("cancelling what is cancelled: %v", err)
	}
	return op
}

// A migration that takes longer than it may is taken back.
func TestTimeoutTakesTheMigrationBack(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 32*mib)
	w.rate(w.a, slow)
	start := time.Now()
	id := w.begun(w.a, name, api.MigrateRequest{Timeout: api.Duration(2 * time.Second)})
	w.failed(w.a, id, "timeout", "perform", "", "timeout")
	if took := time.Since(start); took > soon {
		t.Errorf("the end took %s; want it within %s", took, soon)
	}
	w.stayed(name, w.a, id)
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, api.MigrateRequest{Timeout: api.Duration(time.Minute)})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// keepAlive is how long libvirt waits for a destination that has fallen silent
// (keepalive_interval and keepalive_count of its qemu.conf, with a margin). Until
// then it holds the migration's job, though nothing of it is left to be done.
const keepAlive = 40 * time.Second

// The network dies for good while disks are copied. The source is done with it
// when libvirt has let go of the destination, the guest never stands still, and
// the destination cleans up by itself, cut off as it is.
func TestNetworkLostForGoodWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.agentWith(w.a, "WHERRY_MIGRATION_LEASE=10s")
	w.heavy(w.a, name, 32*mib)
	w.rate(w.a, slow)
	const stall = 4 * time.Second
	id := w.begun(w.a, name, api.MigrateRequest{StallTimeout: api.Duration(stall)})
	w.copying(w.a, id)
	join := w.cut(w.a)
	start := time.Now()
	for range 3 { // it goes on writing all the while
		w.must(w.lab.Guest(name).WaitMore(w.ctx, w.a.Host, "vda", 10))
	}
	w.failed(w.a, id, "peer-lost", "perform", "", "stall")
	if took := time.Since(start); took > stall+keepAlive {
		t.Errorf("the end took %s; want it within %s", took, stall+keepAlive)
	}
	w.alive(name, w.a)
	w.idle(w.a, name)
	w.takenBack(w.b, id)
	w.clean(name, w.b)

	join()
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// The network dies for good while memory crosses, with the disks still mirrored:
// the same.
func TestNetworkLostForGoodWhileMemoryMoves(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.agentWith(w.a, "WHERRY_MIGRATION_LEASE=10s")
	w.heavy(w.a, name, mib)
	guest := w.lab.Guest(name)
	w.must(guest.Dirty(w.ctx, w.a.Host, 16)) // faster than the link
	w.rate(w.a, slow)
	const stall = 4 * time.Second
	id := w.begun(w.a, name, api.MigrateRequest{StallTimeout: api.Duration(stall)})
	w.seenOp(w.a, id, "copying memory", func(op api.Operation) bool {
		p := op.Progress
		return p.Memory != nil && p.Memory.BytesDone > 0 && p.Disks[0].BytesDone >= p.Disks[0].BytesTotal
	})
	join := w.cut(w.a)
	start := time.Now()
	for range 3 { // it goes on writing all the while
		w.must(guest.WaitMore(w.ctx, w.a.Host, "vda", 10))
	}
	w.failed(w.a, id, "peer-lost", "perform", "")
	if took := time.Since(start); took > stall+keepAlive {
		t.Errorf("the end took %s; want it within %s", took, stall+keepAlive)
	}
	w.must(guest.Dirty(w.ctx, w.a.Host, 0))
	w.alive(name, w.a)
	w.idle(w.a, name)
	w.takenBack(w.b, id)
	w.clean(name, w.b)
	join()
}
