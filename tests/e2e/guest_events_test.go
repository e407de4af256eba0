//go:build lab

package e2e

import (
	"fmt"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// guestEvent is what happens to a guest while it is on its way, and how the
// migration is to end.
type guestEvent struct {
	name    string
	happens func(w *world, name string)
	ends    func(w *world, name, id string)
}

// The ways in which a guest, or its owner, gets between. What they ask for counts,
// and not the migration. A pause in mid-migration is libvirt's way to let memory come
// to its end: it takes it for the migration's, refuses to resume it meanwhile, and
// has it run on where it arrives. One that was paused before arrives paused.
var (
	powersOff = guestEvent{"powers off", func(w *world, name string) { w.qmp(w.a, name, "system_powerdown") }, (*world).endedHere}
	destroyed = guestEvent{"is destroyed", func(w *world, name string) { w.exec(w.a, "virsh", "destroy", name) }, (*world).endedHere}
	losesQEMU = guestEvent{"loses its QEMU", func(w *world, name string) { w.signalQEMU(w.a, name, "-KILL") }, (*world).endedHere}
	isReset   = guestEvent{"is reset", func(w *world, name string) { w.qmp(w.a, name, "system_reset") }, (*world).bootedAnew}
	isPaused  = guestEvent{"is paused", func(w *world, name string) { w.exec(w.a, "virsh", "suspend", name) }, func(w *world, name, id string) { w.moved(name, w.a, id) }}
)

// qmp gives QEMU an order that libvirt gives nobody during a migration, as the
// guest itself or its firmware would cause it.
func (w *world) qmp(on *side, name, command string) {
	w.Helper()
	w.exec(on, "virsh", "qemu-monitor-command", name, `{"execute":"`+command+`"}`)
}

// endedHere wants the guest's end to have been the migration's: it is off where it
// was, with its disk, the operation says so, and the other host has nothing of it.
func (w *world) endedHere(name, id string) {
	w.Helper()
	op := w.failed(w.a, id, "instance-ended", "perform", "", "has shut down at the source")
	if state, err := w.a.State(w.ctx, name); err != nil || state != "shut off" {
		w.Errorf("%q is %q on host a (%v), operation %s; want it shut off", name, state, err, describe(op.Error))
	}
	w.exists(w.a, name+".qcow2", true)
	w.clean(name, w.b)
	w.unreserved(w.b, id)
}

// bootedAnew wants a guest that began anew on its way to have arrived all the same.
func (w *world) bootedAnew(name, id string) {
	w.Helper()
	w.run(w.a, api.Operation{ID: id}, nil)
	w.clean(name, w.a)
	guest := w.lab.Guest(name)
	w.must(guest.WaitMore(w.ctx, w.b.Host, "vda", 3))
	if reports, err := guest.Verify(w.ctx, w.b.Host); err != nil {
		w.Errorf("%+v, %v", reports, err)
	}
	if boots, err := guest.Boots(w.ctx); err != nil || len(boots) != 2 {
		w.Errorf("%q: boots %q, %v; want two", name, boots, err)
	}
}

// What a guest does while its disks move, or its owner does to it, ends in the
// state that was asked for.
func TestGuestEventsWhileDisksMove(t *testing.T) {
	w := begin(t)
	w.happening(8*mib, func(id string) { w.copying(w.a, id) }, powersOff, losesQEMU, isReset, isPaused)
}

// The same while memory moves, with the disks kept in step.
func TestGuestEventsWhileMemoryMoves(t *testing.T) {
	w := begin(t)
	w.happening(mib, func(id string) { w.seenOp(w.a, id, "moving memory", movesMemory) }, powersOff, destroyed)
}

// happening has each event happen to a guest of its own, all at the same time,
// once seen has seen its migration where it is to happen.
func (w *world) happening(data int64, seen func(id string), events ...guestEvent) {
	w.Helper()
	w.atMost(2 * testTime)
	var names []string
	for i := range events {
		name := w.unique(fmt.Sprintf("e%d", i))
		names = append(names, name)
		w.must(w.lab.Guest(name).Forget(w.ctx))
		w.must(w.a.Define(w.ctx, harness.Domain{Name: name, MemoryMiB: 96, Options: "wherry.pace=20ms",
			Disks: []harness.Disk{{Target: "vda", Source: w.loaded(w.a, name+".qcow2", data)}}}.XML()))
		w.must(w.a.Start(w.ctx, name))
	}
	for _, name := range names {
		w.must(w.lab.Guest(name).WaitBlock(w.ctx, w.a.Host, "vda", 3))
	}
	w.rate(w.a, slow)
	ids := make([]string, len(events))
	for i, name := range names {
		ids[i] = w.begun(w.a, name, api.MigrateRequest{})
	}
	for i, e := range events {
		seen(ids[i])
		e.happens(w, names[i])
	}
	w.must(w.a.Rate(w.ctx, "off"))
	for i, e := range events {
		w.Logf("a guest that %s: %q, operation %s", e.name, names[i], ids[i])
		e.ends(w, names[i], ids[i])
	}
}
