package cli

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeInstances struct{}

var chain = []api.Layer{
	{Path: "/images/vm1.qcow2", Format: "qcow2", VirtualSize: 10 << 30, Allocated: 50 << 20},
	{Path: "/images/middle.qcow2", Format: "qcow2", VirtualSize: 10 << 30, Allocated: 1 << 30},
	{Path: "/images/rocky9.qcow2", Format: "qcow2", VirtualSize: 8 << 30, Allocated: 900 << 20, Template: "rocky9"},
}

var vm1 = api.Instance{
	Project: api.DefaultProject, Name: "vm1", UUID: "11111111-1111-1111-1111-111111111111", State: "running", VCPUs: 2,
	Memory: 1 << 30, Managed: true, Template: "rocky9", Operation: "op-slow", Lock: &api.Lock{Operation: "op-slow", Kind: "migrate", Since: created,
		Waiters: []api.Waiter{{Operation: "op-next", Kind: "stop", Since: created}}}, Health: api.HealthDegraded,
	HealthReasons: []string{`disk vda stands on template "rocky9", whose copy in pool "fast" is missing`},
	Disks: []api.Disk{
		{Target: "vda", Kind: "file", Device: "disk", Pool: "default", Path: "/images/vm1.qcow2", Format: "qcow2", Size: 10 << 30, Allocated: 50 << 20,
			DirectDownload: true, Template: "rocky9", Chain: chain, Live: true},
		{Target: "sda", Kind: "file", Device: "cdrom", ReadOnly: true, Chain: []api.Layer{}},
	},
}

func (fakeInstances) List(_ context.Context, project string) ([]api.Instance, error) {
	if farm := farmInstances(project); farm != nil {
		return farm, nil
	}
	all := []api.Instance{
		vm1,
		{Project: "web", Name: "front", UUID: "22222222-2222-2222-2222-222222222222", State: "shutoff", VCPUs: 1, Memory: 512 << 20, Health: api.HealthOK},
	}
	var out []api.Instance
	for _, i := range all {
		if project == "" || i.Project == project {
			i.Disks = nil
			out = append(out, i)
		}
	}
	return out, nil
}

func (fakeInstances) Get(_ context.Context, ref api.Ref) (api.Instance, error) {
	if ref != (api.Ref{Project: api.DefaultProject, Name: "vm1"}) {
		return api.Instance{}, api.NewProblem("not-found", "no instance %q on this host", ref)
	}
	return vm1, nil
}

func (fakeInstances) Disks(_ context.Context, ref api.Ref) ([]api.Disk, error) {
	disks := vm1.Disks
	if ref.Name == "odd" {
		d := disks[0]
		d.Live, d.Disagreements = false, []string{"the header names /images/other.qcow2, libvirt /images/middle.qcow2"}
		disks = []api.Disk{d}
	}
	return disks, nil
}

var refusal = api.NewProblem("refused", "the plan is refused for 2 reasons").WithReasons([]api.Reason{
	{Code: "snapshots-present", Disk: "vda", Detail: "the image has 2 internal snapshots"},
	{Code: "no-space", Detail: "pool default of hostb has 1.0 GiB free, 10.0 GiB are needed"},
}).WithHint("nothing was touched")

func (f *fake) Plan(_ context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error) {
	f.note("plan "+ref.String(), r)
	if ref.Name == "refused" {
		return api.Plan{}, refusal
	}
	return api.Plan{
		Mode: "full", Forced: true, Bytes: 50 << 20,
		Reasons: []api.Reason{{Code: "direct-download", Disk: "vda", Detail: "stands on template rocky9, downloaded by this host"}},
		Disks: []api.PlanDisk{
			{Target: "vda", Action: api.ActionCopy, Clone: "full", Reason: "direct-download", DirectDownload: true, Chain: chain,
				Seed: &api.Seed{Template: "rocky9", From: "destination", Bytes: 900 << 20}, Bytes: 50 << 20,
				Source:      api.DiskPlace{Kind: "file", Path: "/images/vm1.qcow2", Format: "qcow2"},
				Destination: &api.DiskPlace{Pool: "default", Kind: "file", Path: "/images/vm1.qcow2", Format: "qcow2"}},
			{Target: "vdb", Action: api.ActionCopy, Clone: "linked", Reason: "chain-verified", Chain: chain[1:], Bytes: 1 << 30,
				Stage: chain[2:], Source: api.DiskPlace{Kind: "file", Path: "/images/middle.qcow2", Format: "qcow2"},
				Destination: &api.DiskPlace{Pool: "fast", Kind: "file", Path: "/fast/middle.qcow2", Format: "qcow2", Backing: &chain[2]}},
			{Target: "vdc", Action: api.ActionCopy, Clone: "full", Reason: "no-backing-chain", Chain: chain[:1], Bytes: 1 << 30,
				Connect:     &api.Target{Type: "iscsi", Portal: "192.0.2.1:3260", IQN: "iqn.2026-01.org.example:d", LUN: 1, CHAP: &api.CHAP{User: "u", Secret: "never-shown"}},
				Source:      api.DiskPlace{Kind: "file", Path: "/images/c.raw", Format: "raw"},
				Destination: &api.DiskPlace{Kind: "network", Path: "iscsi://192.0.2.1/d/1", Format: "raw"}},
			{Target: "sda", Action: api.ActionSkip, Reason: "read-only-media", Chain: []api.Layer{}},
		},
		Checks: []api.Check{{Code: "cpu-compatible", OK: true, Detail: "hostb offers every feature of the guest's CPU"}, {Code: "shared-clock", Detail: "hostb is 3s ahead"}},
	}, nil
}

