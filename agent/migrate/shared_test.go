package migrate_test

import (
	"testing"

	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/http/api"
)

// A shared active layer proves nothing about the layers below it: each must be
// on the same storage too, or be the same bytes at the same path.
func TestSharedDiskNeedsEveryLayer(t *testing.T) {
	const local, elsewhere = "/srv/local/base.qcow2", "/srv/elsewhere/base.qcow2"
	for name, tc := range map[string]struct {
		facts  []api.LayerFacts
		action string
	}{
		"unknown there":            {nil, api.ActionCopy},
		"missing there":            {[]api.LayerFacts{{State: migrate.LayerMissing}}, api.ActionCopy},
		"other bytes there":        {[]api.LayerFacts{{Path: local, State: migrate.LayerDiffers}}, api.ActionCopy},
		"same bytes, another path": {[]api.LayerFacts{{Path: elsewhere, State: migrate.LayerVerified}}, api.ActionCopy},
		"same bytes, same path":    {[]api.LayerFacts{{Path: local, State: migrate.LayerVerified}}, api.ActionSkip},
	} {
		d := disk("vda", local)
		in := shared(input("auto", d), "vda", "default", d.Path)
		in.Destination.Disks[0].Layers = tc.facts
		plan, _ := migrate.Decide(in)
		if got := plan.Disks[0].Action; got != tc.action {
			t.Errorf("shared folder, base %s: %s, want %s", name, got, tc.action)
		}

		d.Kind, d.Format, d.Path = "network", "qcow2", "iscsi://10.0.0.1:3260/iqn.x/1"
		d.Endpoint = &api.Target{Type: "iscsi", Portal: "10.0.0.1:3260", IQN: "iqn.x", LUN: 1}
		in = input("auto", d)
		in.Destination.Disks = []api.DiskFacts{{Target: "vda", Layers: tc.facts}}
		plan, _ = migrate.Decide(in)
		if got := plan.Disks[0].Action; got != tc.action {
			t.Errorf("same LUN, base %s: %s, want %s", name, got, tc.action)
		}
	}
}

// A destination that is this host holds the name, of course: that is no reason
// of its own.
func TestSameHostIsTheOnlyReason(t *testing.T) {
	in := input("auto", disk("vda"))
	in.Destination.Host.UUID = in.Instance.HostUUID
	in.Destination.NameTaken = `instance "vm" with this UUID exists at the destination already (running)`
	_, refusals := migrate.Decide(in)
	if len(refusals) != 1 || refusals[0].Code != "same-host" {
		t.Errorf("refusals %+v; want same-host alone", refusals)
	}
}

// QEMU goes on with what it has open, a destination with what the XML names:
// where the two differ the instance stays, even if nothing would be copied.
func TestSharedDiskThatDisagrees(t *testing.T) {
	d := disk("vda")
	d.Disagreements = []string{"libvirt names x, QEMU has y open"}
	_, refusals := migrate.Decide(shared(input("auto", d), "vda", "default", d.Path))
	if len(refusals) != 1 || refusals[0].Code != "chain-disagrees" {
		t.Errorf("refusals %+v; want chain-disagrees", refusals)
	}
}

// A disc of the same name with other bytes is a missing disc.
func TestMediaThatDiffer(t *testing.T) {
	d := disk("sda")
	d.Device, d.ReadOnly = "cdrom", true
	in := input("auto", d)
	in.Destination.Media = map[string]bool{d.Path: true}
	if _, refusals := migrate.Decide(in); len(refusals) != 0 {
		t.Errorf("refusals %+v; want none", refusals)
	}
	in.Destination.MediaDiffers = []string{d.Path}
	if _, refusals := migrate.Decide(in); len(refusals) != 1 || refusals[0].Code != "media-missing" {
		t.Errorf("refusals %+v; want media-missing", refusals)
	}
}

// A layer that has no digest, a block device for instance, can be copied but is
// never taken for the same as another.
func TestLayerWithoutADigest(t *testing.T) {
	in := layers(input("auto", disk("vda", base)), "vda", "verified")
	in.Instance.Disks[0].Chain[1].Digest = ""
	if plan, refusals := migrate.Decide(in); plan.Mode != api.ModeFull || len(refusals) != 0 {
		t.Errorf("plan %+v, refusals %+v; want a full clone", plan, refusals)
	}
}
