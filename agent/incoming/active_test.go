package incoming_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// A file that an instance writes to is no backing layer, whatever bytes it has
// at the moment; one that is only read, or its like elsewhere, is.
func TestLayersThatAreWrittenTo(t *testing.T) {
	w := newWorld(t)
	same := qcow2(t, filepath.Join(w.pool, "base.qcow2"), "", "1")
	w.libvirt.set(hypervisor.Domain{Name: "other", UUID: "o", State: hypervisor.Running, Persistent: true})
	link := filepath.Join(w.other, "link.qcow2")
	must(t, os.Symlink(same.Path, link))
	disk := func(source, more string) {
		w.libvirt.disks = map[string]string{"other": "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='" + source +
			"'/><target dev='vda' bus='virtio'/>" + more + "</disk>"}
	}
	w.libvirt.disks = map[string]string{"other": "<disk type='volume' device='disk'><driver type='qcow2'/><source pool='default' volume='base.qcow2'/><target dev='vda'/></disk>"}
	if got := w.find(same); got[0].State != "differs" || !strings.Contains(got[0].Detail, `"other"`) {
		t.Errorf("written to as a volume of a pool: %+v", got)
	}
	for _, source := range []string{same.Path, link} {
		disk(source, "")
		if got := w.find(same); got[0].State != "differs" || !strings.Contains(got[0].Detail, `"other"`) {
			t.Errorf("at the same path, written to as %s: %+v", source, got)
		}
		if got := w.find(at("/elsewhere/base.qcow2", same)); got[0].State != "missing" {
			t.Errorf("at another path, written to as %s: %+v", source, got)
		}
		r := w.request()
		r.Disks[0].Place.Backing, r.Disks[0].Place.Chain = &same, []api.Layer{same}
		_, err := w.Reserve(t.Context(), r)
		wantProblem(t, err, "chain-unsafe", same.Path, `"other"`)
		must(t, w.Remove(t.Context(), opID))
	}
	disk(same.Path, "<readonly/>")
	if got := w.find(same); got[0].State != "verified" {
		t.Errorf("only read: %+v", got)
	}
	disk(same.Path, "")
	copied := filepath.Join(w.other, "copy.qcow2")
	data, err := os.ReadFile(same.Path)
	must(t, err)
	must(t, os.WriteFile(copied, data, 0o600))
	if got := w.find(same); got[0].State != "verified" || got[0].Path != copied {
		t.Errorf("a copy that nobody writes to: %+v", got)
	}
}

// A volume that has been made for an arriving instance belongs to it already.
func TestLayersOfAnArrivingInstance(t *testing.T) {
	w := newWorld(t)
	in := w.ready(w.request())
	if got := w.find(layerOf(t, in.Disks[0].Path)); got[0].State != "differs" {
		t.Errorf("the volume of an arriving instance: %+v", got)
	}
}

// The guest goes on reading its disc at the destination: a name is not enough.
func TestMediaWithOtherBytes(t *testing.T) {
	w := newWorld(t)
	same, other := filepath.Join(w.pool, "same.iso"), filepath.Join(w.pool, "other.iso")
	must(t, os.WriteFile(same, []byte("one"), 0o600))
	must(t, os.WriteFile(other, []byte("two"), 0o600))
	digest := layerOf(t, same).Digest
	f := w.facts(api.FactsRequest{Media: []string{same, other, "/none.iso"}, MediaDigests: map[string]string{same: digest, other: digest, "/none.iso": digest}})
	if len(f.MediaDiffers) != 1 || f.MediaDiffers[0] != other || !f.Media[same] || f.Media["/none.iso"] {
		t.Errorf("facts %+v; want only %s to differ", f, other)
	}
}
