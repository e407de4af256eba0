package migrate_test

import (
	"testing"

	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/http/api"
)

// The same export may be mounted in another folder there, and any other file
// may lie at the source's path.
func TestSameStorageInAnotherFolder(t *testing.T) {
	d := disk("vda", "/var/lib/libvirt/images/base.qcow2")
	d.PoolIdentity = "nfs:nas:/export"
	in := input("auto", d)
	in.Destination.Pools = append(in.Destination.Pools, api.Pool{Name: "nas", Path: "/mnt/nas", Active: true, Identity: "nfs:nas:/export"})
	plan, _ := migrate.Decide(in)
	got := plan.Disks[0]
	if got.Reason != migrate.SameStorage || got.Destination.Path != "/mnt/nas/vda.qcow2" || got.Destination.Chain[0].Path != "/mnt/nas/base.qcow2" {
		t.Errorf("disk %+v at %+v; want it in the destination's folder", got, got.Destination)
	}
}
