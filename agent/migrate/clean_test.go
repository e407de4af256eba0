package migrate_test

import (
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
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
