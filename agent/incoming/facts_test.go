package incoming_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

func newService(w *world) (*incoming.Service, error) {
	return incoming.New(w.t.Context(), w.options)
}

func (w *world) facts(r api.FactsRequest) api.Facts {
	w.t.Helper()
	r.Project, r.Name, r.UUID = api.DefaultProject, "vm", uuid
	f, err := w.Facts(w.t.Context(), r)
	must(w.t, err)
	return f
}

func TestNameTaken(t *testing.T) {
	for _, c := range []struct {
		name   string
		domain hypervisor.Domain
		want   string
	}{
		{"another of that name", hypervisor.Domain{Name: "vm", UUID: "other", State: hypervisor.Shutoff}, "exists at the destination"},
		{"that UUID under another name", hypervisor.Domain{Name: "renamed", UUID: uuid, State: hypervisor.Shutoff}, `belongs to instance "renamed"`},
		{"the instance itself", hypervisor.Domain{Name: "vm", UUID: uuid, State: hypervisor.Shutoff}, "exists at the destination already (shutoff)"},
		{"neither", hypervisor.Domain{Name: "vm2", UUID: "other", State: hypervisor.Running}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.libvirt.set(c.domain)
			got := w.facts(api.FactsRequest{}).NameTaken
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("taken: %q; want %q", got, c.want)
			}
			if w.libvirt.asked != 1 {
				t.Errorf("domains were listed %d times", w.libvirt.asked)
			}
		})
	}
	w := newWorld(t)
	w.ready(w.request())
	if got := w.facts(api.FactsRequest{}).NameTaken; !strings.Contains(got, opID) {
		t.Errorf("taken: %q; want the operation that receives it", got)
	}
	w.libvirt.down = hypervisor.ErrDown
	_, err := w.Facts(t.Context(), api.FactsRequest{})
	wantProblem(t, err, "libvirt-failed")
}

func TestCPUAndMedia(t *testing.T) {
	w := newWorld(t)
	iso := filepath.Join(w.pool, "boot.iso")
	must(t, os.WriteFile(iso, nil, 0o600))
	f := w.facts(api.FactsRequest{Media: []string{iso, w.pool, "/none.iso"}})
	if !f.CPU.OK || !f.Media[iso] || f.Media[w.pool] || f.Media["/none.iso"] || len(f.Pools) != 3 || f.LibvirtURI == "" {
		t.Errorf("facts %+v", f)
	}
	w.libvirt.cpu = func() (bool, string, error) { return true, "", errors.New("unknown model") }
	if f := w.facts(api.FactsRequest{}); f.CPU.OK || !strings.Contains(f.CPU.Detail, "unknown model") {
		t.Errorf("CPU %+v; what could not be compared does not fit", f.CPU)
	}
}

// Who sees the source's probe file beside the disk has the same storage.
func TestProbes(t *testing.T) {
	w := newWorld(t)
	unlisted := t.TempDir()
	seen := func(dir, path string, change func(*volume.Probe)) api.DiskFacts {
		p, remove, err := volume.WriteProbe(dir)
		must(t, err)
		defer func() { must(t, remove()) }()
		if change != nil {
			change(&p)
		}
		f := w.facts(api.FactsRequest{Disks: []api.FactsDisk{{Target: "vda", Path: path, Kind: "file", Probe: &api.Probe{Name: p.Name, Token: p.Token}}}})
		return f.Disks[0]
	}
	for _, dir := range []string{w.pool, w.other, unlisted} {
		must(t, os.WriteFile(filepath.Join(dir, "vm.qcow2"), nil, 0o600))
	}
	if d := seen(w.other, "/mnt/elsewhere/vm.qcow2", nil); len(d.SharedPools) != 1 || d.SharedPools[0].Name != "other" || d.SharedPath != filepath.Join(w.other, "vm.qcow2") {
		t.Errorf("in a pool under another path: %+v", d)
	}
	if d := seen(unlisted, filepath.Join(unlisted, "vm.qcow2"), nil); d.SharedPath != filepath.Join(unlisted, "vm.qcow2") {
		t.Errorf("at the same path, in no pool: %+v", d)
	}
	if d := seen(w.other, "/mnt/elsewhere/absent.qcow2", nil); d.SharedPath != "" {
		t.Errorf("without the disk's file: %+v", d)
	}
	if d := seen(w.other, "/mnt/elsewhere/vm.qcow2", func(p *volume.Probe) { p.Token = strings.Repeat("0", 64) }); d.SharedPath != "" {
		t.Errorf("with another token: %+v", d)
	}
	if d := seen(w.other, "/mnt/elsewhere/vm.qcow2", func(p *volume.Probe) { p.Name = "vm.qcow2" }); d.SharedPath != "" {
		t.Errorf("with a name that is no probe's: %+v", d)
	}
}

// find asks for the backing layers below a disk.
func (w *world) find(layers ...api.Layer) []api.LayerFacts {
	w.t.Helper()
	f := w.facts(api.FactsRequest{Disks: []api.FactsDisk{{Target: "vda", Path: "/at/the/source/vda", Kind: "file",
		Chain: append([]api.Layer{{Path: "/at/the/source/vda", Format: "qcow2"}}, layers...)}}})
	if len(f.Disks[0].Layers) != len(layers) {
		w.t.Fatalf("layers %+v", f.Disks[0].Layers)
	}
	return f.Disks[0].Layers
}

