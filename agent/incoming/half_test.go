package incoming_test

import (
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Libvirt calls a guest running in post-copy, though a part of its memory is
// still at its silent source: it is not this host's yet.
func TestPostCopyIsNotCommittedBeforeItsEnd(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	half := hypervisor.Domain{State: hypervisor.Running, Reason: "postcopy"}
	w.arrive(half)
	w.overdue()
	in, err := w.Get(t.Context(), opID)
	must(t, err)
	if in.State != "ready" || in.Held != "" {
		t.Fatalf("in post-copy: %s, held %q", in.State, in.Held)
	}
	half.Reason = "migrated"
	w.arrive(half)
	w.overdue()
	if in, err = w.Get(t.Context(), opID); err != nil || in.State != "committed" {
		t.Errorf("after it: %s, %v", in.State, err)
	}
}

// Half a guest is held for a decision, and neither choice is carried out with it.
func TestBrokenPostCopyIsHeld(t *testing.T) {
	for _, state := range []hypervisor.State{hypervisor.Running, hypervisor.Paused} {
		w := newWorld(t)
		w.ready(w.request())
		w.arrive(hypervisor.Domain{State: state, Reason: "postcopy-failed"})
		w.overdue()
		in, err := w.Get(t.Context(), opID)
		must(t, err)
		if in.State != "ready" || !strings.Contains(in.Held, "post-copy has broken off") {
			t.Errorf("%s: %s, held %q", state, in.State, in.Held)
		}
		for _, c := range []api.ResolveRequest{{Keep: api.SideDestination, OtherHost: api.OtherDown}, {Keep: api.SideSource, OtherHost: api.OtherHasIt}} {
			_, err := w.Resolve(t.Context(), opID, c)
			wantProblem(t, err, "conflict", "post-copy has broken off")
		}
		if w.libvirt.state() != string(state) {
			t.Errorf("it was %s and is %s", state, w.libvirt.state())
		}
		// Its owner gives it up here, and then decides.
		w.libvirt.set()
		_, err = w.Resolve(t.Context(), opID, api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherDown})
		must(t, err)
		w.wantFiles("vm.qcow2")
	}
}
