//go:build lab

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

// layered makes a template whose first half lies in a raw base and whose second
// half lies in a qcow2 layer on it, on a host: one layer that is lost or
// another one, and the guest finds it out.
func (w *world) layered(on *side, base, middle string) {
	w.Helper()
	raw := filepath.Join(w.TempDir(), "layered.raw")
	w.must(image.Make(raw, "layered", w.Name(), imageSize, imageData))
	data, err := os.ReadFile(raw)
	w.must(err)
	w.must(os.WriteFile(w.seen(on, middle+".part"), data[imageData/2:imageData], 0o600))
	clear(data[imageData/2:])
	w.must(os.WriteFile(w.seen(on, base), data, 0o600))
	w.exec(on, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, middle, fmt.Sprint(imageSize))
	w.exec(on, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -s %s.part %d %d", middle, imageData/2, imageData/2), middle)
	w.exec(on, "rm", middle+".part")
}

// A disk on three layers is linked where the destination has all of them, by
// digest, and is a full clone where one in the middle or at the bottom differs.
func TestChainOfThreeLayers(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	base, middle, volume := images("base.raw"), images("middle.qcow2"), images(name+".qcow2")
	w.layered(w.a, base, middle)
	w.overlay(w.a, volume, middle, "qcow2")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: volume}}})

	differ := func(on *side, path string) {
		f, err := os.OpenFile(w.seen(on, path), os.O_RDWR, 0)
		w.must(err)
		info, err := f.Stat()
		w.must(err)
		_, err = f.WriteAt([]byte("other bytes"), info.Size()-4096)
		w.must(err)
		w.must(f.Close())
	}
	w.copied(w.a, base, w.b, base)
	w.copied(w.a, middle, w.b, middle)
	for _, path := range []string{middle, base} {
		differ(w.b, path)
		plan := w.plan(w.a, name, api.MigrateRequest{})
		w.decided(plan, api.ModeFull, false, "chain-differs:vda")
		if !strings.Contains(plan.Reasons[0].Detail, path) {
			t.Errorf("reason %q; want it to name %s", plan.Reasons[0].Detail, path)
		}
		w.copied(w.a, path, w.b, path)
	}
	w.decided(w.plan(w.a, name, api.MigrateRequest{}), api.ModeLinked, false, "chain-verified:vda")
	if result := w.carried(w.a, name, api.MigrateRequest{}, "vda"); result.Mode != api.ModeLinked || result.Bytes.Disk >= imageData/2 {
		t.Errorf("result %+v; want a linked clone, of which only the active layer moved", result)
	}
	w.stands(w.b, name, "vda", layer{volume, "qcow2"}, layer{middle, "qcow2"}, layer{base, "raw"})
	w.clean(name, w.a)

	// On the way back the middle layer differs: nothing is linked to it.
	differ(w.a, middle)
	if result := w.carried(w.b, name, api.MigrateRequest{}, "vda"); result.Mode != api.ModeFull {
		t.Errorf("mode %q; want full", result.Mode)
	}
	w.stands(w.a, name, "vda", layer{volume, "qcow2"})
	w.clean(name, w.b)
}

// Raw becomes qcow2 in another pool and raw again, and a raw disk stays raw
// beside it. Sizes are kept to the byte: this one is no multiple of 1 MiB.
func TestChainRawAndBack(t *testing.T) {
	const odd = 2*imageSize + 3*512
	w := begin(t)
	name := w.unique("vm")
	vda, vdb := images(name+".raw"), images(name+"-data")
	w.exec(w.a, "qemu-img", "create", "-q", "-f", "raw", vda, fmt.Sprint(odd))
	w.volume(w.a, vdb, "raw")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: vda, Format: "raw"}, {Target: "vdb", Source: vdb, Format: "raw"}}})

	there := harness.SecondPath + "/" + name + ".qcow2"
	r := api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vda", Pool: "second", Format: "qcow2"}}}
	plan := w.plan(w.a, name, r)
	w.decided(plan, api.ModeFull, false, "no-backing-chain:vda", "no-backing-chain:vdb")
	if d := w.planned(plan, "vda").Destination; d.Pool != "second" || d.Path != there || d.Format != "qcow2" {
		t.Errorf("destination %+v; want %s", d, there)
	}
	w.carried(w.a, name, r, "vda", "vdb")
	w.stands(w.b, name, "vda", layer{there, "qcow2"})
	w.stands(w.b, name, "vdb", layer{vdb, "raw"})
	if size := w.info(w.b, there)[0].VirtualSize; size != odd {
		t.Errorf("virtual size %d; want %d", size, odd)
	}
	w.clean(name, w.a)

	// Without a wish the disk stays in its pool; its format changes back.
	w.carried(w.b, name, api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vda", Format: "raw"}}}, "vda", "vdb")
	back := harness.SecondPath + "/" + name + ".raw"
	w.stands(w.a, name, "vda", layer{back, "raw"})
	w.stands(w.a, name, "vdb", layer{vdb, "raw"})
	if size := w.info(w.a, back)[0].VirtualSize; size != odd {
		t.Errorf("virtual size %d; want %d", size, odd)
	}
	w.clean(name, w.b)
}

