//go:build lab

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// A template that an instance stands on can only be marked removed: it keeps
// its file and its flags until the last instance is gone, and no longer.
func TestTemplateRemovedWhileInUse(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	id, name := w.unique("tpl"), w.unique("vm")
	tpl := w.template(w.a, id, w.picture("removed", w.Name()), true)
	path := tpl.Copies[0].Path
	w.create(w.a, name, id, "linked")
	removed, err := w.a.api.RemoveTemplate(w.ctx, id)
	w.must(err)
	if removed.RemovedAt == nil || !removed.DirectDownload || len(removed.Copies) != 1 {
		t.Errorf("removed template %+v; want a tombstone with its flag and its copy", removed)
	}
	if refs := removed.Refs; len(refs) != 1 || refs[0].Instance != name || refs[0].Known != api.RefBoth {
		t.Errorf("refs %+v; want the one of %q, recorded and found", refs, name)
	}
	w.exists(w.a, path, true)
	w.alive(name, w.a)
	w.health(w.a, name, "ok")
	// Nobody stands anew on what is removed.
	_, err = w.a.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: name + "2", Template: id}, "")
	w.problem(err, "not-found")

	op, err := w.a.api.Stop(w.ctx, api.Ref{Name: name}, api.StopRequest{Force: true}, "")
	w.run(w.a, op, err)
	w.exists(w.a, path, true)
	op, err = w.a.api.Delete(w.ctx, api.Ref{Name: name}, api.DeleteRequest{}, "")
	w.run(w.a, op, err)
	w.must(harness.Until(w.ctx, "the file to be collected", func(ctx context.Context) error {
		if _, err := w.a.Exec(ctx, "test", "-e", path); err == nil {
			return fmt.Errorf("%s is there", path)
		}
		return nil
	}))
	last, err := w.a.api.Template(w.ctx, id)
	w.must(err)
	if last.RemovedAt == nil || !last.DirectDownload || len(last.Copies) != 0 || len(last.Refs) != 0 {
		t.Errorf("at last %+v; want a tombstone with its flag and nothing else", last)
	}
}

// A removed template is kept by an instance that nobody recorded, because its
// disk stands on the file; when that is gone, so is the file. What nobody owns
// is reported and never deleted.
func TestTemplateKeptForWhomNobodyRecorded(t *testing.T) {
	w := begin(t)
	id, name := w.unique("tpl"), w.unique("vm")
	path := w.template(w.a, id, w.picture("found", w.Name()), false).Copies[0].Path
	volume := images(name + ".qcow2")
	w.overlay(w.a, volume, path, "qcow2")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: volume}}})
	nobodys := filepath.Dir(path) + "/wherry-template-" + strings.Repeat("ab", 32) + ".qcow2"
	w.exec(w.a, "sh", "-c", `echo mine >"$0"`, nobodys)
	w.must(harness.Until(w.ctx, "the instance to be found", func(ctx context.Context) error {
		tpl, err := w.a.api.Template(ctx, id)
		if err == nil && (len(tpl.Refs) != 1 || tpl.Refs[0].Known != api.RefFound || tpl.Refs[0].Instance != name) {
			err = fmt.Errorf("refs %+v", tpl.Refs)
		}
		return err
	}))
	removed, err := w.a.api.RemoveTemplate(w.ctx, id)
	w.must(err)
	if removed.RemovedAt == nil || len(removed.Copies) != 1 {
		t.Errorf("removed template %+v; want a tombstone with its copy", removed)
	}
	// An agent that starts looks for what can go.
	w.must(w.a.Agent(w.ctx, "restart"))
	w.must(harness.Until(w.ctx, "the file of nobody to be reported", func(ctx context.Context) error {
		return w.counted(ctx, w.a, "wherry_template_unowned_files", 1)
	}))
	w.exists(w.a, path, true)
	w.alive(name, w.a)
	w.must(w.a.Remove(w.ctx, name))
	w.exec(w.a, "rm", volume)
	w.must(w.a.Agent(w.ctx, "restart"))
	w.must(harness.Until(w.ctx, "the file to be collected", func(ctx context.Context) error {
		if _, err := w.a.Exec(ctx, "test", "-e", path); err == nil {
			return fmt.Errorf("%s is there", path)
		}
		return w.counted(ctx, w.a, `wherry_template_collected_total{reason="removed"}`, 1)
	}))
	w.exists(w.a, nobodys, true)
}

