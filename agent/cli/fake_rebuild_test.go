package cli

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeRebuilds struct{ *fake }

func rebuildPlan(r api.RebuildRequest) api.RebuildPlan {
	p := api.RebuildPlan{Disk: "vda", Stop: r.Force, Start: r.Start || r.Force, Bytes: 1 << 20,
		Old: api.RebuildDisk{Path: "/images/vm1.qcow2", Pool: "default", Format: "qcow2", Size: 10 << 30, Allocated: 50 << 20, Clone: "linked", Template: "rocky9", Owned: true},
		New: api.RebuildDisk{Pool: "default", Format: "qcow2", Size: max(10<<30, r.DiskSize), Clone: "linked", Template: "rocky9", Owned: true},
	}
	switch r.Source.Type {
	case api.SourceTemplate:
		p.New.Template, p.Fetch = r.Source.Template, true
	case api.SourceEmpty:
		p.New.Template, p.New.Clone = "", "full"
	}
	return p
}

func (f fakeRebuilds) Plan(_ context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error) {
	f.note("plan rebuild "+ref.String(), r)
	if ref.Name == "refused" {
		return api.RebuildPlan{}, rebuildRefusal
	}
	return rebuildPlan(r), nil
}

var rebuildRefusal = api.NewProblem("precondition", "%q is not rebuilt: 2 reasons", "refused").WithReasons([]api.Reason{
	{Code: "running", Detail: "the instance is running; stop it, or ask with force"},
	{Code: "snapshots-present", Disk: "vda", Detail: "libvirt has 2 snapshots: before, after"},
}).WithHint("nothing was touched")

func (f fakeRebuilds) Rebuild(_ context.Context, ref api.Ref, r api.RebuildRequest, _ api.Idempotency) (api.Operation, error) {
	f.note("rebuild "+ref.String(), r)
	if ref.Name == "refused" {
		return api.Operation{}, rebuildRefusal
	}
	if ref.Name == "web-fails" {
		end := operation("op-"+ref.Name, "rebuild", ref.Name, api.StatusFailed, "make")
		end.Error = api.NewProblem("no-space", "qemu-img: No space left on device").WithPhase("make").WithDisk("vda")
		return f.begin(operation("op-"+ref.Name, "rebuild", ref.Name, api.StatusPending, ""), end), nil
	}
	if ref.Name == "slow" {
		return f.begin(operation("op-slow", "rebuild", ref.Name, api.StatusRunning, "make")), nil
	}
	p := rebuildPlan(r)
	p.New.Path = "/images/vm1-0123456789ab.qcow2"
	return f.done("rebuild", ref.Name, api.RebuildResult{Disk: p.Disk, Old: p.Old, New: p.New, Removed: true, Started: p.Start})
}

// farmInstances are those of the projects "farm" and "slow".
func farmInstances(project string) (out []api.Instance) {
	names := map[string][]string{
		"farm": {"db-1", "refused", "web-1", "web-2", "web-fails", "web-last"},
		"slow": {"slow", "slower"},
	}
	for _, name := range names[project] {
		out = append(out, api.Instance{Project: project, Name: name, UUID: "33333333-3333-3333-3333-333333333333", State: "shutoff", Health: api.HealthOK})
	}
	return out
}
