package instance_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestDelete(t *testing.T) {
	for _, c := range []struct {
		name  string
		keep  bool
		files []string
	}{
		{"with its volumes", false, []string{"base.qcow2"}},
		{"volumes kept", true, []string{"base.qcow2", "vm.qcow2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9"}))
			w.succeeded(w.Delete(t.Context(), ref, api.DeleteRequest{KeepVolumes: c.keep}, api.Idempotency{}))
			if _, ok := w.record(); ok || !slices.Equal(w.files(), c.files) || (len(w.reg.refs) == 1) != c.keep {
				t.Errorf("record %v, files %v, refs %v", ok, w.files(), w.reg.refs)
			}
			if _, err := w.libvirt.Domain(t.Context(), "vm"); !errors.Is(err, hypervisor.ErrNoDomain) {
				t.Errorf("domain: %v", err)
			}
		})
	}
}

func TestDeleteIsRefused(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Paused, true)
	if _, err := w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{}); api.CodeOf(err) != "precondition" {
		t.Errorf("a paused instance: %v", err)
	}
	w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: uuid, State: hypervisor.Shutoff, Snapshots: 1})
	if _, err := w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{}); api.CodeOf(err) != "precondition" {
		t.Errorf("with snapshots: %v", err)
	}
	if len(w.libvirt.deeds()) != 0 {
		t.Errorf("did %v", w.libvirt.deeds())
	}
}

// A domain that cannot be undefined keeps its volumes.
func TestDeleteFails(t *testing.T) {
	w := newWorld(t)
	w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9"}))
	w.libvirt.fail["undefine"] = errors.New("has managed save")
	w.failed(w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{}))("libvirt-failed")
	if _, ok := w.record(); !ok || !slices.Contains(w.files(), "vm.qcow2") {
		t.Errorf("record %v, files %v", ok, w.files())
	}
}

// The record of an instance that is gone says nothing about the one that has
// its name now: its volumes are somebody's.
func TestDeleteTakesNoVolumesOfAnEarlierInstance(t *testing.T) {
	w := newWorld(t)
	w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9"}))
	w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: "22222222-2222-4333-8444-555555555555", State: hypervisor.Shutoff})
	w.succeeded(w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{}))
	if _, err := os.Stat(filepath.Join(w.pool, "vm.qcow2")); err != nil {
		t.Errorf("the volume is gone: %v", err)
	}
}

// A volume may have been given to another instance since, or be the base of
// another's. That one is stopped, and nobody has the file open.
func TestDeleteTakesNothingFromAnother(t *testing.T) {
	for name, disk := range map[string]string{
		"as its disk": "vm.qcow2", "by another name": "link.qcow2", "as its base": "overlay.qcow2", "below its base": "top.qcow2",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9"}))
			at := func(file string) string { return filepath.Join(w.pool, file) }
			for file, base := range map[string]string{"overlay.qcow2": "vm.qcow2", "top.qcow2": "overlay.qcow2"} {
				must(t, exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", at(base), "-F", "qcow2", at(file), "4M").Run())
			}
			must(t, os.Symlink(at("vm.qcow2"), at("link.qcow2")))
			must(t, w.libvirt.Define(t.Context(), "<domain><name>other</name><uuid>22222222-2222-4333-8444-555555555555</uuid><devices><disk type='file' device='disk'>"+
				"<driver name='qemu' type='qcow2'/><source file='"+at(disk)+"'/><target dev='vda'/></disk></devices></domain>"))
			p := w.failed(w.Delete(t.Context(), ref, api.DeleteRequest{}, api.Idempotency{}))("precondition")
			if !strings.Contains(p.Detail, `"other"`) || !strings.Contains(p.Detail, at("vm.qcow2")) {
				t.Errorf("problem %+v", p)
			}
			if _, ok := w.record(); !ok || !slices.Contains(w.files(), "vm.qcow2") || slices.Contains(w.libvirt.deeds(), "undefine") {
				t.Errorf("record %v, files %v, did %v", ok, w.files(), w.libvirt.deeds())
			}
			w.succeeded(w.Delete(t.Context(), ref, api.DeleteRequest{KeepVolumes: true}, api.Idempotency{}))
		})
	}
}
