//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// Original, another template, empty: on a guest that runs and one that does
// not. What it wrote to the old disk is gone, its data disk is not, and a
// migration afterwards is decided by the new template.
func TestRebuild(t *testing.T) {
	w := begin(t)
	one := w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false)
	two := w.template(w.a, w.unique("two"), w.picture("two", w.Name()), true)
	r := w.toRebuild("vm", one)
	r.sound(&one)

	// Forced: the guest shuts down in order, because its data disk stays.
	data := r.written()
	result := r.rebuild(api.RebuildRequest{Source: source(api.SourceOriginal), Force: true})
	if api.Forced(result.Rung) || result.Rung == api.RungAlready || !result.Started || result.New.Size != 2*imageSize || result.New.Clone != "linked" {
		t.Errorf("result %+v", result)
	}
	r.fresh("one", data)
	r.sound(&one)

	// Stopped, and left so.
	data = r.written()
	op, err := w.a.api.Stop(w.ctx, ref(r.name), api.StopRequest{}, "")
	w.run(w.a, op, err)
	if result = r.rebuild(api.RebuildRequest{Source: source(api.SourceEmpty)}); result.Started || result.New.Template != "" {
		t.Errorf("result %+v", result)
	}
	if state, err := w.a.State(w.ctx, r.name); err != nil || state != "shut off" {
		t.Errorf("state %q, %v", state, err)
	}
	r.sound(nil)
	r.refused(api.RebuildRequest{Source: source(api.SourceOriginal)}, "original-unknown")
	op, err = w.a.api.Start(w.ctx, ref(r.name), "")
	w.run(w.a, op, err)
	r.fresh("", data)

	// The empty disk stands alone, and so does what replaces it: a full clone.
	data = r.written()
	if result = r.rebuild(api.RebuildRequest{Source: source(api.SourceTemplate, two), Force: true}); result.New.Clone != "full" || result.New.DirectDownload {
		t.Errorf("result %+v", result)
	}
	r.fresh("two", data)
	if d := w.headers(w.a, r.root()); len(d) != 1 {
		t.Errorf("layers %v; want one", d)
	}
	if plan := w.plan(w.a, r.name, api.MigrateRequest{}); plan.Forced {
		t.Errorf("plan %+v; want nothing forced by a template that is not below any disk", plan)
	}
}

// What it is rebuilt from decides how it migrates.
func TestMigrationAfterARebuild(t *testing.T) {
	w := begin(t)
	one := w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false)
	two := w.template(w.a, w.unique("two"), w.picture("two", w.Name()), true)
	r := w.toRebuild("vm", one)
	if plan := w.plan(w.a, r.name, api.MigrateRequest{}); plan.Forced {
		t.Errorf("plan %+v; want nothing forced yet", plan)
	}
	result := r.rebuild(api.RebuildRequest{Source: source(api.SourceTemplate, two), Force: true})
	if !result.New.DirectDownload || result.New.Clone != "linked" {
		t.Errorf("result %+v", result)
	}
	r.fresh("two", 0)
	r.sound(&two)
	plan := w.plan(w.a, r.name, api.MigrateRequest{})
	if plan.Mode != api.ModeFull || !plan.Forced || !slices.Contains(reasons(plan), "direct-download:vda") {
		t.Errorf("plan %+v; want a full clone, forced by direct-download", plan)
	}
	root := r.root()
	w.migrate(w.a, r.name, api.MigrateRequest{})
	w.exists(w.a, root, false)
	r.on = w.b
	w.must(r.guest.WaitMore(w.ctx, w.b.Host, "vda", 2))
	r.labelled("two", 0)
}

