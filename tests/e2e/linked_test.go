//go:build lab

package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// refs wants exactly these volumes to stand on a template of a host.
func (w *world) refs(on *side, template string, volumes ...string) {
	w.Helper()
	t, err := on.api.Template(w.ctx, template)
	w.must(err)
	got := []string{}
	for _, r := range t.Refs {
		got = append(got, r.Volume)
	}
	slices.Sort(got)
	slices.Sort(volumes)
	if !slices.Equal(got, volumes) {
		w.Errorf("on template %q of host %s stand %q; want %q", template, on.Name, got, volumes)
	}
}

// Both hosts have the template: only the active layer moves, the disk stands
// on the destination's own copy, and the refs go along, there and back.
func TestLinkedOnTheTemplateOfBothHosts(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	picture := w.picture("both", w.Name())
	tpl := w.template(w.a, id, picture, false)
	w.template(w.b, id, picture, false)
	w.create(w.a, name, id, "linked")
	base, volume := tpl.Copies[0].Path, images(name+".qcow2")
	w.refs(w.a, id, volume)

	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeLinked, false, "chain-verified:vda")
	d := w.planned(plan, "vda")
	if d.Clone != api.ModeLinked || d.Destination.Backing == nil || d.Destination.Backing.Path != base || d.Seed != nil {
		t.Errorf("disk %+v; want a linked clone on %s", d, base)
	}
	before := w.checksum(w.seen(w.b, base))
	result := w.carried(w.a, name, api.MigrateRequest{}, "vda")
	if result.Mode != api.ModeLinked || result.Bytes.Disk >= imageData {
		t.Errorf("result %+v; want a linked clone that moved less than the template's %d bytes", result, int64(imageData))
	}
	w.stands(w.b, name, "vda", layer{volume, "qcow2"}, layer{base, "qcow2"})
	w.clean(name, w.a)
	w.refs(w.a, id)
	w.refs(w.b, id, volume)
	if after := w.checksum(w.seen(w.b, base)); after != before {
		t.Errorf("the template's copy on host b was %s and is %s", before, after)
	}

	if result := w.migrate(w.b, name, api.MigrateRequest{Mode: api.ModeLinked}); result.Mode != api.ModeLinked {
		t.Errorf("back: mode %q; want linked", result.Mode)
	}
	w.alive(name, w.a)
	w.clean(name, w.b)
	w.stands(w.a, name, "vda", layer{volume, "qcow2"}, layer{base, "qcow2"})
	w.refs(w.b, id)
	w.refs(w.a, id, volume)
}

// The same bytes at another path will do: the new volume names that path. They
// need not be a template of the destination.
func TestLinkedOnABaseAtAnotherPath(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	tpl := w.template(w.a, id, w.picture("elsewhere", w.Name()), false)
	w.create(w.a, name, id, "linked")
	base, other := tpl.Copies[0].Path, harness.SecondPath+"/golden image.img"
	w.copied(w.a, base, w.b, other)

	// Not while an instance there calls the file its own disk: it would write to it.
	w.must(w.b.Define(w.ctx, harness.Domain{Name: w.unique("other"), Disks: []harness.Disk{{Target: "vda", Source: other}}}.XML()))
	w.refused(w.a, name, api.MigrateRequest{Mode: api.ModeLinked}, "chain-missing:vda")
	w.must(w.b.Remove(w.ctx, w.unique("other")))

	plan := w.plan(w.a, name, api.MigrateRequest{Mode: api.ModeLinked})
	w.decided(plan, api.ModeLinked, false, "chain-verified:vda")
	if detail := plan.Reasons[0].Detail; !strings.Contains(detail, base) || !strings.Contains(detail, other) {
		t.Errorf("reason %q; want it to name %s and %s", detail, base, other)
	}
	w.carried(w.a, name, api.MigrateRequest{Mode: api.ModeLinked}, "vda")
	volume := images(name + ".qcow2")
	w.stands(w.b, name, "vda", layer{volume, "qcow2"}, layer{other, "qcow2"})
	w.clean(name, w.a)
	w.refs(w.a, id)

	// What is no template there is no obstacle to going home.
	w.migrate(w.b, name, api.MigrateRequest{Mode: api.ModeLinked})
	w.alive(name, w.a)
	w.clean(name, w.b)
	w.stands(w.a, name, "vda", layer{volume, "qcow2"}, layer{base, "qcow2"})
	w.refs(w.a, id, volume)
}

// A base that the destination lacks makes a full clone; a linked one that was
// asked for is refused with the layer's name, and nothing is touched.
func TestLinkedBaseMissingIsFull(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	tpl := w.template(w.a, id, w.picture("missing", w.Name()), false)
	w.create(w.a, name, id, "linked")
	base := tpl.Copies[0].Path

	problem := w.refused(w.a, name, api.MigrateRequest{Mode: api.ModeLinked}, "chain-missing:vda")
	if !strings.Contains(problem.Reasons[0].Detail, base) || problem.Disk != "vda" {
		t.Errorf("refusal %s; want it to name disk vda and layer %s", describe(problem), base)
	}
	if files := w.files(w.b); len(files) > 0 {
		t.Errorf("the refused request left %q on host b", files)
	}
	plan := w.plan(w.a, name, api.MigrateRequest{})
	w.decided(plan, api.ModeFull, false, "chain-missing:vda")
	if d := w.planned(plan, "vda"); d.Clone != api.ModeFull || d.Destination.Backing != nil || d.DirectDownload {
		t.Errorf("disk %+v; want a full clone", d)
	}
	w.carried(w.a, name, api.MigrateRequest{}, "vda")
	w.stands(w.b, name, "vda", layer{images(name + ".qcow2"), "qcow2"})
	w.clean(name, w.a)
	w.refs(w.a, id)
}

