package migrate_test

import (
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// An agent that comes back after the move is not connected to libvirt at once.
// Nothing stays behind for that.
func TestCleanWaitsForLibvirt(t *testing.T) {
	w := newWorld(t)
	committing := make(chan struct{})
	w.peer.commit = func(n int, in api.Incoming) (api.Incoming, error) {
		if n == 1 {
			close(committing)
		}
		return in, api.NewProblem("peer-unreachable", "connection refused")
	}
	op := w.begin(api.MigrateRequest{})
	<-committing
	w.restart()
	w.peer.commit = nil
	w.libvirt.noList = 2
	if r := w.result(w.resume(op.ID)); len(r.Warnings) != 0 || w.exists(w.disk) {
		t.Errorf("warnings %q, source volume there: %v", r.Warnings, w.exists(w.disk))
	}
}

// Another instance has the source's volume by its name in the pool: it is kept.
func TestVolumeThatAnotherHasByItsPoolIsKept(t *testing.T) {
	w := newWorld(t)
	w.libvirt.set(hypervisor.Domain{Name: "other", UUID: "other", State: hypervisor.Shutoff, Persistent: true})
	w.libvirt.xml["other"] = domainXML("other", `<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/>
		<source pool='default' volume='vda.qcow2'/><target dev='vda' bus='virtio'/></disk>`)
	r := w.succeeds(api.MigrateRequest{})
	if !w.exists(w.disk) || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], `instance "other" uses it`) {
		t.Errorf("the volume is there: %v, warnings %q", w.exists(w.disk), r.Warnings)
	}
}