// Each thing that stands in the way is said at once, all together, and nothing
// is touched.
func TestRebuildRefused(t *testing.T) {
	w := begin(t)
	one := w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false)
	r := w.toRebuild("vm", one)
	root := r.root()
	r.refused(api.RebuildRequest{Source: source(api.SourceTemplate, api.Template{ID: "nobody"}), DiskSize: imageSize}, "running", "template-not-ready", "disk-too-small")
	op, err := w.a.api.Stop(w.ctx, ref(r.name), api.StopRequest{}, "")
	w.run(w.a, op, err)
	w.exec(w.a, "virsh", "-q", "snapshot-create-as", r.name, "before-upgrade")
	p := r.refused(api.RebuildRequest{Source: source(api.SourceOriginal), Force: true}, "snapshots-present", "snapshots-present")
	for _, reason := range p.Reasons { // libvirt's, and the one in the image
		if !strings.Contains(reason.Detail, "before-upgrade") {
			t.Errorf("reason %+v; want it to name the snapshot", reason)
		}
	}
	out, err := w.a.Exec(w.ctx, "sh", "-c", "wherry rebuild '"+r.name+"' --yes 2>&1; echo status $?; wherry rebuild '"+r.name+"' </dev/null 2>&1; echo status $?")
	w.must(err)
	if !strings.Contains(out, "before-upgrade") || !strings.Contains(out, "status 3") || !strings.Contains(out, "--yes") || !strings.Contains(out, "status 2") {
		t.Errorf("the command says %s", out)
	}
	w.exec(w.a, "virsh", "-q", "snapshot-delete", r.name, "before-upgrade", "--metadata")
	r.refused(api.RebuildRequest{Source: source(api.SourceOriginal)}, "snapshots-present")
	w.exec(w.a, "qemu-img", "snapshot", "-d", "before-upgrade", root)
	if r.root() != root {
		t.Errorf("root disk %s was %s", r.root(), root)
	}

	w.exec(w.a, "wherry", "rebuild", r.name, "--yes", "--start")
	r.fresh("one", 0)
	r.sound(&one)
}

// A larger template makes a larger disk; disk_size may grow it further.
func TestRebuildFromALargerTemplate(t *testing.T) {
	w := begin(t)
	one := w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false)
	file := w.raw("large", 4*imageSize, imageData)
	image := strings.TrimSuffix(file, ".raw") + ".qcow2"
	w.must(exec.CommandContext(w.ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", file, image).Run())
	large := w.template(w.a, w.unique("large"), image, false)
	r := w.toRebuild("vm", one)
	q := api.RebuildRequest{Source: source(api.SourceTemplate, large), Force: true, DiskSize: 3 * imageSize}
	r.refused(q, "disk-too-small")
	q.DiskSize = 0
	if result := r.rebuild(q); result.New.Size != 4*imageSize {
		t.Errorf("result %+v", result)
	}
	r.fresh("large", 0)
	r.sound(&large)
	q.DiskSize = 6 * imageSize
	if result := r.rebuild(q); result.New.Size != 6*imageSize {
		t.Errorf("result %+v", result)
	}
	r.fresh("large", 0)
	if got := w.info(w.a, r.root())[0].VirtualSize; got != 6*imageSize {
		t.Errorf("size %d", got)
	}
}

// There must be room for both disks. Where that is clear it is said at once;
// where it turns out on the way, the guest has its old disk again.
func TestRebuildWithoutSpace(t *testing.T) {
	w := begin(t)
	const pool = "small"
	folder, err := w.a.FileSystem(w.ctx, pool, "ext4", 40*mib)
	w.must(err)
	w.cleanup("taking the file system away", func(ctx context.Context) error {
		return errors.Join(w.a.Remove(ctx, w.unique("vm")), w.a.EndFileSystem(ctx, pool))
	})
	name := w.unique("vm")
	one := w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false)
	two := w.template(w.a, w.unique("two"), w.picture("two", w.Name()), false)

	w.must(w.lab.Guest(name).Forget(w.ctx))
	slow := boot()
	slow.Cmdline += " wherry.slow=3s"
	op, err := w.a.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: name, Template: one.ID, Pool: pool, DiskSize: imageSize,
		Memory: 96 * mib, Clone: "full", Boot: slow, ConsoleLog: "/var/log/wherry-guest/" + name + ".log", Start: true}, "")
	w.run(w.a, op, err)
	guest := w.lab.Guest(name)
	w.must(guest.WaitBlock(w.ctx, w.a.Host, "vda", 3))
	files := func() string { return w.exec(w.a, "ls", folder) }
	before := files()

	// While the guest takes its time to shut down, somebody takes the space.
	ballast := func(left int64) {
		w.exec(w.a, "sh", "-c", fmt.Sprintf("fallocate -l $(( $(stat -f -c '%%a * %%S' %s) - %d )) %[1]s/ballast", folder, left))
	}
	op, err = w.a.api.Rebuild(w.ctx, ref(name), api.RebuildRequest{Source: source(api.SourceTemplate, two), Force: true}, "")
	w.must(err)
	w.must(guest.WaitLine(w.ctx, w.a.Host, "POWEROFF in 3s"))
	ballast(2 * mib)
	w.failed(w.a, op.ID, "no-space", "make", "vda")
	w.exec(w.a, "rm", folder+"/ballast")
	w.must(harness.Until(w.ctx, "the guest to be back", func(ctx context.Context) error {
		boots, err := guest.Boots(ctx)
		if err == nil && len(boots) != 2 {
			err = fmt.Errorf("boots %q", boots)
		}
		return err
	}))
	w.must(guest.WaitMore(w.ctx, w.a.Host, "vda", 2))
	reports, err := guest.Verify(w.ctx, w.a.Host)
	w.must(err)
	if reports[0].Label != "one" {
		t.Errorf("reports %+v; want the old disk", reports)
	}
	if now := files(); now != before {
		t.Errorf("files %q; were %q", now, before)
	}

	ballast(4 * mib)
	_, err = w.a.api.Rebuild(w.ctx, ref(name), api.RebuildRequest{Source: source(api.SourceOriginal), Force: true}, "")
	if p := w.problem(err, "precondition"); len(p.Reasons) != 1 || p.Reasons[0].Code != "no-space" {
		t.Errorf("%s", describe(p))
	}
	w.must(guest.WaitMore(w.ctx, w.a.Host, "vda", 2))
}

