package incoming_test

import (
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// The source is heard again just when its lease is found to be over: it goes on
// to move the instance, onto volumes that must still be there.
func TestLeaseIsRenewedWhileItRunsOut(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.pass(lease + time.Second)
	w.libvirt.looks = 0
	w.libvirt.onDomain = func(n int) {
		if n == 1 { // the sweep looks where the instance is
			_, err := w.Renew(t.Context(), opID)
			must(t, err)
		}
	}
	w.Sweep(t.Context())
	in, err := w.Renew(t.Context(), opID)
	if err != nil || in.State != "ready" {
		t.Errorf("reservation %+v, %v; want it kept", in, err)
	}
	w.wantFiles("vm.qcow2")
}

// Whoever renews while it is taken back is told, and moves nothing.
func TestRenewWhileTakenBack(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.libvirt.looks = 0
	state := ""
	w.libvirt.onDomain = func(n int) {
		if n == 1 {
			in, err := w.Renew(t.Context(), opID)
			must(t, err)
			state = in.State
		}
	}
	must(t, w.Remove(t.Context(), opID))
	if state != "failed" {
		t.Errorf("a reservation that is being taken back was %q", state)
	}
	w.wantFiles()
}

// One that cannot be taken back is as good as before.
func TestRefusedRemoveChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Running})
	wantProblem(t, w.Remove(t.Context(), opID), "conflict")
	if in, err := w.Get(t.Context(), opID); err != nil || in.State != "ready" || in.Error != nil {
		t.Errorf("reservation %+v, %v", in, err)
	}
}

// An instance that has just left may not come back while its last operation
// here is still cleaning up.
func TestReserveWhileThisHostWorksOnIt(t *testing.T) {
	w := newWorld(t)
	holder := "01OLD"
	w.options.Busy = func(ref api.Ref) string {
		if ref.Name != "vm" {
			t.Errorf("asked for %q", ref)
		}
		return holder
	}
	w.start()
	r := w.request()
	_, err := w.Reserve(t.Context(), r)
	if p := wantProblem(t, err, "busy", "01OLD"); p.Operation != "01OLD" {
		t.Errorf("operation %q", p.Operation)
	}
	f, err := w.Facts(t.Context(), api.FactsRequest{Project: r.Project, Name: r.Name, UUID: r.UUID})
	if err != nil || f.NameTaken == "" {
		t.Errorf("facts %+v, %v; want it said before anything is prepared", f, err)
	}
	w.wantFiles()
	holder = ""
	w.ready(r)
}

// Three disks of three folders may have one name.
func TestDisksOfOneName(t *testing.T) {
	w := newWorld(t)
	r := w.request()
	for _, target := range []string{"vdb", "vdc"} {
		d := r.Disks[0]
		d.Target = target
		r.Disks = append(r.Disks, d)
	}
	in := w.ready(r)
	seen := map[string]bool{}
	for _, d := range in.Disks {
		seen[d.Path] = true
	}
	if len(seen) != 3 || len(w.files()) != 3 {
		t.Errorf("disks %+v, files %v", in.Disks, w.files())
	}
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles()
}

// What is on its way here is the migration's until its source has confirmed.
func TestArrivingIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	r := w.request()
	here := api.Ref{Project: r.Project, Name: r.Name}
	must(t, w.Arriving(here))
	w.ready(r)
	w.arrive(hypervisor.Domain{State: hypervisor.Running, Persistent: true})
	wantProblem(t, w.Arriving(here), "busy")
	must(t, w.Arriving(api.Ref{Project: r.Project, Name: "another"}))
	_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
	must(t, err)
	must(t, w.Arriving(here))
}

// What was taken back while somebody looked at it stays forgotten, for the
// agent's next start, too.
func TestForgottenWhileLookedAt(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.pass(lease + time.Second)
	w.libvirt.looks = 0
	w.libvirt.onDomain = func(n int) {
		if n == 1 { // the sweep looks where the instance is
			must(t, w.Remove(t.Context(), opID))
			w.arrive(hypervisor.Domain{State: hypervisor.Paused, Incoming: true})
		}
	}
	w.Sweep(t.Context())
	w.wantJournal(0)
	w.start()
	_, err := w.Get(t.Context(), opID)
	wantProblem(t, err, "not-found")
}

// A decision may be carried out by who made it and by the sweep at the same time.
func TestDecisionIsCarriedOutTwiceAtOnce(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Paused})
	w.overdue()
	var sweep sync.WaitGroup
	begun := make(chan struct{})
	w.libvirt.onDestroy = func() {
		w.libvirt.onDestroy = nil
		sweep.Go(func() { close(begun); w.Sweep(t.Context()) })
		<-begun
	}
	_, err := w.Resolve(t.Context(), opID, api.ResolveRequest{Keep: api.SideSource, OtherHost: api.OtherHasIt})
	must(t, err)
	sweep.Wait()
	w.wantJournal(0)
	w.wantFiles("vm.qcow2")
}
