package migrate_test

import (
	"context"
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

// Libvirt goes away between its list and what the others of the list stand on: a
// volume that one of them may have is not removed.
func TestCleanKeepsWhatAnotherMayHave(t *testing.T) {
	w := newWorld(t)
	w.libvirt.set(hypervisor.Domain{Name: "other", UUID: "6e0f4b2c-0000-4000-8000-000000000002", State: hypervisor.Running})
	w.libvirt.xml["other"] = domainXML("other", fileDisk("vda", w.dir+"/other.qcow2", w.disk))
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.gone("vm")
		w.libvirt.mu.Lock()
		defer w.libvirt.mu.Unlock()
		w.libvirt.noXML = 1
		return nil
	}
	r := w.succeeds(api.MigrateRequest{})
	if !w.exists(w.disk) || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], `"other"`) {
		t.Errorf("warnings %q, source volume there: %v; want it kept for %q", r.Warnings, w.exists(w.disk), "other")
	}
}