// A copy that nothing has stood on for longer than the configuration says goes
// by itself, says so, and is fetched again for the next instance; one that an
// instance stands on stays for as long as it takes.
func TestTemplateCollectedByAge(t *testing.T) {
	w := begin(t)
	unused, used, name := w.unique("unused"), w.unique("used"), w.unique("vm")
	gone := w.template(w.a, unused, w.picture("unused", w.Name()), false).Copies[0].Path
	kept := w.template(w.a, used, w.picture("used", w.Name()), false).Copies[0].Path
	w.create(w.a, name, used, "linked")
	// An agent that starts looks for what can go, and then every minute.
	w.agentWith(w.a, append([]string{"WHERRY_TEMPLATES_UNUSED_AGE=1s", "WHERRY_TEMPLATES_KEEP_AT_LEAST=1s"}, quick...)...)
	c := w.untilCopy(w.a, unused, "to be collected", func(c api.TemplateCopy) bool { return c.State == api.CopyPending && c.Path == "" })
	if !strings.Contains(c.Message, "nothing has stood on it") || c.RetryAt != nil || c.Code != "" {
		w.Errorf("collected copy %+v; want it to say why, and not to be tried again", c)
	}
	w.exists(w.a, gone, false)
	w.must(w.counted(w.ctx, w.a, `wherry_template_collected_total{reason="age"}`, 1))
	if c := w.copyOf(w.a, used); c.State != api.CopyReady {
		w.Errorf("copy with a ref: %+v; want it ready", c)
	}
	w.exists(w.a, kept, true)
	w.alive(name, w.a)
	w.create(w.a, name+"2", unused, "linked")
	w.exists(w.a, gone, true)
}

// Where a pool is short of room, the copies that nothing stands on go until
// there is enough, the longest unused first, and the others stay.
func TestTemplateCollectedForRoom(t *testing.T) {
	w := begin(t)
	const pool = "small"
	folder := w.pool(w.a, pool, "ext4", 96*mib)
	name := w.unique("vm")
	ids := []string{w.unique("used"), w.unique("old"), w.unique("new")}
	var paths []string
	for _, id := range ids {
		paths = append(paths, w.template(w.a, id, w.picture(id, w.Name()), false, pool).Copies[0].Path)
	}
	w.create(w.a, name, ids[0], "linked")
	// More than is free: by less than one copy takes.
	var free, all, unit int64
	if _, err := fmt.Sscan(w.exec(w.a, "stat", "-f", "-c", "%a %b %S", folder), &free, &all, &unit); err != nil {
		w.Fatal(err)
	}
	_, bytes := w.allocated(w.a, paths[1])
	least := (free + bytes/unit/2) * 100 / all
	if least <= free*100/all || least > 90 {
		w.Fatalf("%d of %d blocks free, %d bytes in a copy", free, all, bytes)
	}
	room := func(least int64) []string {
		return append([]string{fmt.Sprintf("WHERRY_TEMPLATES_MIN_FREE=%d", least), "WHERRY_TEMPLATES_KEEP_AT_LEAST=1s"}, quick...)
	}
	w.agentWith(w.a, room(least)...)
	c := w.untilCopy(w.a, ids[1], "to be collected", func(c api.TemplateCopy) bool { return c.State == api.CopyPending && c.Path == "" })
	if !strings.Contains(c.Message, "nearly full") {
		w.Errorf("collected copy %+v; want it to say that the pool was nearly full", c)
	}
	w.must(w.counted(w.ctx, w.a, `wherry_template_collected_total{reason="space"}`, 1))
	// At the next look, which finds what nobody owns at its end, there is room
	// enough: the newer one stays.
	w.exec(w.a, "sh", "-c", `echo mine >"$0"`, folder+"/wherry-template-"+strings.Repeat("ab", 32)+".qcow2")
	w.must(w.a.Agent(w.ctx, "restart", room(least)...))
	w.must(harness.Until(w.ctx, "the agent to have looked", func(ctx context.Context) error {
		return w.counted(ctx, w.a, "wherry_template_unowned_files", 1)
	}))
	for i, there := range []bool{true, false, true} {
		w.exists(w.a, paths[i], there)
	}
	w.alive(name, w.a)
	// With no room at all it is the newer one's turn, and still not that of the
	// one with a ref, however long nobody has touched it.
	w.must(w.a.Agent(w.ctx, "restart", room(90)...))
	w.untilCopy(w.a, ids[2], "to be collected", func(c api.TemplateCopy) bool { return c.State == api.CopyPending && c.Path == "" })
	w.exists(w.a, paths[0], true)
	w.alive(name, w.a)
}
