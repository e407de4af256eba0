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
	w.libvirt.fail["targets true"] = api.NewProblem("target-failed", "login refused")
	w.failed(w.Start(t.Context(), ref, api.Idempotency{}))("target-failed")
	if got := w.libvirt.deeds(); got[len(got)-1] != "targets true" {
		t.Errorf("did %v; want no start without its storage", got)
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

type stops struct {
	rung   string
	d      time.Duration
	forced int
}

func (s *stops) Stop(rung string, d time.Duration) { s.rung, s.d = rung, d }
func (s *stops) ForcedStop()                       { s.forced++ }

func TestStop(t *testing.T) {
	for _, c := range []struct {
		name  string
		state hypervisor.State
		r     api.StopRequest
		press func(int) bool
		rung  string // "" = it fails
		code  string
	}{
		{name: "stopped already", state: hypervisor.Shutoff, rung: "already"},
		{name: "at the first press", state: hypervisor.Running, press: func(int) bool { return true }, rung: "acpi"},
		{name: "pressed while it booted", state: hypervisor.Running, press: func(n int) bool { return n == 3 }, rung: "acpi"},
		{name: "it does not listen", state: hypervisor.Running, r: api.StopRequest{Timeout: api.Duration(time.Minute)}, code: "timeout"},
		{name: "it does not listen, and may be forced", state: hypervisor.Running, r: api.StopRequest{OnTimeout: "force"}, rung: "destroy"},
		{name: "forced at once", state: hypervisor.Running, r: api.StopRequest{Force: true}, press: func(int) bool { return true }, rung: "destroy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.have(c.state, true)
			w.libvirt.press = c.press
			seen := &stops{}
			w.Observer = seen
			op, err := w.Stop(t.Context(), ref, c.r, api.Idempotency{})
			if c.code != "" {
				w.failed(op, err)(c.code)
				d, _ := w.libvirt.Domain(t.Context(), "vm")
				if rec, _ := w.record(); !d.Active() || rec.PowerState != "running" || seen.rung != "" {
					t.Errorf("domain %+v, record %+v, observed %+v; want it running on", d, rec, seen)
				}
				return
			}
			op = w.succeeded(op, err)
			rec, _ := w.record()
			if got := result[api.StopResult](t, op).Rung; got != c.rung || seen.rung != c.rung || seen.d <= 0 || rec.PowerState != "stopped" {
				t.Errorf("rung %q, observed %+v, record %+v; want %q", got, seen, rec, c.rung)
			}
			if (seen.forced == 1) != (c.rung == "destroy") || !slices.Contains(w.libvirt.deeds(), "targets false") {
				t.Errorf("observed %+v, did %v", seen, w.libvirt.deeds())
			}
			if c.r.Force && slices.Contains(w.libvirt.deeds(), "press") {
				t.Errorf("did %v; force asks nobody", w.libvirt.deeds())
			}
		})
	}
}

// What cannot be released is said; the instance is down all the same.
func TestStopTellsWhatRemains(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	w.libvirt.press = func(int) bool { return true }
	w.libvirt.fail["targets false"] = errors.New("session is in use")
	p := w.failed(w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{}))("internal")
	if rec, _ := w.record(); rec.PowerState != "stopped" || !strings.Contains(p.Detail, "session is in use") {
		t.Errorf("record %+v, problem %v", rec, p)
	}
}

func TestOfAnInstanceThatIsNotThere(t *testing.T) {
	w := newWorld(t)
	_, start := w.Start(t.Context(), ref, api.Idempotency{})
	_, stop := w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
	_, del := w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{})
	_, get := w.Get(t.Context(), ref)
	for _, err := range []error{start, stop, del, get} {
		if api.CodeOf(err) != "not-found" {
			t.Errorf("error %v", err)
		}
	}
}