// An instance that Wherry did not create, defined without a space between two
// elements, with an empty drive and one with a disc: its images keep their
// shape, its drives what is in them, and it gets no record.
func TestChainForeignInstanceKeepsItsShape(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	vda, vdb, disc := images(name+"-vda.qcow2"), images(name+"-vdb.qcow2"), images("disc.iso")
	w.exec(w.a, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M,extended_l2=on", vda, fmt.Sprint(2*imageSize))
	w.exec(w.a, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,compat=0.10", vdb, fmt.Sprint(2*imageSize))
	for _, s := range w.sides() {
		w.exec(s, "truncate", "-s", "1M", disc)
	}
	d := harness.Domain{Name: name, Options: "wherry.pace=20ms", Disks: []harness.Disk{{Target: "vda", Source: vda}, {Target: "vdb", Source: vdb},
		{Target: "sda", Device: "cdrom", Format: "raw", ReadOnly: true}, {Target: "sdb", Device: "cdrom", Format: "raw", Source: disc, ReadOnly: true}}}
	w.must(w.lab.Guest(name).Forget(w.ctx))
	w.must(w.a.Define(w.ctx, regexp.MustCompile(`>\s+<`).ReplaceAllString(d.XML(), "><")))
	w.must(w.a.Start(w.ctx, name))
	w.must(w.lab.Guest(name).WaitBlock(w.ctx, w.a.Host, "vda", 3))

	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeFull, false, "no-backing-chain:vda", "no-backing-chain:vdb")
	for _, target := range []string{"sda", "sdb"} {
		if d := w.planned(plan, target); d.Action != api.ActionSkip || d.Reason != "read-only-media" {
			t.Errorf("disk %+v; want it skipped as media", d)
		}
	}
	w.carried(w.a, name, api.MigrateRequest{}, "vda", "vdb")
	w.stands(w.b, name, "vda", layer{vda, "qcow2"})
	w.stands(w.b, name, "vdb", layer{vdb, "qcow2"})
	if i := w.info(w.b, vda)[0]; i.ClusterSize != 2*mib || !i.Specific.Data.ExtendedL2 || i.Specific.Data.Compat != "1.1" {
		t.Errorf("vda on host b: %+v; want clusters of 2 MiB with subclusters", i)
	}
	if i := w.info(w.b, vdb)[0]; i.ClusterSize != 4096 || i.Specific.Data.ExtendedL2 || i.Specific.Data.Compat != "0.10" {
		t.Errorf("vdb on host b: %+v; want clusters of 4 KiB and the old format", i)
	}
	if got := w.defined(w.b, name, "sda").Source + "," + w.defined(w.b, name, "sdb").Source; got != ","+disc {
		t.Errorf("the drives hold %q; want nothing and %s", got, disc)
	}
	w.clean(name, w.a)
	w.exists(w.a, disc, true)
	if records := w.exec(w.b, "find", "/var/lib/wherry/records", "-type", "f"); records != "" {
		t.Errorf("host b has records %q; want none", records)
	}
}

// Paths are compared whole: of files whose paths begin alike only those of the
// instance leave the source, and each arrives as itself. One that another
// instance is defined with stays, and so does what lies at the destination
// under the name that a volume would have.
func TestChainPathsThatBeginAlike(t *testing.T) {
	w := begin(t)
	name, other := w.unique("vm"), w.unique("other")
	x := images("x")
	w.volume(w.a, x, "raw")
	w.volume(w.a, x+".qcow2", "qcow2")
	for _, f := range []string{x + "a", x + ".qcow2a", x + ".qcow2.old", images("ax")} {
		w.volume(w.a, f, "qcow2")
	}
	w.volume(w.a, images("y"), "raw")
	w.must(w.a.Define(w.ctx, harness.Domain{Name: other, Disks: []harness.Disk{{Target: "vda", Source: x + "a"}, {Target: "vdb", Source: images("y"), Format: "raw"}}}.XML()))
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: x, Format: "raw"}, {Target: "vdb", Source: x + ".qcow2"},
		{Target: "vdc", Source: images("y"), Format: "raw"}}})

	w.must(os.WriteFile(w.seen(w.b, images("y")), []byte("somebody else's"), 0o600))

	held := w.hold(w.a, name, "vda", "vdb", "vdc")
	result := w.migrate(w.a, name, api.MigrateRequest{})
	w.compare(held, w.b, name)
	w.alive(name, w.b)
	w.stands(w.b, name, "vda", layer{x, "raw"})
	w.stands(w.b, name, "vdb", layer{x + ".qcow2", "qcow2"})
	left := w.files(w.a)
	slices.Sort(left)
	if want := []string{"ax", "x.qcow2.old", "x.qcow2a", "xa", "y"}; !slices.Equal(left, want) {
		t.Errorf("on host a lie %q; want %q", left, want)
	}
	y := w.defined(w.b, name, "vdc").Source
	w.stands(w.b, name, "vdc", layer{y, "raw"})
	arrived, want := w.files(w.b), []string{"x", "x.qcow2", "y", filepath.Base(y)}
	slices.Sort(arrived)
	slices.Sort(want)
	if filepath.Base(y) == "y" || !slices.Equal(arrived, want) {
		t.Errorf("on host b lie %q; want %q", arrived, want)
	}
	if data, err := os.ReadFile(w.seen(w.b, images("y"))); err != nil || string(data) != "somebody else's" {
		t.Errorf("the file that was there holds %q, %v", data, err)
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], images("y")) || !strings.Contains(result.Warnings[0], other) {
		t.Errorf("warnings %q; want one that says why %s was kept", result.Warnings, images("y"))
	}
}

