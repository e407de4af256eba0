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
