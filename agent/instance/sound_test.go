package instance_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
)

const lostBase = `template "rocky9", whose copy on pool "default" is lost: the file is gone (state missing); the next attempt is at 12:05`

// onLostBase has disk vda stand on a copy that is gone, and vdb on nothing.
func (w *world) onLostBase() {
	w.reg.lost = map[string]string{w.reg.path: lostBase}
	w.next = func(name string) (template.Chains, error) {
		if name != ref.Name {
			return template.Chains{}, errors.New("asked for another instance")
		}
		return template.Chains{Uses: []template.Use{
			{Disk: "vda", Volume: "/pool/a", Layers: []template.File{{Path: "/pool/a"}, {Path: w.reg.path}}},
			{Disk: "vdb", Volume: "/pool/b", Layers: []template.File{{Path: "/pool/b"}}},
		}}, nil
	}
}

// An instance that stands on a lost template is not started, and nothing is
// done for it: the problem names the template, what has become of it and when
// it is tried again.
func TestStartOnALostTemplate(t *testing.T) {
	for name, start := range map[string]func(w *world) (api.Operation, error){
		"start": func(w *world) (api.Operation, error) { return w.Start(w.t.Context(), ref, api.Idempotency{}) },
		"restart": func(w *world) (api.Operation, error) {
			return w.Restart(w.t.Context(), ref, api.StopRequest{}, api.Idempotency{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.have(hypervisor.Shutoff, true)
			w.onLostBase()
			fails := w.failed(start(w))
			p := fails("precondition")
			want := []api.Reason{{Code: "template-lost", Disk: "vda", Detail: "disk vda stands on " + lostBase}}
			if d := cmp.Diff(want, p.Reasons); d != "" || !strings.Contains(p.Detail, lostBase) || !strings.Contains(p.Hint, "template retry") {
				t.Errorf("problem %+v: %s", p, d)
			}
			if did := w.libvirt.deeds(); len(did) != 0 {
				t.Errorf("did %v", did)
			}
			w.owed(false)
			w.reg.lost = nil // it came back
			w.succeeded(start(w))
		})
	}
}

// One that runs has its files open, and is not stopped when it could not start
// again.
func TestRestartOnALostTemplate(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	w.onLostBase()
	fails := w.failed(w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{}))
	if p := fails("precondition"); len(p.Reasons) != 1 {
		t.Errorf("problem %+v", p)
	}
	if did := w.libvirt.deeds(); len(did) != 0 {
		t.Errorf("did %v", did)
	}
	if d, err := w.libvirt.Domain(t.Context(), "vm"); err != nil || !d.Active() {
		t.Errorf("domain %+v, %v", d, err)
	}
	// Nor is a start of it refused: it runs.
	w.succeeded(w.Start(t.Context(), ref, api.Idempotency{}))
}

// What cannot be read is libvirt's to judge.
func TestStartOnWhatIsNotKnown(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Shutoff, true)
	w.next = func(string) (template.Chains, error) { return template.Chains{}, errors.New("no answer") }
	w.succeeded(w.Start(t.Context(), ref, api.Idempotency{}))
	if !slices.Contains(w.libvirt.deeds(), "start") {
		t.Errorf("did %v", w.libvirt.deeds())
	}
}

// A create that is to start takes back what it made.
func TestCreateOnALostTemplate(t *testing.T) {
	w := newWorld(t)
	w.onLostBase()
	before := w.files()
	fails := w.failed(w.create(api.CreateRequest{Name: "vm", Template: "rocky9", Start: true}))
	if p := fails("precondition"); !strings.Contains(p.Detail, lostBase) {
		t.Errorf("problem %+v", p)
	}
	if diff := cmp.Diff(before, w.files()); diff != "" {
		t.Errorf("left: %s", diff)
	}
	if _, err := w.libvirt.Domain(t.Context(), "vm"); !errors.Is(err, hypervisor.ErrNoDomain) {
		t.Errorf("domain: %v", err)
	}
}
