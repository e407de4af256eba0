//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// Connect fails: the destination cannot log in to the LUN. Once it can, the
// same request goes through.
func TestFailureToConnectTouchesNothing(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(w.a, name+".qcow2", mib)},
		{Target: "vdb", Source: w.loaded(w.a, name+"-data.qcow2", mib)},
	}})
	_, _, _ = w.unit(w.b, 1, mib)
	target := api.Target{Type: "iscsi", Portal: "10.77.0.2", IQN: "iqn.2024-01.org.wherry:b-2", LUN: 1}
	request := api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vdb", Connect: &target}}}
	id := w.begun(w.a, name, request)
	w.failed(w.a, id, "target-failed", "connect", "vdb", target.IQN, "Target not found")
	w.stayed(name, w.a, id)

	// A unit of another size cannot hold the disk.
	small, _, _ := w.unit(w.b, 3, mib)
	id = w.begun(w.a, name, api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vdb", Connect: &small}}})
	w.failed(w.a, id, "target-failed", "connect", "vdb", fmt.Sprint(mib), fmt.Sprint(2*imageSize))
	w.stayed(name, w.a, id)

	w.unit(w.b, 2, 2*imageSize)
	w.migrate(w.a, name, request)
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Prepare fails: the destination's folder takes no file.
func TestFailureToPrepareTouchesNothing(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	thaw := func(ctx context.Context) error {
		_, err := w.b.Exec(ctx, "chattr", "-i", harness.ImagesPath)
		return err
	}
	w.cleanup("making the folder writable", thaw)
	w.exec(w.b, "chattr", "+i", harness.ImagesPath)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.failed(w.a, id, "peer-failed", "prepare", "vda", harness.ImagesPath, "operation not permitted")
	w.stayed(name, w.a, id)

	w.must(thaw(w.ctx))
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Perform fails twice: the destination's storage fills up, and then its libvirt
// dies, both while disks are copied. The guest never notices.
func TestFailureToPerformLeavesTheInstanceRunning(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	const size = 24 * mib
	w.heavy(w.a, name, size)
	w.exec(w.b, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size+8*mib), "tmpfs", harness.SecondPath)
	w.cleanup("unmounting the small file system", func(ctx context.Context) error {
		if err := w.b.Remove(ctx, name); err != nil {
			return err
		}
		_, err := w.b.Exec(ctx, "umount", "--lazy", harness.SecondPath)
		return err
	})
	w.exec(w.b, "virsh", "pool-refresh", "second")
	w.rate(w.a, slow)
	request := api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vda", Pool: "second"}}}

	id := w.begun(w.a, name, request)
	w.copying(w.a, id)
	w.exec(w.b, "sh", "-c", `dd if=/dev/zero of=/srv/second/filler bs=1M 2>/dev/null; true`)
	w.failed(w.a, id, "migration-failed", "perform", "vda", "No space left")
	w.stayed(name, w.a, id)
	w.exec(w.b, "rm", "/srv/second/filler")

	id = w.begun(w.a, name, request)
	w.copying(w.a, id)
	w.cleanup("starting libvirtd", func(ctx context.Context) error { return w.b.Libvirtd(ctx, "start") })
	w.must(w.b.Libvirtd(w.ctx, "kill"))
	w.must(w.b.Libvirtd(w.ctx, "start"))
	w.failed(w.a, id, "migration-failed", "perform", "")
	w.stayed(name, w.a, id)

	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, request)
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Commit fails for a while: the instance runs at the destination already, and
// the source keeps its volumes until the destination has confirmed.
func TestFailureToCommitIsRepeatedUntilConfirmed(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	var open atomic.Bool
	var refused atomic.Int32
	url := w.proxy(w.b, func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/commit") || open.Load() {
			return false
		}
		refused.Add(1)
		http.Error(rw, "out of order", http.StatusInternalServerError)
		return true
	})
	id := w.begun(w.a, name, api.MigrateRequest{Destination: url})
	w.committing(name, w.a, id, func() bool { return refused.Load() >= 3 })
	open.Store(true)
	w.moved(name, w.a, id)

	// On the way back the destination's agent is killed as it is told.
	w.cleanup("starting the agent", func(ctx context.Context) error { return w.a.Agent(ctx, "start") })
	var killed atomic.Bool
	url = w.proxy(w.a, func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/commit") || killed.Swap(true) {
			return false
		}
		if err := w.a.Agent(r.Context(), "kill"); err != nil {
			t.Errorf("killing the agent: %v", err)
		}
		http.Error(rw, "gone", http.StatusBadGateway)
		return true
	})
	id = w.begun(w.b, name, api.MigrateRequest{Destination: url})
	w.committing(name, w.b, id, killed.Load)
	w.must(w.a.Agent(w.ctx, "start"))
	w.moved(name, w.b, id)
}

// committing waits until the destination was told and has not confirmed, and
// wants one running copy there and every volume still here.
func (w *world) committing(name string, from *side, id string, told func() bool) {
	w.Helper()
	op := w.seenOp(from, id, "committing", func(op api.Operation) bool { return op.Phase == "commit" && told() })
	if op.Status != api.StatusRunning || op.Cancellable {
		w.Errorf("operation %+v; want it running, and past the point of cancelling", op)
	}
	if _, err := from.api.Cancel(w.ctx, id); err == nil {
		w.Error("a cancel was accepted though there is nothing to go back to")
	}
	w.alive(name, w.other(from))
	w.exists(from, filepath.Join(harness.ImagesPath, name+".qcow2"), true)
}