// A full clone whose template the destination has moves the active layer only:
// the frozen bytes come from the destination's own copy, and the result stands
// alone. Without seeds all of it moves.
func TestChainSeededFromTheDestination(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	picture := w.picture("seed", w.Name())
	tpl := w.template(w.a, id, picture, true)
	w.template(w.b, id, picture, true)
	w.create(w.a, name, id, "linked")
	volume := images(name + ".qcow2")

	whole := w.plan(w.a, name, api.MigrateRequest{Seed: "off"})
	if d := w.planned(whole, "vda"); d.Seed != nil || whole.Bytes < imageData {
		t.Errorf("without seeds: %+v, %d bytes; want the template's %d at least", d, whole.Bytes, int64(imageData))
	}
	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeFull, true, "direct-download:vda")
	if d := w.planned(plan, "vda"); d.Seed == nil || d.Seed.From != "destination" || d.Seed.Template != id || d.Clone != api.ModeFull || d.Destination.Backing != nil {
		t.Fatalf("disk %+v; want a full clone that is seeded from template %q", d, id)
	}
	held := w.hold(w.a, name, "vda")
	active := w.info(w.a, volume)[0].ActualSize
	result := w.migrate(w.a, name, api.MigrateRequest{})
	w.compare(held, w.b, name)
	if result.Mode != api.ModeFull || result.Bytes.Disk == 0 || result.Bytes.Disk > active+mib {
		t.Errorf("result %+v; want a full clone that moved the active layer's %d bytes", result, active)
	}
	w.alive(name, w.b)
	w.stands(w.b, name, "vda", layer{volume, "qcow2"})
	w.clean(name, w.a)
	w.refs(w.b, id)
	if sum := w.checksum(w.seen(w.b, tpl.Copies[0].Path)); sum != tpl.Digest {
		t.Errorf("the seed was %s and is %s", tpl.Digest, sum)
	}
}

// A seed is the same whether the chain below has one layer or two.
func TestChainSeededFromTwoLayers(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	base, middle, volume := images("base.raw"), images("middle.qcow2"), images(name+".qcow2")
	w.layered(w.a, base, middle)
	w.overlay(w.a, volume, middle, "qcow2")
	w.copied(w.a, base, w.b, base)
	w.copied(w.a, middle, w.b, middle)
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: volume}}})
	r := api.MigrateRequest{Mode: api.ModeFull, Disks: []api.DiskRequest{{Target: "vda", Pool: "second", Format: "raw"}}}
	plan := w.plan(w.a, name, r)
	w.decided(plan, api.ModeFull, false, "requested")
	if d := w.planned(plan, "vda"); d.Seed == nil || len(d.Seed.Chain) != 2 {
		t.Fatalf("disk %+v; want it seeded from two layers", d)
	}
	if result := w.carried(w.a, name, r, "vda"); result.Bytes.Disk >= imageData {
		t.Errorf("%d bytes of disks moved; want less than the %d of the frozen layers", result.Bytes.Disk, int64(imageData))
	}
	w.stands(w.b, name, "vda", layer{harness.SecondPath + "/" + name + ".raw", "raw"})
	w.clean(name, w.a)
}