func states(layers []api.LayerFacts) (out []string) {
	for _, l := range layers {
		out = append(out, l.State)
	}
	return out
}

// at is a layer of the source that has another path there.
func at(path string, l api.Layer) api.Layer { l.Path = path; return l }

func TestLayers(t *testing.T) {
	w := newWorld(t)
	same := qcow2(t, filepath.Join(w.pool, "base.qcow2"), "", "1")
	if got := w.find(same); got[0].State != "verified" || got[0].Path != same.Path || got[0].Digest != same.Digest {
		t.Errorf("same path, same bytes: %+v", got)
	}
	if got := w.find(at("/elsewhere/other.qcow2", same)); got[0].State != "verified" || got[0].Path != same.Path {
		t.Errorf("another path, same bytes: %+v", got)
	}
	// The trap: equal in name and size, and libvirt would take it.
	trap := same
	trap.Digest = "sha256:" + strings.Repeat("0", 64)
	if got := w.find(trap); got[0].State != "differs" || got[0].Path != same.Path || got[0].Detail == "" {
		t.Errorf("same path, other bytes: %+v", got)
	}
	if got := w.find(at("/elsewhere/other.qcow2", trap)); got[0].State != "missing" || got[0].Path != "" {
		t.Errorf("another path, other bytes: %+v", got)
	}
	unsaid := same
	unsaid.Digest = ""
	if got := w.find(unsaid); got[0].State == "verified" {
		t.Errorf("no digest proves nothing: %+v", got)
	}
	outside := qcow2(t, filepath.Join(t.TempDir(), "outside.qcow2"), "", "5")
	if got := w.find(outside); got[0].State != "missing" {
		t.Errorf("outside of the pools: %+v", got)
	}
	must(t, os.Symlink(outside.Path, filepath.Join(w.pool, "link.qcow2")))
	if got := w.find(at(filepath.Join(w.pool, "link.qcow2"), outside)); got[0].State == "verified" {
		t.Errorf("a link out of the pools: %+v", got)
	}
}

// The template's copy is named, and preferred.
func TestLayersKnowTemplates(t *testing.T) {
	w := newWorld(t)
	plain := qcow2(t, filepath.Join(w.pool, "base.qcow2"), "", "1")
	b, err := os.ReadFile(plain.Path)
	must(t, err)
	path := filepath.Join(w.other, "wherry-template.qcow2")
	must(t, os.WriteFile(path, b, 0o600))
	if got := w.find(plain); got[0].Template != "" {
		t.Errorf("a plain file: %+v", got)
	}
	w.reg.copies[plain.Digest] = path
	if got := w.find(plain); got[0].State != "verified" || got[0].Path != path || got[0].Template != "rocky9" {
		t.Errorf("layers %+v; want the template's copy", got)
	}
}

// Layers below the top one must be what the header above them names: the
// header is a copy of the source's, byte for byte.
func TestDeepLayers(t *testing.T) {
	w := newWorld(t)
	base := qcow2(t, filepath.Join(w.pool, "base.qcow2"), "", "1")
	middle := qcow2(t, filepath.Join(w.pool, "middle.qcow2"), base.Path, "2")
	top := qcow2(t, filepath.Join(w.pool, "top.qcow2"), middle.Path, "3")
	want := func(name string, got []api.LayerFacts, states_ ...string) {
		t.Helper()
		if !slices.Equal(states(got), states_) {
			t.Errorf("%s: %+v; want %v", name, got, states_)
		}
	}
	want("all there", w.find(top, middle, base), "verified", "verified", "verified")
	want("the source's chain is shorter", w.find(top, middle), "verified", "differs")
	// The base is there, but not where the header says.
	must(t, os.Rename(base.Path, filepath.Join(w.pool, "moved.qcow2")))
	want("the base is elsewhere", w.find(top, middle, base), "verified", "verified", "unreadable")
	qcow2(t, base.Path, "", "9")
	want("the base has other bytes", w.find(top, middle, base), "verified", "verified", "differs")
	must(t, os.Remove(middle.Path))
	want("the middle is gone", w.find(top, middle, base), "verified", "unreadable", "missing")
}

// The search is bounded: among many files of equal size only the first are
// read, and always the copy and the very path.
func TestCandidatesAreBounded(t *testing.T) {
	w := newWorld(t)
	wanted := qcow2(t, filepath.Join(w.pool, "zz-wanted.qcow2"), "", "1")
	for n := range 16 {
		path := filepath.Join(w.pool, fmt.Sprintf("decoy-%02d", n))
		must(t, os.WriteFile(path, []byte{byte(n)}, 0o600))
		must(t, os.Truncate(path, wanted.FileSize))
	}
	if got := w.find(at("/elsewhere/x.qcow2", wanted)); got[0].State != "missing" {
		t.Errorf("layers %+v; want the search to end", got)
	}
	if got := w.find(wanted); got[0].State != "verified" {
		t.Errorf("at the very path: %+v", got)
	}
	w.reg.copies[wanted.Digest] = wanted.Path
	if got := w.find(at("/elsewhere/x.qcow2", wanted)); got[0].State != "verified" {
		t.Errorf("the template's copy: %+v", got)
	}
}
