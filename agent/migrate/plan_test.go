package migrate_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/http/api"
)

const (
	gib  = 1 << 30
	mib  = 1 << 20
	base = "/var/lib/libvirt/images/base.qcow2"
)

// disk is a qcow2 file in pool default, with these backing layers.
func disk(target string, backing ...string) migrate.Disk {
	d := migrate.Disk{Disk: api.Disk{Target: target, Kind: "file", Device: "disk", Pool: "default", Format: "qcow2",
		Path: "/var/lib/libvirt/images/" + target + ".qcow2", Size: 10 * gib}, Stageable: map[string]string{}}
	d.Chain = []api.Layer{{Path: d.Path, Format: "qcow2", VirtualSize: d.Size, Allocated: 100 * mib}}
	for _, b := range backing {
		d.Chain = append(d.Chain, api.Layer{Path: b, Format: "qcow2", VirtualSize: d.Size, Allocated: gib, Digest: "sha256:" + b})
	}
	return d
}

func direct(d migrate.Disk) migrate.Disk {
	d.DirectDownload, d.Template = true, "rocky9"
	return d
}

// input is a request with a destination that lacks nothing but layers.
func input(mode string, disks ...migrate.Disk) migrate.Input {
	in := migrate.Input{Request: api.MigrateRequest{Destination: "https://b:8470", Mode: mode},
		Instance: migrate.Instance{Ref: api.Ref{Project: "default", Name: "vm"}, UUID: "u", HostUUID: "host-a", Disks: disks},
		Destination: api.Facts{Host: api.Host{Name: "b", UUID: "host-b"}, CPU: api.Check{OK: true},
			Pools: []api.Pool{
				{Name: "default", Path: "/var/lib/libvirt/images", Active: true, Free: 100 * gib},
				{Name: "second", Path: "/srv/second", Active: true, Free: 100 * gib},
				{Name: "asleep", Path: "/srv/asleep", Free: 100 * gib},
			}}}
	return in
}

// layers says what the destination knows of a disk's backing layers.
func layers(in migrate.Input, target string, states ...string) migrate.Input {
	f := api.DiskFacts{Target: target}
	for i, s := range states {
		path := ""
		for _, d := range in.Instance.Disks {
			if d.Target == target {
				path = d.Chain[i+1].Path
			}
		}
		f.Layers = append(f.Layers, api.LayerFacts{Path: path, State: s})
	}
	in.Destination.Disks = append(in.Destination.Disks, f)
	return in
}

func shared(in migrate.Input, target, pool, path string) migrate.Input {
	in.Destination.Disks = append(in.Destination.Disks, api.DiskFacts{Target: target,
		SharedPools: []api.Pool{{Name: pool, Active: true}}, SharedPath: path})
	return in
}