// The agent is killed the moment it has journalled a step of a rebuild, and
// comes back: the guest has its old disk or the new one, whole, runs on it, and
// nothing is left over.
func TestAgentKilledAtEveryStepOfARebuild(t *testing.T) {
	t.Run("until the new disk is whole", func(t *testing.T) {
		succeeded := begin(t).killedAt("check: running", "check: done", "stop: running", "clean: running", "make: running")
		if slices.Contains(succeeded, true) {
			t.Errorf("succeeded: %v; want the old disk each time", succeeded)
		}
	})
	t.Run("from then on", func(t *testing.T) {
		succeeded := begin(t).killedAt("make: done", "switch: running", "switch: done", "start: running", "remove: running")
		if !slices.Equal(succeeded[2:], []bool{true, true, true}) {
			t.Errorf("succeeded: %v; want the new disk once it is named", succeeded)
		}
	})
}

// killedAt begins a rebuild for each of the steps, to and fro between two
// templates, and kills the agent there. It tells which went on to their end.
func (w *world) killedAt(steps ...string) (succeeded []bool) {
	w.Helper()
	templates := []api.Template{
		w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false),
		w.template(w.a, w.unique("two"), w.picture("two", w.Name()), false),
	}
	r, has := w.toRebuild("vm", templates[0]), 0
	for _, at := range steps {
		data := r.written()
		kill := w.killer(w.a)
		id := r.reaches(at, api.RebuildRequest{Source: source(api.SourceTemplate, templates[1-has]), Force: true})
		kill()
		w.must(w.a.Agent(w.ctx, "start"))
		op := w.wait(w.a, id)
		succeeded = append(succeeded, op.Status == api.StatusSucceeded)
		if op.Status == api.StatusSucceeded {
			has = 1 - has
		}
		w.Logf("killed at %q: %s, %s", at, op.Status, describe(op.Error))
		if op.Status == api.StatusSucceeded {
			r.booted() // its blocks are counted anew
		} else {
			w.must(r.guest.WaitMore(w.ctx, w.a.Host, "vda", 2))
			console, err := r.guest.Console(w.ctx, w.a.Host)
			w.must(err)
			r.boots = len(console.Boots())
		}
		r.sound(&templates[has])
		r.labelled([]string{"one", "two"}[has], data)
		if w.Failed() {
			w.Fatalf("killed at %q", at)
		}
	}
	return succeeded
}

// reaches asks for a rebuild and waits until that is journalled.
func (r *rebuilt) reaches(step string, q api.RebuildRequest) (id string) {
	r.Helper()
	earlier := map[string]bool{}
	all, err := r.on.api.Operations(r.ctx, client.OperationFilter{Instance: r.name})
	r.must(err)
	for _, op := range all {
		earlier[op.ID] = true
	}
	reached := errors.New("reached")
	asked := make(chan error, 1)
	began := false
	err = r.on.api.Events(r.ctx, 0, func(e api.Event) error {
		if !began {
			// The stream is there: nothing is missed from here on.
			began = true
			go func() {
				_, err := r.on.api.Rebuild(r.ctx, ref(r.name), q, "")
				asked <- err
			}()
		}
		if e.Operation != nil && e.Operation.Kind == "rebuild" && e.Operation.Instance == r.name && !earlier[e.Operation.ID] && e.Detail == step {
			id = e.Operation.ID
			return reached
		}
		return nil
	})
	if !errors.Is(err, reached) {
		r.Fatalf("waiting for %q: %v", step, err)
	}
	return id
}
