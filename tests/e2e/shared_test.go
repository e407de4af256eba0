//go:build lab

package e2e

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// onShared boots a guest with one disk of its host and one in the shared folder.
func (w *world) onShared(on *side, name string) {
	w.Helper()
	w.volume(on, filepath.Join(harness.SharedPath, name+"-common.qcow2"), "qcow2")
	w.foreign(on, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(on, name+".qcow2", mib)},
		{Target: "vdb", Source: filepath.Join(harness.SharedPath, name+"-common.qcow2")},
	}})
	w.must(w.lab.Guest(name).WaitBlock(w.ctx, on.Host, "vdb", 3))
}

// mounted binds a folder over another one on a host until the test ends.
func (w *world) mounted(on *side, folder, over string) {
	w.Helper()
	w.exec(on, "mkdir", "-p", folder, over)
	w.exec(on, "mount", "--bind", folder, over)
	w.cleanup("unmounting", func(ctx context.Context) error {
		_, err := on.Exec(ctx, "umount", "--lazy", over)
		return err
	})
}

// A disk in a folder that both hosts share stays where it is. That the folder
// is shared shows by a probe file, whatever the pools are called.
func TestDiskInASharedFolderIsNotCopied(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.onShared(w.a, name)
	file := filepath.Join(harness.SharedPath, name+"-common.qcow2")
	d := w.planned(w.plan(w.a, name, api.MigrateRequest{}), "vdb")
	if d.Action != api.ActionSkip || d.Reason != "same-storage" || d.Bytes != 0 || d.Destination.Path != file {
		t.Errorf("planned %+v; want it skipped, at the same path", d)
	}
	w.migrate(w.a, name, api.MigrateRequest{})
	if reports := w.alive(name, w.b); len(reports) != 2 || reports[1].Blocks < 3 {
		t.Errorf("reports %+v; want the shared disk's blocks verified", reports)
	}
	w.clean(name, w.a)
	w.exists(w.a, file, true)
	if left := w.exec(w.a, "find", harness.SharedPath, "-name", ".wherry-*"); left != "" {
		t.Errorf("probe files are left: %s", left)
	}

	// On a the same folder lies elsewhere now, in a pool of another name.
	const elsewhere = "/srv/elsewhere"
	w.mounted(w.a, harness.SharedPath, elsewhere)
	w.exec(w.a, "mkdir", "-p", "/srv/private")
	w.mounted(w.a, "/srv/private", harness.SharedPath)
	w.exec(w.a, "virsh", "pool-define-as", "elsewhere", "dir", "--target", elsewhere)
	w.cleanup("undefining the pool", func(ctx context.Context) error {
		_, _ = w.a.Virsh(ctx, "pool-destroy", "elsewhere") // not active is as good
		_, err := w.a.Virsh(ctx, "pool-undefine", "elsewhere")
		return err
	})
	w.exec(w.a, "virsh", "pool-start", "elsewhere")
	d = w.planned(w.plan(w.b, name, api.MigrateRequest{}), "vdb")
	moved := filepath.Join(elsewhere, filepath.Base(file))
	if d.Action != api.ActionSkip || d.Destination.Pool != "elsewhere" || d.Destination.Path != moved {
		t.Errorf("planned %+v; want it skipped, at %s", d, moved)
	}
	w.migrate(w.b, name, api.MigrateRequest{})
	for _, flags := range [][]string{nil, {"--inactive"}} {
		if d := w.defined(w.a, name, "vdb", flags...); d.Source != moved {
			t.Errorf("XML %v: disk %+v; want %s", flags, d, moved)
		}
	}
	if reports := w.alive(name, w.a); len(reports) != 2 || reports[1].Blocks < 6 {
		t.Errorf("reports %+v; want the shared disk's blocks verified", reports)
	}
	w.must(w.a.Remove(w.ctx, name)) // before its folders go
}

// A folder of the same name is not the same folder: what lies there is copied,
// and a file that has the disk's name there stays as it is.
func TestFolderOfTheSameNameIsNotShared(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.exec(w.b, "mkdir", "-p", "/srv/private")
	w.mounted(w.b, "/srv/private", harness.SharedPath)
	w.cleanup("emptying the private folder", func(ctx context.Context) error {
		if err := w.b.Remove(ctx, name); err != nil {
			return err
		}
		_, err := w.b.Exec(ctx, "find", "/srv/private", "-mindepth", "1", "-delete")
		return err
	})
	w.onShared(w.a, name)
	w.exec(w.b, "sh", "-c", `echo someone else >"$0"`, filepath.Join(harness.SharedPath, name+"-common.qcow2"))
	d := w.planned(w.plan(w.a, name, api.MigrateRequest{}), "vdb")
	if d.Action != api.ActionCopy || d.Reason == "same-storage" {
		t.Errorf("planned %+v; want a copy", d)
	}
	w.migrate(w.a, name, api.MigrateRequest{})
	if reports := w.alive(name, w.b); len(reports) != 2 || reports[1].Blocks < 3 {
		t.Errorf("reports %+v; want both disks verified", reports)
	}
	w.clean(name, w.a)
	if got := w.exec(w.b, "cat", filepath.Join(harness.SharedPath, name+"-common.qcow2")); got != "someone else" {
		t.Errorf("the file of that name at the destination now holds %q", got)
	}
	w.exists(w.a, filepath.Join(harness.SharedPath, name+"-common.qcow2"), false)
}