func moving(id, name string, percent float64, done, memory int64) api.Operation {
	op := operation(id, "migrate", name, api.StatusRunning, "perform")
	eta := api.Duration(10 * time.Second)
	op.Progress = api.Progress{
		Percent: percent, BytesDone: done + memory, BytesTotal: 1 << 30, Rate: 100 << 20, ETA: &eta,
		Disks:  []api.PartProgress{{Target: "vda", BytesDone: done, BytesTotal: 768 << 20}},
		Memory: &api.PartProgress{Target: "memory", BytesDone: memory, BytesTotal: 256 << 20},
	}
	return op
}

func (f *fake) Migrate(_ context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error) {
	f.note("migrate "+ref.String(), r)
	id := "op-" + ref.Name
	start := operation(id, "migrate", ref.Name, api.StatusRunning, "inspect")
	switch ref.Name {
	case "refused":
		return api.Operation{}, refusal
	case "busy":
		return api.Operation{}, api.NewProblem("busy", "instance %q is held by operation op-other (stop)", ref.Name).WithOperation("op-other")
	case "fails":
		end := operation(id, "migrate", ref.Name, api.StatusFailed, "perform")
		end.Error = api.NewProblem("migration-failed", "internal error: unable to execute QEMU command 'blockdev-mirror':\nNo space left on device").
			WithPhase("perform").WithDisk("vda").WithHint("the instance runs on; free space on hostb and ask again")
		return f.begin(start, moving(id, ref.Name, 30, 300<<20, 0), end), nil
	case "undecided":
		end := operation(id, "migrate", ref.Name, api.StatusNeedsDecision, "perform")
		end.Error = api.NewProblem("needs-decision", "the instance is paused on both hosts").WithDecision([]api.SideFacts{
			{Side: api.SideSource, Host: "hosta", State: "paused", Reason: "migration", Process: "runs", Sent: true, Halted: true, SeenAt: &created,
				Volumes: []api.SideVolume{{Disk: "vda", Path: "/images/undecided.qcow2", Present: true}}},
			{Side: api.SideDestination, Host: "hostb", State: "unknown", Detail: "when it last answered the instance was paused there"}},
			"wherry operation resolve op-undecided --keep source", "wherry operation resolve op-undecided --keep destination")
		return f.begin(start, end), nil
	case "slow":
		return f.begin(start, moving(id, ref.Name, 40, 400<<20, 10<<20)), nil
	}
	if k.Key == "" {
		return api.Operation{}, api.NewProblem("bad-request", "no idempotency key")
	}
	end := operation(id, "migrate", ref.Name, api.StatusSucceeded, "")
	end.UpdatedAt = created.Add(2100 * time.Millisecond)
	end.Steps = []api.Step{{Name: "prepare"}, {Name: "perform"}}
	result := api.MigrateResult{
		Mode: "full", Destination: strings.TrimSuffix(strings.TrimPrefix(r.Destination, "https://"), ":8470"), Bytes: api.MovedBytes{Disk: 101 << 20, Memory: 30 << 20},
		Phases:   map[string]api.Duration{"perform": api.Duration(1500 * time.Millisecond), "prepare": api.Duration(300 * time.Millisecond)},
		Downtime: api.Duration(180 * time.Millisecond), Warnings: []string{"the guest agent did not answer"},
	}
	var err error
	end.Result, err = json.Marshal(result)
	return f.begin(start, moving(id, ref.Name, 10, 100<<20, 0), moving(id, ref.Name, 70, 700<<20, 16<<20), end), err
}
