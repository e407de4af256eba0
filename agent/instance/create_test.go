package instance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/instance"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

func TestCreate(t *testing.T) {
	for _, c := range []struct {
		clone  string
		layers int
		direct bool
	}{{"", 2, true}, {"linked", 2, true}, {"full", 1, false}} {
		t.Run("clone "+c.clone, func(t *testing.T) {
			w := newWorld(t)
			op := w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9", DiskSize: 8 * mib, Clone: c.clone}))
			path := filepath.Join(w.pool, "vm.qcow2")
			chain, err := volume.Walk(path, volume.FormatQcow2, []string{w.pool})
			if err != nil || len(chain) != c.layers || chain[0].VirtualSize != 8*mib {
				t.Errorf("chain %+v, %v; want %d layers of 8 MiB", chain, err, c.layers)
			}
			rec, ok := w.record()
			if !ok || rec.UUID == "" || rec.UUID != result[map[string]string](t, op)["uuid"] || rec.PowerState != "stopped" || rec.DomainXML == "" {
				t.Fatalf("record %+v, result %v", rec, op.Result)
			}
			if d := rec.Disks[0]; !d.Owned || d.Path != path || d.Pool != "default" || d.Template != "rocky9" || d.DirectDownload != c.direct {
				t.Errorf("recorded disk %+v", d)
			}
			if _, ref := w.reg.refs[path]; ref != (c.layers == 2) {
				t.Errorf("refs %v", w.reg.refs)
			}
			if d, err := w.libvirt.Domain(t.Context(), "vm"); err != nil || d.Active() {
				t.Errorf("domain %+v, %v", d, err)
			}
		})
	}
}

// A template whose copy was deleted as unused is fetched again, within the
// operation; what is wrong with that is what is wrong with the creation.
func TestCreateFromACollectedTemplate(t *testing.T) {
	w := newWorld(t)
	w.reg.err, w.reg.collected = api.NewProblem("precondition", "deleted: nothing stood on it"), true
	op := w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9"}))
	if len(op.Steps) == 0 || op.Steps[0].Name != "template" || len(w.reg.refs) != 1 {
		t.Errorf("steps %+v, refs %v", op.Steps, w.reg.refs)
	}
	w = newWorld(t)
	w.reg.err, w.reg.collected, w.reg.bringErr = api.NewProblem("precondition", "deleted"), true, api.NewProblem("template-failed", "no route to it")
	op = w.ended(w.create(api.CreateRequest{Name: "vm", Template: "rocky9"}))
	if op.Status != api.StatusFailed || op.Error.Code != "template-failed" || op.Error.Phase != "template" || len(w.reg.refs) != 0 {
		t.Errorf("operation %s, %+v", op.Status, op.Error)
	}
}

// The record is on disk before the process exists.
func TestCreateAndStart(t *testing.T) {
	w := newWorld(t)
	w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9", Start: true}))
	if got := w.libvirt.deeds(); !slices.Equal(got, []string{"define", "refresh default", "start"}) {
		t.Errorf("did %v", got)
	}
	if rec, _ := w.record(); rec.PowerState != "running" {
		t.Errorf("record %+v", rec)
	}
}

func TestCreateIsRefusedAtOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world)
		r      api.CreateRequest
		code   string
	}{
		{"a disk smaller than the template", nil, api.CreateRequest{Name: "vm", Template: "rocky9", DiskSize: mib}, "bad-request"},
		{"a pool that is not there", nil, api.CreateRequest{Name: "vm", Template: "rocky9", Pool: "fast"}, "bad-request"},
		{"a template that is not ready", func(w *world) { w.reg.err = api.NewProblem("precondition", "downloading") },
			api.CreateRequest{Name: "vm", Template: "rocky9"}, "precondition"},
		{"XML that is none", nil, api.CreateRequest{Name: "vm", DomainXML: "<domain>"}, "bad-request"},
		{"XML of another name", nil, api.CreateRequest{Name: "vm", DomainXML: "<domain><name>other</name></domain>"}, "bad-request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.change != nil {
				c.change(w)
			}
			if _, err := w.create(c.r); api.CodeOf(err) != c.code {
				t.Errorf("error %v; want %s", err, c.code)
			}
			if got := w.files(); len(got) != 1 || len(w.libvirt.deeds()) != 0 {
				t.Errorf("files %v, did %v", got, w.libvirt.deeds())
			}
		})
	}
}

