//go:build lab

package e2e

import (
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
)

// A linked clone on a direct-download template crosses as a full clone, forced,
// and comes back; the guest notices nothing.
func TestDirectDownloadCrossesThereAndBack(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	tpl := w.template(w.a, w.unique("tpl"), w.picture("rocky9", w.Name()), true)
	w.create(w.a, name, tpl.ID, "linked")

	plan := w.plan(w.a, name, api.MigrateRequest{})
	if plan.Mode != api.ModeFull || !plan.Forced || plan.Reasons[0].Code != "direct-download" {
		t.Errorf("plan %+v; want a full clone, forced by direct-download", plan)
	}
	result := w.migrate(w.a, name, api.MigrateRequest{})
	if result.Mode != api.ModeFull {
		t.Errorf("mode %q; want full", result.Mode)
	}
	w.alive(name, w.b)
	w.clean(name, w.a)
	disks, err := w.b.api.Disks(w.ctx, api.Ref{Name: name})
	w.must(err)
	if len(disks[0].Chain) != 1 || disks[0].DirectDownload {
		t.Errorf("disk %+v; want it to stand alone", disks[0])
	}

	w.migrate(w.b, name, api.MigrateRequest{})
	w.alive(name, w.a)
	w.clean(name, w.b)
}

// The flag outlives the template: what stands on a removed one is still forced.
func TestDirectDownloadOfARemovedTemplateStillForces(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	tpl := w.template(w.a, w.unique("tpl"), w.picture("gone", w.Name()), true)
	w.create(w.a, name, tpl.ID, "linked")
	removed, err := w.a.api.RemoveTemplate(w.ctx, tpl.ID)
	w.must(err)
	if removed.RemovedAt == nil || !removed.DirectDownload {
		t.Errorf("removed template %+v; want a tombstone that keeps its flag", removed)
	}
	if plan := w.plan(w.a, name, api.MigrateRequest{}); !plan.Forced || plan.Mode != api.ModeFull {
		t.Errorf("plan %+v; want a forced full clone", plan)
	}
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	w.clean(name, w.a)
}

// Asking for a linked clone changes nothing, and the plan says so.
func TestDirectDownloadForcesThoughLinkedWasAsked(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	tpl := w.template(w.a, w.unique("tpl"), w.picture("asked", w.Name()), true)
	w.create(w.a, name, tpl.ID, "linked")
	plan := w.plan(w.a, name, api.MigrateRequest{Mode: api.ModeLinked})
	said := false
	for _, r := range plan.Reasons {
		said = said || r.Code == "requested"
	}
	if plan.Mode != api.ModeFull || !plan.Forced || !said {
		t.Errorf("plan %+v; want a forced full clone that says what was asked", plan)
	}
	if r := w.migrate(w.a, name, api.MigrateRequest{Mode: api.ModeLinked}); r.Mode != api.ModeFull {
		t.Errorf("mode %q; want full", r.Mode)
	}
	w.alive(name, w.b)
}
