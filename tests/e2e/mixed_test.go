//go:build lab

package e2e

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// sharedFile is the path of a file in the folder that both hosts have.
func sharedFile(name string) string { return filepath.Join(harness.SharedPath, name) }

// One direct-download disk makes full clones of all that are copied: of an
// ordinary linked one whose base the destination has, and of one that stands
// alone. Libvirt has one storage mode for a whole migration.
func TestMixedDirectDownloadForcesEveryCopiedDisk(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	direct := w.template(w.a, w.unique("direct"), w.picture("direct", w.Name()), true)
	picture, id := w.picture("plain", w.Name()), w.unique("plain")
	plain := w.template(w.a, id, picture, false)
	w.template(w.b, id, picture, false)
	vda, vdb, vdc := images(name+"-vda.qcow2"), images(name+"-vdb.qcow2"), images(name+"-vdc.qcow2")
	w.overlay(w.a, vda, direct.Copies[0].Path, "qcow2")
	w.overlay(w.a, vdb, plain.Copies[0].Path, "qcow2")
	w.volume(w.a, vdc, "qcow2")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: vda}, {Target: "vdb", Source: vdb}, {Target: "vdc", Source: vdc}}})

	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeFull, true, "direct-download:vda")
	for target, reason := range map[string]string{"vda": "direct-download", "vdb": "direct-download", "vdc": "no-backing-chain"} {
		if d := w.planned(plan, target); d.Action != api.ActionCopy || d.Clone != api.ModeFull || d.Reason != reason || d.Destination.Backing != nil {
			t.Errorf("disk %+v; want a full clone for %q", d, reason)
		}
	}
	if d := w.planned(plan, "vdb"); d.DirectDownload {
		t.Errorf("disk %+v; want it not to be called a direct download itself", d)
	}
	w.decided(w.plan(w.a, name, api.MigrateRequest{Mode: api.ModeLinked}), api.ModeFull, true, "direct-download:vda", "requested")

	w.carried(w.a, name, api.MigrateRequest{}, "vda", "vdb", "vdc")
	for target, path := range map[string]string{"vda": vda, "vdb": vdb, "vdc": vdc} {
		w.stands(w.b, name, target, layer{path, "qcow2"})
	}
	w.clean(name, w.a)
}

// A disk on the same storage is connected, not copied: nothing of it moves,
// its file stays the same file, and its neighbour's full clone is not its.
func TestMixedSameStorageIsSkipped(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	direct := w.template(w.a, w.unique("direct"), w.picture("direct", w.Name()), true)
	vda, vdb := images(name+".qcow2"), sharedFile(name+"-data.qcow2")
	w.overlay(w.a, vda, direct.Copies[0].Path, "qcow2")
	w.volume(w.a, vdb, "qcow2")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: vda}, {Target: "vdb", Source: vdb, Cache: "none"}}})

	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeFull, true, "direct-download:vda", "same-storage:vdb")
	if d := w.planned(plan, "vdb"); d.Action != api.ActionSkip || d.Reason != "same-storage" || d.Bytes != 0 || d.Clone != "" {
		t.Errorf("disk %+v; want it skipped as same storage", d)
	}
	inode := w.exec(w.a, "stat", "-c", "%i", vdb)
	w.carried(w.a, name, api.MigrateRequest{}, "vda", "vdb")
	if now := w.exec(w.b, "stat", "-c", "%i", vdb); now != inode {
		t.Errorf("the shared file was inode %s and is %s", inode, now)
	}
	w.stands(w.b, name, "vda", layer{vda, "qcow2"})
	w.stands(w.b, name, "vdb", layer{vdb, "qcow2"})
	w.clean(name, w.a)
	if left := w.exec(w.a, "find", harness.SharedPath, "-type", "f", "-printf", "%P "); left != filepath.Base(vdb) {
		t.Errorf("on the shared storage lie %q; want %s alone", left, filepath.Base(vdb))
	}
}

