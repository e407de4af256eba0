package migrate_test

import (
	"context"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

var lostDisk = []api.Reason{{Code: "volume-lost", Disk: "vda", Detail: "the destination's volume /images/vm.qcow2 has been removed while it was being filled"}}

// A guest must not go onto a volume that somebody has removed: it runs on here.
func TestVolumeLostWhileItIsFilled(t *testing.T) {
	w := newWorld(t)
	moving := make(chan struct{})
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		close(moving)
		return untilStopped(ctx, p)
	}
	w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
		select {
		case <-moving:
			in.Lost = lostDisk
		default:
		}
		return in, nil
	}
	p := w.fails(api.MigrateRequest{}, api.StatusFailed, "volume-lost", "perform")
	if p.Disk != "vda" || !strings.Contains(p.Detail, "/images/vm.qcow2 has been removed") || !strings.Contains(p.Hint, "runs on at the source") {
		t.Errorf("problem %+v; want the disk, the file and where the instance is", p)
	}
}

// It may be noticed only when the guest is there already: then what the source
// has is all that is left, and stays.
func TestVolumeLostAtTheSwitchover(t *testing.T) {
	w := newWorld(t)
	w.peer.commit = func(_ int, in api.Incoming) (api.Incoming, error) {
		in.Lost = lostDisk
		return in, nil
	}
	op := w.migrated(api.MigrateRequest{})
	if op.Status != api.StatusFailed || op.Error.Code != "volume-lost" || op.Error.Disk != "vda" || !strings.Contains(op.Error.Hint, "do not stop it") {
		t.Errorf("operation %s, %+v", op.Status, op.Error)
	}
	if !w.exists(w.disk) || w.peer.commits != 1 {
		t.Errorf("source volume there: %t, committed %d times", w.exists(w.disk), w.peer.commits)
	}
}
