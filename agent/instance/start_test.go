package instance_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const uuid = "11111111-2222-4333-8444-555555555555"

// have puts an instance on the host, with a record and a connected target.
func (w *world) have(s hypervisor.State, managed bool) {
	w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: uuid, State: s, Persistent: true})
	w.libvirt.xml["vm"] = "<domain><name>vm</name></domain>"
	if managed {
		must(w.t, w.Records.Write(api.Record{Project: api.DefaultProject, Name: "vm", UUID: uuid, PowerState: string(s),
			Targets: []api.Target{{Type: "iscsi", IQN: "iqn.x"}}}))
	}
}

// Targets first, then the record, then the process.
func TestStart(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Shutoff, true)
	w.succeeded(w.Start(t.Context(), ref, api.Idempotency{}))
	rec, _ := w.record()
	if got := w.libvirt.deeds(); !slices.Equal(got, []string{"targets true", "start"}) || rec.PowerState != "running" || rec.DomainXML == "" {
		t.Errorf("did %v, record %+v", got, rec)
	}
	w.owed(false)
	w.succeeded(w.Start(t.Context(), ref, api.Idempotency{}))
	if got := w.libvirt.deeds(); len(got) != 2 {
		t.Errorf("did %v; want nothing for one that runs", got)
	}
}

func TestStartFails(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Shutoff, true)
	w.libvirt.fail["start"] = errors.New("cannot allocate memory")
	p := w.failed(w.Start(t.Context(), ref, api.Idempotency{}))("libvirt-failed")
	if rec, _ := w.record(); rec.PowerState != "stopped" || !strings.Contains(p.Detail, "allocate") {
		t.Errorf("record %+v, problem %v", rec, p)
	}
	if got := w.libvirt.deeds(); !slices.Equal(got, []string{"targets true", "start", "targets false"}) {
		t.Errorf("did %v; want what was connected disconnected", got)
	}
	w.owed(false)
	w.libvirt.fail["targets true"] = api.NewProblem("target-failed", "login refused")
	w.failed(w.Start(t.Context(), ref, api.Idempotency{}))("target-failed")
	if got := w.libvirt.deeds(); slices.Contains(got[3:], "start") {
		t.Errorf("did %v; want no start without its storage", got)
	}
}

// What another process is disconnecting is not connected before that is over.
func TestStartWaitsForACleanUp(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Shutoff, true)
	release, err := w.Cleaner.Guard(t.Context(), api.Ref{Project: api.DefaultProject, Name: "vm"})
	must(t, err)
	op, err := w.Start(t.Context(), ref, api.Idempotency{})
	must(t, err)
	if op, err := w.Operations.Wait(t.Context(), op.ID, 100*time.Millisecond); err != nil || op.Ended() {
		t.Errorf("operation %+v, %v; want it waiting", op, err)
	}
	if got := w.libvirt.deeds(); len(got) != 0 {
		t.Errorf("did %v meanwhile", got)
	}
	release()
	w.succeeded(op, nil)
	if got := w.libvirt.deeds(); !slices.Equal(got, []string{"targets true", "start"}) {
		t.Errorf("did %v", got)
	}
}

// An instance that Wherry did not create is started just the same, and gets no record.
func TestStartUnmanaged(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Shutoff, false)
	w.succeeded(w.Start(t.Context(), ref, api.Idempotency{}))
	if _, ok := w.record(); ok || !slices.Equal(w.libvirt.deeds(), []string{"start"}) {
		t.Errorf("record %v, did %v", ok, w.libvirt.deeds())
	}
}

func TestOfAnInstanceThatIsNotThere(t *testing.T) {
	w := newWorld(t)
	_, start := w.Start(t.Context(), ref, api.Idempotency{})
	_, restart := w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
	_, stop := w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
	_, del := w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{})
	_, get := w.Get(t.Context(), ref)
	for _, err := range []error{start, restart, stop, del, get} {
		if api.CodeOf(err) != "not-found" {
			t.Errorf("error %v", err)
		}
	}
}

// A start that the agent did not live to finish is finished, in whichever step.
func TestStartIsRecovered(t *testing.T) {
	for _, step := range []string{"targets true", "start"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.have(hypervisor.Shutoff, true)
			op := w.dieIn(step, func() (api.Operation, error) { return w.Start(t.Context(), ref, api.Idempotency{}) }, func() { w.owed(true) })
			d, err := w.libvirt.Domain(t.Context(), "vm")
			if rec, _ := w.record(); op.Status != api.StatusSucceeded || err != nil || !d.Active() || rec.PowerState != "running" {
				t.Errorf("operation %+v, domain %+v, record %+v", op, d, rec)
			}
			w.owed(false)
		})
	}
}

// Before the process is made a start can be cancelled, and leaves nothing.
func TestStartIsCancelled(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Shutoff, true)
	w.libvirt.hang, w.libvirt.hung = "targets true", make(chan struct{})
	op, err := w.Start(t.Context(), ref, api.Idempotency{})
	must(t, err)
	<-w.libvirt.hung
	_, err = w.engine.Cancel(t.Context(), op.ID)
	must(t, err)
	if got := w.ended(op, nil); got.Status != api.StatusCancelled {
		t.Errorf("operation %+v", got)
	}
	if rec, _ := w.record(); rec.PowerState != "stopped" || slices.Contains(w.libvirt.deeds(), "start") {
		t.Errorf("record %+v, did %v", rec, w.libvirt.deeds())
	}
	w.owed(false)
}
