package instance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
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
