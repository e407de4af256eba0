//go:build lab

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// crossingMemory waits until memory is on its way, with every disk copied.
func (w *world) crossingMemory(on *side, id string) {
	w.Helper()
	w.seenOp(on, id, "moving memory", func(op api.Operation) bool {
		p := op.Progress
		return p.Memory != nil && p.Memory.BytesDone > 0 && p.Disks[0].BytesDone >= p.Disks[0].BytesTotal
	})
}

// noCopy wants nothing in the instance's QEMU of a copy to another host.
func (w *world) noCopy(on *side, name string) {
	w.Helper()
	w.idle(on, name)
	if out := w.exec(on, "virsh", "qemu-monitor-command", name, `{"execute":"query-named-block-nodes"}`); strings.Contains(out, `"nbd"`) {
		w.Errorf("a node of the copy is left in %q on host %s: %s", name, on.Name, out)
	}
}

// again has the source's agent lose a migration and take it up.
func (w *world) again(on *side, id string) {
	w.Helper()
	w.kill(on)
	w.must(on.Agent(w.ctx, "start"))
	w.seenOp(on, id, "adopted", func(op api.Operation) bool { return op.Phase == "perform" && op.Cancellable })
}

// A migration that the agent has adopted ends with its timeout like any other,
// while disks are copied and while memory is.
func TestAdoptedMigrationTimesOut(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 32*mib)
	w.rate(w.a, "4mbit") // on which the disk takes more than a minute
	id := w.begun(w.a, name, api.MigrateRequest{Timeout: seconds(10)})
	w.copying(w.a, id)
	w.again(w.a, id)
	w.failed(w.a, id, "timeout", "perform", "", "timeout")
	w.stayed(name, w.a, id)
	w.noCopy(w.a, name)

	w.must(w.a.Rate(w.ctx, slow))
	w.must(w.lab.Guest(name).Dirty(w.ctx, w.a.Host, 16)) // faster than the link
	id = w.begun(w.a, name, api.MigrateRequest{Timeout: seconds(25)})
	w.crossingMemory(w.a, id)
	w.again(w.a, id)
	w.failed(w.a, id, "timeout", "perform", "", "timeout")
	w.must(w.lab.Guest(name).Dirty(w.ctx, w.a.Host, 0))
	w.stayed(name, w.a, id)
	w.noCopy(w.a, name)
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// The network dies under a migration that the agent has adopted: it ends with its
// stall timeout, and the destination takes back what it made.
func TestAdoptedMigrationStalls(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	for _, s := range w.sides() {
		w.agentWith(s, leases)
	}
	w.heavy(w.a, name, 32*mib)
	w.rate(w.a, slow)
	const stall = 4 * time.Second
	id := w.begun(w.a, name, api.MigrateRequest{StallTimeout: api.Duration(stall)})
	w.copying(w.a, id)
	w.again(w.a, id)
	join := w.cut(w.a)
	start := time.Now()
	w.failed(w.a, id, "peer-lost", "perform", "", "stall")
	if took := time.Since(start); took > stall+keepAlive {
		t.Errorf("the end took %s; want it within %s", took, stall+keepAlive)
	}
	w.takenBack(w.b, id)
	w.alive(name, w.a)
	w.noCopy(w.a, name)
	w.clean(name, w.b)
	join()
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// The source's libvirt dies, while disks or memory cross, and with it what it knew
// of the migration; the agent lives, or dies too. QEMU goes on. That the job is
// lost is noticed, nothing of it stays, and the next migration goes through.
func TestJobThatLibvirtLostIsRecognised(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 16*mib)
	w.cleanup("starting libvirtd", func(ctx context.Context) error { return w.a.Libvirtd(ctx, "start") })
	for _, c := range []struct {
		what   string
		memory bool
		agent  bool
		code   string
	}{
		{"disks, libvirt", false, false, "migration-failed"},
		{"disks, both", false, true, "interrupted"},
		{"memory, libvirt", true, false, "migration-failed"},
		{"memory, both", true, true, "interrupted"},
	} {
		dirty := map[bool]int{true: 16}[c.memory] // faster than the link
		w.must(w.lab.Guest(name).Dirty(w.ctx, w.a.Host, dirty))
		w.rate(w.a, slow)
		id := w.begun(w.a, name, api.MigrateRequest{})
		if c.memory {
			w.crossingMemory(w.a, id)
		} else {
			w.copying(w.a, id)
		}
		if c.agent {
			w.kill(w.a)
		}
		w.must(w.a.Libvirtd(w.ctx, "kill"))
		w.must(w.a.Libvirtd(w.ctx, "start"))
		if c.agent {
			w.must(w.a.Agent(w.ctx, "start"))
		}
		op := w.failed(w.a, id, c.code, "perform", "")
		t.Logf("%s: %s", c.what, describe(op.Error))
		w.must(w.lab.Guest(name).Dirty(w.ctx, w.a.Host, 0))
		w.stayed(name, w.a, id)
		w.noCopy(w.a, name)
		if t.Failed() {
			t.Fatalf("%s: %s", c.what, describe(op.Error))
		}
	}
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}
