//go:build lab

package e2e

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// poolBytes is the least that XFS takes.
const poolBytes = 320 * mib

// The destination's file system turns read-only, and takes no volume. Once it
// can be written again the same request goes through.
func TestDestinationPoolIsReadOnly(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	folder := w.pool(w.b, "frozen", "ext4", 64*mib)
	request := api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vda", Pool: "frozen"}}}
	w.exec(w.b, "mount", "-o", "remount,ro", folder)
	w.cleanup("making the file system writable", func(ctx context.Context) error {
		_, err := w.b.Exec(ctx, "mount", "-o", "remount,rw", folder)
		return errors.Join(err, w.b.Remove(ctx, name))
	})
	id := w.begun(w.a, name, request)
	w.failed(w.a, id, "peer-failed", "prepare", "vda", folder, "read-only file system")
	w.stayed(name, w.a, id)

	w.exec(w.b, "mount", "-o", "remount,rw", folder)
	w.migrate(w.a, name, request)
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// The destination's file system goes down in mid-copy, as one does whose device
// fails. The guest notices nothing, and once the file system is back the same
// request goes through.
func TestDestinationPoolFailsWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 24*mib)
	folder := w.pool(w.b, "failing", "xfs", poolBytes)
	request := api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vda", Pool: "failing"}}}
	w.cleanup("removing the instance", func(ctx context.Context) error { return w.b.Remove(ctx, name) })
	w.rate(w.a, slow)
	id := w.begun(w.a, name, request)
	w.copying(w.a, id)
	w.exec(w.b, "xfs_io", "-x", "-c", "shutdown", folder)
	w.failed(w.a, id, "migration-failed", "perform", "vda", "Input/output error")
	w.alive(name, w.a)
	w.idle(w.a, name)

	w.exec(w.b, "sh", "-c", `umount "$0" && mount -o loop /run/wherry/failing.img "$0"`, folder)
	// Libvirt has given the pool up.
	w.exec(w.b, "sh", "-c", `virsh -q pool-start failing || virsh -q pool-refresh failing`)
	// What could not be removed while the pool failed is, by the end of the lease.
	w.takenBack(w.b, id)
	if left := w.exec(w.b, "ls", "-A", folder); strings.Contains(left, name) {
		t.Errorf("pool %q after the lease; want nothing of the first try", left)
	}
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, request)
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Somebody removes the destination's volume in mid-copy. QEMU goes on writing
// to a file that has no name any more: an instance that moved onto it would lose
// its disk with its next stop.
func TestDestinationVolumeRemovedWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 24*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	w.exec(w.b, "rm", images(name+".qcow2"))
	w.failed(w.a, id, "volume-lost", "perform", "vda", images(name+".qcow2"), "removed")
	w.stayed(name, w.a, id)
	w.must(w.a.Rate(w.ctx, "off"))
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// What the disk stands on cannot be read any more at the source. The guest,
// which does not read there, runs on; the migration fails and says where.
func TestSourceBackingFileFailsWhileDisksMove(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	folder := w.pool(w.a, "worn", "ext4", 128*mib)
	base, device := filepath.Join(folder, "base.qcow2"), "/run/wherry/worn.img"
	w.exec(w.a, "mv", w.put(w.a, w.picture("worn", w.Name()), "base.qcow2"), base)
	vda := images(name + ".qcow2")
	w.overlay(w.a, vda, base, "qcow2")
	// Past the page cache, so that QEMU finds out.
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{{Target: "vda", Source: vda, Cache: "none"}}})
	w.plan(w.a, name, api.MigrateRequest{}) // the agent has read the base, and knows its digest
	// Nothing is written there any more: a write behind the end would make the file longer again.
	w.exec(w.a, "mount", "-o", "remount,ro", folder)
	w.exec(w.a, "cp", "--sparse=always", device, device+".kept")
	restore := func(ctx context.Context) error {
		_, err := w.a.Exec(ctx, "sh", "-c", `[ ! -e "$0.kept" ] || { cp --sparse=never "$0.kept" "$0" && rm "$0.kept"; }`, device)
		return err
	}
	w.cleanup("restoring the file system", restore)
	// A loop device fails where the file behind it ends.
	w.exec(w.a, "truncate", "-s", "1M", device)

	id := w.begun(w.a, name, api.MigrateRequest{})
	w.failed(w.a, id, "migration-failed", "perform", "vda", "Input/output error")
	w.must(w.lab.Guest(name).WaitMore(w.ctx, w.a.Host, "vda", 5))
	w.must(restore(w.ctx))
	w.stayed(name, w.a, id)

	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// The template at the destination is replaced after the plan was made: the disk
// is neither linked to the other bytes nor filled from them.
func TestTemplateReplacedBetweenPlanAndPrepare(t *testing.T) {
	for what, direct := range map[string]bool{"linked to": false, "filled from": true} {
		t.Run(what, func(t *testing.T) {
			w := begin(t)
			name, id := w.unique("vm"), w.unique("tpl")
			picture := w.picture("replaced", w.Name())
			w.template(w.a, id, picture, direct)
			there := w.template(w.b, id, picture, direct).Copies[0].Path
			w.create(w.a, name, id, "linked")
			other := w.picture("replaced", "other bytes")
			var replaced atomic.Bool
			url := w.proxy(w.b, func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPost && r.URL.Path == "/v1/incoming" && !replaced.Swap(true) {
					data, err := os.ReadFile(other)
					if err == nil {
						err = errors.Join(os.Remove(w.seen(w.b, there)), os.WriteFile(w.seen(w.b, there), data, 0o444))
					}
					if err != nil {
						t.Errorf("replacing the template: %v", err)
					}
				}
				return false
			})
			op := w.begun(w.a, name, api.MigrateRequest{Destination: url})
			w.failed(w.a, op, "chain-unsafe", "prepare", "vda", there)
			if !replaced.Load() {
				t.Fatal("nothing was replaced")
			}
			w.stayed(name, w.a, op)
			// Another plan, from what is really there.
			w.migrate(w.a, name, api.MigrateRequest{})
			w.alive(name, w.b)
			w.clean(name, w.a)
		})
	}
}
