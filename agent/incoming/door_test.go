package incoming_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/queue"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// of is a reservation for another instance.
func (w *world) of(name string) api.IncomingRequest {
	r := w.request()
	r.Operation, r.Name, r.UUID = "op-"+name, name, uuid[:len(uuid)-2]+name
	r.Disks[0].Place.Path = filepath.Join(w.pool, name+".qcow2")
	return r
}

func (w *world) wantFull(r api.IncomingRequest, parts ...string) *api.QueuePlace {
	w.t.Helper()
	_, err := w.Reserve(w.t.Context(), r)
	p := wantProblem(w.t, err, "busy", parts...)
	if p.Status != 409 || len(p.Reasons) != 1 || p.Reasons[0].Code != api.IncomingFull || p.Hint == "" {
		w.t.Errorf("problem %+v; want 409 with the reason %s", p, api.IncomingFull)
	}
	return p.Queue
}

// As many arrive at once as may; the sources of others are told to ask again,
// and come in in their order.
func TestSoManyAtOnce(t *testing.T) {
	w := newWorld(t)
	w.options.AtOnce = 1
	w.start()
	w.ready(w.request())
	w.ready(w.request()) // the same once more is no other
	w.wantFull(w.of("v2"), "1 instances", "0 others")
	got := w.wantFull(w.of("v3"), "1 others")
	if diff := cmp.Diff(&api.QueuePlace{Direction: api.QueueIncoming, Position: 2, Ahead: []string{"op-v2"}, Operations: []string{opID}}, got); diff != "" {
		t.Errorf("its place (-want +got):\n%s", diff)
	}
	if w.Waiting() != 2 {
		t.Errorf("%d wait; want 2", w.Waiting())
	}
	w.wantFiles("vm.qcow2")

	must(t, w.Remove(t.Context(), opID))
	w.wantFull(w.of("v3"))
	w.ready(w.of("v2"))
	w.wantFull(w.of("v3"), "0 others")
	must(t, w.Remove(t.Context(), "op-v3")) // its source has given up
	if w.Waiting() != 0 {
		t.Errorf("%d wait; want none", w.Waiting())
	}

	// One that has arrived takes no place any more.
	w.libvirt.set(hypervisor.Domain{Name: "v2", UUID: w.of("v2").UUID, State: hypervisor.Running})
	_, err := w.Commit(t.Context(), "op-v2", api.CommitRequest{})
	must(t, err)
	w.ready(w.of("v4"))
}

// A source that is gone keeps nobody out.
func TestGoneFromTheDoor(t *testing.T) {
	w := newWorld(t)
	w.options.AtOnce = 1
	w.start()
	w.ready(w.request())
	w.wantFull(w.of("v2"))
	must(t, w.Remove(t.Context(), opID))
	w.wantFull(w.of("v3"), "1 others")
	w.pass(queue.Patience + time.Second)
	w.ready(w.of("v3"))
}

// After a restart of the agent the reservations that it has still count.
func TestFullAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.options.AtOnce = 1
	w.start()
	w.wantFull(w.of("v2"))
}

// They come in in the order in which they asked first, though the agent was
// restarted and they ask again in another.
func TestOrderAtTheDoorOutlivesARestart(t *testing.T) {
	w := newWorld(t)
	w.options.AtOnce = 1
	w.start()
	w.ready(w.request())
	w.wantFull(w.of("v2"))
	w.wantFull(w.of("v3"), "1 others")
	w.wantFull(w.of("v4"), "2 others")
	must(t, w.Remove(t.Context(), "op-v3")) // has given up, and stays so
	w.start()
	if w.Waiting() != 2 {
		t.Errorf("%d wait after the restart; want 2", w.Waiting())
	}
	must(t, w.Remove(t.Context(), opID))
	w.wantFull(w.of("v5"), "2 others")
	w.wantFull(w.of("v4"), "1 others")
	w.ready(w.of("v2"))
	must(t, w.Remove(t.Context(), "op-v2"))
	w.start()
	w.wantFull(w.of("v5"), "1 others")
	w.ready(w.of("v4"))
}

// One who does not come back after a restart keeps nobody out for long.
func TestGoneFromTheDoorAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.options.AtOnce = 1
	w.start()
	w.ready(w.request())
	w.wantFull(w.of("v2"))
	must(t, w.Remove(t.Context(), opID))
	w.start()
	w.wantFull(w.of("v3"), "1 others")
	w.pass(queue.Patience + time.Second)
	w.ready(w.of("v3"))
}