// Where only the disk on the same storage stands on a direct-download template
// nothing is forced: the copied disk goes by its own chain.
func TestMixedOnlyTheSharedDiskIsDirectDownload(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	direct := w.template(w.a, w.unique("direct"), w.picture("direct", w.Name()), true, "shared")
	picture, id := w.picture("plain", w.Name()), w.unique("plain")
	plain := w.template(w.a, id, picture, false)
	vda, vdb, base := images(name+".qcow2"), sharedFile(name+"-data.qcow2"), direct.Copies[0].Path
	if filepath.Dir(base) != harness.SharedPath {
		t.Fatalf("the direct-download template lies at %s; want it on the shared storage", base)
	}
	w.overlay(w.a, vda, plain.Copies[0].Path, "qcow2")
	w.overlay(w.a, vdb, base, "qcow2")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: vda}, {Target: "vdb", Source: vdb, Cache: "none"}}})

	// Before host b has the base the copied disk is a full clone, yet not forced.
	w.decided(w.plan(w.a, name, api.MigrateRequest{}), api.ModeFull, false, "chain-missing:vda", "same-storage:vdb")
	w.template(w.b, id, picture, false)
	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeLinked, false, "chain-verified:vda", "same-storage:vdb")
	if d := w.planned(plan, "vdb"); d.Action != api.ActionSkip || !d.DirectDownload {
		t.Errorf("disk %+v; want a direct-download disk that is skipped", d)
	}
	if result := w.carried(w.a, name, api.MigrateRequest{}, "vda", "vdb"); result.Mode != api.ModeLinked {
		t.Errorf("mode %q; want linked", result.Mode)
	}
	w.stands(w.b, name, "vda", layer{vda, "qcow2"}, layer{plain.Copies[0].Path, "qcow2"})
	// The definition of a skipped disk stays as it was: without its chain, which
	// libvirt then reads from the headers.
	if got, want := w.headers(w.b, vdb), []layer{{vdb, "qcow2"}, {base, "qcow2"}}; !slices.Equal(got, want) {
		t.Errorf("the headers of vdb say %v; want %v", got, want)
	}
	if d := w.defined(w.b, name, "vdb", "--inactive"); d.Source != vdb {
		t.Errorf("defined disk %+v; want %s", d, vdb)
	}
	w.clean(name, w.a)
	w.exists(w.b, base, true)
}

// A shared active layer proves nothing about a base that each host has for
// itself: with other bytes below, the disk is copied, not connected.
func TestMixedSharedDiskOnALocalBase(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	base := w.put(w.a, w.picture("rocky9", w.Name()), "base.qcow2")
	vda := sharedFile(name + ".qcow2")
	w.overlay(w.a, vda, base, "qcow2")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: vda, Cache: "none"}}})

	// With the same bytes at the same path it would be connected.
	w.copied(w.a, base, w.b, base)
	if d := w.planned(w.plan(w.a, name, api.MigrateRequest{}), "vda"); d.Action != api.ActionSkip || d.Reason != "same-storage" {
		t.Errorf("disk %+v; want it skipped: every layer is the same on host b", d)
	}
	w.put(w.b, w.picture("rocky8", w.Name()), "base.qcow2")
	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeFull, false, "chain-differs:vda")
	if d := w.planned(plan, "vda"); d.Action != api.ActionCopy {
		t.Errorf("disk %+v; want it copied: its base is another on host b", d)
	}
	w.carried(w.a, name, api.MigrateRequest{}, "vda")
	there := w.defined(w.b, name, "vda").Source
	w.stands(w.b, name, "vda", layer{there, "qcow2"})
	w.exists(w.a, vda, false)
	w.exists(w.a, there, true) // the same folder
}

// An instance that lies on shared storage as a whole moves without a byte of
// its disks, and what is known of its template goes along in the record.
func TestMixedEverythingShared(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	tpl := w.template(w.a, id, w.picture("shared", w.Name()), true, "shared")
	w.must(w.lab.Guest(name).Forget(w.ctx))
	op, err := w.a.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: name, Template: id, Pool: "shared", DiskSize: 2 * imageSize,
		Memory: 96 * mib, Clone: "linked", Boot: boot(), ConsoleLog: "/var/log/wherry-guest/" + name + ".log", Start: true}, "")
	w.run(w.a, op, err)
	w.must(w.lab.Guest(name).WaitBlock(w.ctx, w.a.Host, "vda", 3))

	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeFull, false, "same-storage:vda")
	if plan.Bytes != 0 {
		t.Errorf("the plan moves %d bytes of disks; want none", plan.Bytes)
	}
	for _, from := range []*side{w.a, w.b} {
		to := w.other(from)
		if result := w.migrate(from, name, api.MigrateRequest{}); result.Bytes.Disk != 0 {
			t.Errorf("%d bytes of disks moved; want none", result.Bytes.Disk)
		}
		w.alive(name, to)
		w.clean(name, from)
		disks, err := to.api.Disks(w.ctx, api.Ref{Name: name})
		w.must(err)
		if d := disks[0]; !d.DirectDownload || d.Template != id || len(d.Chain) != 2 || d.Chain[1].Path != tpl.Copies[0].Path {
			t.Errorf("disk on host %s %+v; want it to be known as a direct download of %q", to.Name, d, id)
		}
	}
}