func codes(r []api.Reason) []string {
	var out []string
	for _, x := range r {
		out = append(out, x.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestMode(t *testing.T) {
	linkedDisk := disk("vda", base)
	for _, c := range []struct {
		name    string
		in      migrate.Input
		mode    string
		forced  bool
		reasons []string
		refused []string
		actions string // of the disks in order: c(opy) or s(kip)
	}{
		{name: "direct download forces full", in: layers(input("auto", direct(disk("vda", base))), "vda", "verified"),
			mode: "full", forced: true, reasons: []string{"direct-download"}, actions: "c"},
		{name: "direct download forces full though linked was asked", in: layers(input("linked", direct(disk("vda", base))), "vda", "verified"),
			mode: "full", forced: true, reasons: []string{"direct-download", "requested"}, actions: "c"},
		{name: "one direct download makes all disks full", in: layers(input("auto", disk("vda", base), direct(disk("vdb", base))), "vda", "verified"),
			mode: "full", forced: true, reasons: []string{"direct-download"}, actions: "cc"},
		{name: "a skipped direct download forces nothing", in: layers(shared(input("auto", direct(disk("vda", base)), disk("vdb", base)), "vda", "default", "/var/lib/libvirt/images/vda.qcow2"), "vdb", "verified"),
			mode: "linked", reasons: []string{"chain-verified", "same-storage"}, actions: "sc"},
		{name: "a standalone disk keeps no flag", in: input("auto", direct(disk("vda"))),
			mode: "full", reasons: []string{"no-backing-chain"}, actions: "c"},
		{name: "verified layers are linked", in: layers(input("auto", linkedDisk), "vda", "verified"),
			mode: "linked", reasons: []string{"chain-verified"}, actions: "c"},
		{name: "missing layer: full", in: layers(input("auto", linkedDisk), "vda", "missing"),
			mode: "full", reasons: []string{"chain-missing"}, actions: "c"},
		{name: "nothing known of the layer: full", in: input("auto", linkedDisk),
			mode: "full", reasons: []string{"chain-missing"}, actions: "c"},
		{name: "other bytes: full", in: layers(input("auto", linkedDisk), "vda", "differs"),
			mode: "full", reasons: []string{"chain-differs"}, actions: "c"},
		{name: "unreadable layer: full", in: layers(input("auto", linkedDisk), "vda", "unreadable"),
			mode: "full", reasons: []string{"chain-missing"}, actions: "c"},
		{name: "linked asked, missing: refused", in: layers(input("linked", linkedDisk), "vda", "missing"),
			mode: "linked", reasons: []string{"chain-missing"}, refused: []string{"chain-missing"}, actions: "c"},
		{name: "linked asked, other bytes: refused", in: layers(input("linked", linkedDisk), "vda", "differs"),
			mode: "linked", reasons: []string{"chain-differs"}, refused: []string{"chain-differs"}, actions: "c"},
		{name: "full asked", in: layers(input("full", linkedDisk), "vda", "verified"),
			mode: "full", reasons: []string{"requested"}, actions: "c"},
		{name: "a deep layer differs", in: layers(input("auto", disk("vda", "/m", base)), "vda", "verified", "differs"),
			mode: "full", reasons: []string{"chain-differs"}, actions: "c"},
		{name: "three verified layers", in: layers(input("auto", disk("vda", "/m", base)), "vda", "verified", "verified"),
			mode: "linked", reasons: []string{"chain-verified"}, actions: "c"},
		{name: "one disk cannot be linked: all full", in: layers(layers(input("auto", linkedDisk, disk("vdb", base)), "vda", "verified"), "vdb", "missing"),
			mode: "full", reasons: []string{"chain-missing"}, actions: "cc"},
		{name: "linked beside standalone", in: layers(input("auto", linkedDisk, disk("vdb")), "vda", "verified"),
			mode: "linked", reasons: []string{"chain-verified", "no-backing-chain"}, actions: "cc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, refusals := migrate.Decide(c.in)
			actions := ""
			for _, d := range plan.Disks {
				actions += d.Action[:1]
			}
			got := []any{plan.Mode, plan.Forced, codes(plan.Reasons), codes(refusals), actions}
			want := []any{c.mode, c.forced, c.reasons, c.refused, c.actions}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, r := range append(plan.Reasons, refusals...) {
				if r.Detail == "" {
					t.Errorf("reason %q explains nothing", r.Code)
				}
			}
		})
	}
}

// The trap that libvirt does not see: layers equal in name and size.
func TestNeverLinkedWithoutADigest(t *testing.T) {
	for _, state := range []string{"", "missing", "differs", "unreadable", "Verified"} {
		plan, _ := migrate.Decide(layers(input("auto", disk("vda", base)), "vda", state))
		if plan.Mode == api.ModeLinked {
			t.Errorf("layer state %q: linked", state)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*migrate.Input)
		want   []string
	}{
		{"nothing wrong", func(*migrate.Input) {}, nil},
		{"snapshots", func(in *migrate.Input) { in.Instance.Snapshots = []string{"before"} }, []string{"snapshots-present"}},
		{"name taken", func(in *migrate.Input) { in.Destination.NameTaken = "taken" }, []string{"name-taken"}},
		{"host device", func(in *migrate.Input) { in.Instance.Blockers = []string{"pci 0000:3b:00.0"} }, []string{"device-not-migratable"}},
		{"the same host", func(in *migrate.Input) { in.Destination.Host.UUID = "host-a" }, []string{"same-host"}},
		{"no space", func(in *migrate.Input) { in.Destination.Pools[0].Free = 99 * mib }, []string{"no-space"}},
		{"another CPU", func(in *migrate.Input) { in.Destination.CPU = api.Check{Detail: "lacks avx2"} }, []string{"cpu-incompatible"}},
		{"unknown disk", func(in *migrate.Input) { in.Request.Disks = []api.DiskRequest{{Target: "vdz"}} }, []string{"disk-unknown"}},
		{"pool asked for is missing", func(in *migrate.Input) { in.Request.Disks = []api.DiskRequest{{Target: "vda", Pool: "none"}} }, []string{"pool-missing"}},
		{"pool asked for is inactive", func(in *migrate.Input) { in.Request.Disks = []api.DiskRequest{{Target: "vda", Pool: "asleep"}} }, []string{"pool-missing"}},
		{"no pool of the name", func(in *migrate.Input) { in.Instance.Disks[0].Pool = "fast"; in.Instance.Disks[0].Path = "/fast/vda" }, []string{"pool-missing"}},
		{"backing format unknown", func(in *migrate.Input) {
			in.Instance.Disks[0].Issues = []api.Reason{{Code: "backing-format-unknown", Detail: "x"}}
		}, []string{"backing-format-unknown"}},
		{"witnesses disagree", func(in *migrate.Input) { in.Instance.Disks[0].Disagreements = []string{"x"} }, []string{"chain-disagrees"}},
		{"missing ISO", func(in *migrate.Input) {
			in.Instance.Disks = append(in.Instance.Disks, migrate.Disk{Disk: api.Disk{Target: "sda", Device: "cdrom", Kind: "file", Path: "/iso", ReadOnly: true}})
		}, []string{"media-missing"}},
		{"all at once", func(in *migrate.Input) {
			in.Instance.Snapshots = []string{"s"}
			in.Destination.NameTaken = "taken"
			in.Destination.Pools[0].Free = 0
			in.Request.Disks = []api.DiskRequest{{Target: "vdz"}}
		}, []string{"disk-unknown", "name-taken", "no-space", "snapshots-present"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := input("auto", disk("vda"))
			c.change(&in)
			_, refusals := migrate.Decide(in)
			if diff := cmp.Diff(c.want, codes(refusals)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// An empty drive and a present medium stand in nobody's way.
func TestMediaAreSkipped(t *testing.T) {
	in := input("auto", disk("vda"),
		migrate.Disk{Disk: api.Disk{Target: "sda", Device: "cdrom", Kind: "file"}},
		migrate.Disk{Disk: api.Disk{Target: "sdb", Device: "cdrom", Kind: "file", Path: "/iso", ReadOnly: true}})
	in.Destination.Media = map[string]bool{"/iso": true}
	plan, refusals := migrate.Decide(in)
	if len(refusals) > 0 || plan.Disks[1].Action != "skip" || plan.Disks[2].Reason != "read-only-media" {
		t.Errorf("plan %+v, refusals %+v", plan, refusals)
	}
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name    string
		request api.DiskRequest
		change  func(*migrate.Disk)
		want    string
		format  string
	}{
		{name: "same name", want: "/var/lib/libvirt/images/vda.qcow2", format: "qcow2"},
		{name: "another pool", request: api.DiskRequest{Pool: "second"}, want: "/srv/second/vda.qcow2", format: "qcow2"},
		{name: "another format renames", request: api.DiskRequest{Format: "raw"}, want: "/var/lib/libvirt/images/vda.raw", format: "raw"},
		{name: "a network disk gets a name", change: func(d *migrate.Disk) {
			d.Kind, d.Path, d.Format, d.Pool = "network", "iscsi://h:3260/iqn/1", "raw", ""
		}, want: "/var/lib/libvirt/images/vm-vda.raw", format: "raw"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := disk("vda")
			if c.change != nil {
				c.change(&d)
			}
			in := input("auto", d)
			if c.request != (api.DiskRequest{}) {
				c.request.Target = "vda"
				in.Request.Disks = []api.DiskRequest{c.request}
			}
			plan, refusals := migrate.Decide(in)
			if len(refusals) > 0 {
				t.Fatalf("refused: %+v", refusals)
			}
			if got := plan.Disks[0].Destination; got.Path != c.want || got.Format != c.format {
				t.Errorf("goes to %s (%s); want %s (%s)", got.Path, got.Format, c.want, c.format)
			}
		})
	}
}

// A full clone moves only active layers where that is sound, and all layers
// otherwise: one disk that is not filled decides for all.
func TestIncremental(t *testing.T) {
	seeded := layers(input("full", disk("vda", base)), "vda", "verified")
	off := seeded
	off.Request.Seed = "off"
	larger := layers(input("full", disk("vda", base)), "vda", "verified")
	larger.Instance.Disks[0].Chain[1].VirtualSize = 20 * gib
	mixed := layers(layers(input("full", disk("vda", base), disk("vdb", base)), "vda", "verified"), "vdb", "missing")
	target := input("auto", disk("vda"))
	target.Request.Disks = []api.DiskRequest{{Target: "vda", Connect: &api.Target{Type: "iscsi", Portal: "p", IQN: "iqn.x", LUN: 1}}}
	for _, c := range []struct {
		name  string
		in    migrate.Input
		want  bool
		bytes int64
	}{
		{"seeded", seeded, true, 100 * mib},
		{"seed off", off, false, gib + 100*mib},
		{"the base is larger than the disk", larger, false, gib + 100*mib},
		{"one of two seeded", mixed, false, 2 * (gib + 100*mib)},
		{"standalone", input("auto", disk("vda")), true, 100 * mib},
		{"linked", layers(input("auto", disk("vda", base)), "vda", "verified"), true, 100 * mib},
		{"onto a target that may hold anything", target, false, 100 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, refusals := migrate.Decide(c.in)
			if len(refusals) > 0 {
				t.Fatalf("refused: %+v", refusals)
			}
			if got := migrate.Incremental(plan); got != c.want || plan.Bytes != c.bytes {
				t.Errorf("incremental %v, %d bytes; want %v, %d", got, plan.Bytes, c.want, c.bytes)
			}
		})
	}
}

// A linked clone is made on the destination's own path of the layer.
func TestLinkedOnAnotherPath(t *testing.T) {
	in := layers(input("auto", disk("vda", base)), "vda", "verified")
	in.Destination.Disks[0].Layers[0].Path = "/srv/second/other.qcow2"
	plan, _ := migrate.Decide(in)
	if got := plan.Disks[0].Destination.Backing; got == nil || got.Path != "/srv/second/other.qcow2" {
		t.Errorf("backing %+v; want the destination's path", got)
	}
}

func TestStaging(t *testing.T) {
	d := disk("vda", base)
	d.Stageable[base] = "rocky9"
	in := layers(input("linked", d), "vda", "missing")
	in.Request.StageTemplates = true
	plan, refusals := migrate.Decide(in)
	if len(refusals) > 0 || plan.Mode != "linked" || len(plan.Disks[0].Stage) != 1 || plan.Disks[0].Stage[0].Template != "rocky9" {
		t.Errorf("plan %+v, refusals %+v; want the template staged", plan, refusals)
	}
	in.Instance.Disks[0].Stageable = map[string]string{}
	if _, refusals := migrate.Decide(in); !slices.Equal(codes(refusals), []string{"chain-missing"}) {
		t.Errorf("refusals %+v; a layer that is no template cannot be staged", refusals)
	}
}

func TestMissingRefIsSaidBeforeAnythingMoves(t *testing.T) {
	d := disk("vda", base)
	d.RefMissing, d.Template = true, "rocky9"
	_, refusals := migrate.Decide(layers(input("auto", d), "vda", "verified"))
	if !slices.Equal(codes(refusals), []string{"template-ref-missing"}) {
		t.Errorf("refusals %+v", refusals)
	}
}

// A disk that any host can reach is connected; an explicit pool has it copied.
func TestEndpoints(t *testing.T) {
	d := disk("vda")
	d.Kind, d.Path, d.Format, d.Pool = "network", "iscsi://h:3260/iqn.x/1", "raw", ""
	d.Endpoint = &api.Target{Type: "iscsi", Portal: "h:3260", IQN: "iqn.x", LUN: 1}
	plan, _ := migrate.Decide(input("auto", d))
	if got := plan.Disks[0]; got.Action != "skip" || got.Reason != "same-storage" || got.Connect == nil {
		t.Errorf("disk %+v; want it skipped and connected", got)
	}
	in := input("auto", d)
	in.Request.Disks = []api.DiskRequest{{Target: "vda", Pool: "second"}}
	plan, _ = migrate.Decide(in)
	if got := plan.Disks[0]; got.Action != "copy" || got.Destination.Path != "/srv/second/vm-vda.raw" {
		t.Errorf("disk %+v; want it copied into the pool", got)
	}
}

// A pool of the same name is not the same storage.
func TestEqualNamesProveNothing(t *testing.T) {
	plan, _ := migrate.Decide(input("auto", disk("vda")))
	if plan.Disks[0].Action != "copy" {
		t.Errorf("disk %+v; want it copied", plan.Disks[0])
	}
	in := input("auto", disk("vda"))
	in.Instance.Disks[0].PoolIdentity = "nfs:filer:/vol"
	in.Destination.Pools[0].Identity = "nfs:filer:/vol"
	plan, _ = migrate.Decide(in)
	if plan.Disks[0].Action != "skip" {
		t.Errorf("disk %+v; want it skipped: the identities are equal", plan.Disks[0])
	}
}

// A shared folder at another path takes the layers in it along.
func TestSharedUnderAnotherPath(t *testing.T) {
	in := shared(input("auto", disk("vda", base)), "vda", "second", "/srv/second/vda.qcow2")
	plan, _ := migrate.Decide(in)
	got := plan.Disks[0]
	if got.Action != "skip" || got.Destination.Path != "/srv/second/vda.qcow2" || got.Destination.Chain[0].Path != "/srv/second/base.qcow2" {
		t.Errorf("disk %+v", got)
	}
	in.Instance.Disks[0].Chain[1].Path = "/elsewhere/base.qcow2"
	plan, _ = migrate.Decide(in)
	if plan.Disks[0].Action != "copy" {
		t.Errorf("disk %+v; its layer is not known to be shared", plan.Disks[0])
	}
}