// With stage_templates the template is copied first, verified, registered with
// its flags, and linked to.
func TestLinkedStagesTheTemplate(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	tpl := w.template(w.a, id, w.picture("staged", w.Name()), false)
	w.create(w.a, name, id, "linked")

	r := api.MigrateRequest{Mode: api.ModeLinked, StageTemplates: true}
	plan := w.plan(w.a, name, r)
	w.decided(plan, api.ModeLinked, false, "chain-verified:vda")
	if d := w.planned(plan, "vda"); len(d.Stage) != 1 || d.Stage[0].Template != id {
		t.Errorf("disk %+v; want template %q to be staged", d, id)
	}
	if files := w.files(w.b); len(files) > 0 {
		t.Errorf("the plan left %q on host b", files)
	}
	w.carried(w.a, name, r, "vda")

	there, err := w.b.api.Template(w.ctx, id)
	w.must(err)
	if there.Digest != tpl.Digest || there.DirectDownload != tpl.DirectDownload || there.Format != tpl.Format ||
		there.VirtualSize != tpl.VirtualSize || len(there.Copies) != 1 || there.Copies[0].State != api.CopyReady {
		t.Errorf("template on host b %+v; want what host a has: %+v", there, tpl)
	}
	volume, base := images(name+".qcow2"), there.Copies[0].Path
	if got := w.checksum(w.seen(w.b, base)); got != tpl.Digest {
		t.Errorf("the copy on host b is %s; want %s", got, tpl.Digest)
	}
	w.stands(w.b, name, "vda", layer{volume, "qcow2"}, layer{base, "qcow2"})
	w.refs(w.b, id, volume)
	w.refs(w.a, id)
	w.clean(name, w.a)
}

// A base of the same name and size with other bytes is never linked to:
// libvirt would do so, and corrupt the disk without a word.
func TestLinkedNeverOnOtherBytes(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	tpl := w.template(w.a, id, w.picture("rocky9", w.Name()), false)
	w.create(w.a, name, id, "linked")
	base := tpl.Copies[0].Path
	trap := w.seen(w.b, base)
	data, err := os.ReadFile(w.picture("rocky8", w.Name()))
	w.must(err)
	w.must(os.WriteFile(trap, data, 0o600))
	if int64(len(data)) != tpl.Size {
		t.Fatalf("the trap has %d bytes, the template %d", len(data), tpl.Size)
	}
	before := w.checksum(trap)

	problem := w.refused(w.a, name, api.MigrateRequest{Mode: api.ModeLinked}, "chain-differs:vda")
	if !strings.Contains(problem.Reasons[0].Detail, base) {
		t.Errorf("refusal %s; want it to name layer %s", describe(problem), base)
	}
	w.decided(w.plan(w.a, name, api.MigrateRequest{}), api.ModeFull, false, "chain-differs:vda")
	w.carried(w.a, name, api.MigrateRequest{}, "vda")
	w.stands(w.b, name, "vda", layer{images(name + ".qcow2"), "qcow2"})
	w.clean(name, w.a)
	if after := w.checksum(trap); after != before {
		t.Errorf("host b's own file was %s and is %s", before, after)
	}
}

// A volume may lie in another pool than the copy it stands on. What the ref
// keeps is the copy: removing the template takes it away only with the last
// volume.
func TestLinkedFromAnotherPoolThanTheTemplate(t *testing.T) {
	w := begin(t)
	name, id := w.unique("vm"), w.unique("tpl")
	picture := w.picture("pools", w.Name())
	tpl := w.template(w.a, id, picture, false)
	w.template(w.b, id, picture, false)
	base, volume := tpl.Copies[0].Path, harness.SecondPath+"/"+name+".qcow2"
	w.must(w.lab.Guest(name).Forget(w.ctx))
	op, err := w.a.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: name, Template: id, Pool: "second", DiskSize: 2 * imageSize,
		Memory: 96 * mib, Clone: "linked", Boot: boot(), ConsoleLog: "/var/log/wherry-guest/" + name + ".log", Start: true}, "")
	w.run(w.a, op, err)
	w.must(w.lab.Guest(name).WaitBlock(w.ctx, w.a.Host, "vda", 3))

	if result := w.migrate(w.a, name, api.MigrateRequest{}); result.Mode != api.ModeLinked {
		t.Errorf("mode %q; want linked", result.Mode)
	}
	w.stands(w.b, name, "vda", layer{volume, "qcow2"}, layer{base, "qcow2"})
	w.clean(name, w.a)
	removed, err := w.b.api.RemoveTemplate(w.ctx, id)
	w.must(err)
	if removed.RemovedAt == nil {
		t.Errorf("template %+v; want a tombstone", removed)
	}
	w.exists(w.b, base, true)
	w.alive(name, w.b)

	w.migrate(w.b, name, api.MigrateRequest{Mode: api.ModeLinked})
	w.alive(name, w.a)
	w.stands(w.a, name, "vda", layer{volume, "qcow2"}, layer{base, "qcow2"})
	w.clean(name, w.b)
	w.exists(w.b, base, false)
}