// A create that fails leaves what was there, and nothing of its own.
func TestCreateUndoes(t *testing.T) {
	for _, step := range []string{"define", "start"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.libvirt.fail[step] = errors.New("no room at the inn")
			p := w.failed(w.create(api.CreateRequest{Name: "vm", Template: "rocky9", Start: true}))("libvirt-failed")
			if p.Phase != step || !strings.Contains(p.Detail, "no room at the inn") {
				t.Errorf("problem %+v", p)
			}
			if _, ok := w.record(); ok || !slices.Equal(w.files(), []string{"base.qcow2"}) || len(w.reg.refs) != 0 {
				t.Errorf("record %v, files %v, refs %v", ok, w.files(), w.reg.refs)
			}
			if _, err := w.libvirt.Domain(t.Context(), "vm"); !errors.Is(err, hypervisor.ErrNoDomain) {
				t.Errorf("domain: %v", err)
			}
		})
	}
}

func TestCreateTouchesNothingOfOthers(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.pool, "vm.qcow2")
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	w.failed(w.create(api.CreateRequest{Name: "vm", Template: "rocky9"}))("conflict")
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file holds %q", b)
	}
	w.libvirt.set(hypervisor.Domain{Name: "taken", UUID: "theirs", State: hypervisor.Shutoff})
	w.failed(w.create(api.CreateRequest{Name: "taken", Template: "rocky9"}))("conflict")
	if _, err := w.libvirt.Domain(t.Context(), "taken"); err != nil {
		t.Errorf("the other instance is gone: %v", err)
	}
	if slices.Contains(w.files(), "taken.qcow2") {
		t.Errorf("files %v", w.files())
	}
}

// The caller's own XML is used as it is; its volumes are not ours.
func TestCreateFromXML(t *testing.T) {
	w := newWorld(t)
	xml := "<domain type='kvm'><name>vm</name><uuid>11111111-2222-4333-8444-555555555555</uuid><memory>1024</memory><devices>" +
		"<disk type='file' device='disk'><driver type='qcow2'/><source file='" + w.reg.path + "'/><target dev='vda'/></disk></devices></domain>"
	w.succeeded(w.create(api.CreateRequest{Name: "vm", DomainXML: xml}))
	rec, _ := w.record()
	if rec.DomainXML != xml || len(rec.Disks) != 1 || rec.Disks[0].Owned || rec.Disks[0].Path != w.reg.path {
		t.Errorf("record %+v", rec)
	}
	w.succeeded(w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{}))
	if !slices.Equal(w.files(), []string{"base.qcow2"}) {
		t.Errorf("files %v; want the caller's kept", w.files())
	}
}

// dieIn has the agent stop while libvirt does something, and start anew.
func (w *world) dieIn(call string, begin func() (api.Operation, error), meanwhile func()) api.Operation {
	w.t.Helper()
	w.libvirt.hang, w.libvirt.hung = call, make(chan struct{})
	op, err := begin()
	must(w.t, err)
	<-w.libvirt.hung
	w.closeEngine()
	w.libvirt.hang = ""
	if meanwhile != nil {
		meanwhile()
	}
	w.engine, err = operation.Open(operation.Options{Store: w.store})
	must(w.t, err)
	w.options.Operations = w.engine
	w.Service = instance.New(w.options)
	must(w.t, w.engine.Resume(w.t.Context()))
	return w.ended(op, nil)
}

// A create that the agent did not live to finish is taken back, unless only
// its answer was missing.
func TestCreateIsRecovered(t *testing.T) {
	for _, c := range []struct {
		name, dies string
		meanwhile  func(w *world)
		status     string
		files      []string
	}{
		{"before the definition", "define", nil, api.StatusFailed, []string{"base.qcow2"}},
		{"before the record", "refresh default", nil, api.StatusFailed, []string{"base.qcow2"}},
		{"before the start", "start", nil, api.StatusFailed, []string{"base.qcow2"}},
		{"all but the answer", "start", func(w *world) { w.libvirt.state("vm", hypervisor.Running) }, api.StatusSucceeded, []string{"base.qcow2", "vm.qcow2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			after := w.dieIn(c.dies, func() (api.Operation, error) {
				return w.create(api.CreateRequest{Name: "vm", Template: "rocky9", Start: true})
			}, func() {
				if c.meanwhile != nil {
					c.meanwhile(w)
				}
			})
			if after.Status != c.status {
				t.Fatalf("after the restart: %s, %v", after.Status, after.Error)
			}
			if c.status == api.StatusFailed && after.Error.Code != "interrupted" {
				t.Errorf("problem %+v", after.Error)
			}
			_, err := w.libvirt.Domain(t.Context(), "vm")
			if kept := c.status == api.StatusSucceeded; !slices.Equal(w.files(), c.files) || (len(w.reg.refs) == 1) != kept || (err == nil) != kept {
				t.Errorf("files %v, refs %v, domain %v", w.files(), w.reg.refs, err)
			}
		})
	}
}
