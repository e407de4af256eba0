package domainxml_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// A root disk is replaced in what libvirt gives as the definition of the next
// start, with all that belongs to the instance's identity around it. Nothing but
// that one disk's driver, source and backing chain may change.
func TestReplacingARootDiskChangesNothingElse(t *testing.T) {
	before := read(t, "testdata/inactive.xml")
	root := func(d domainxml.Domain) domainxml.Disk { x, _ := d.Disk("vda"); return x }
	d := mustParse(t, before)
	if root(d).BootOrder != 2 || d.Disks[1].BootOrder != 0 || d.Disks[0].Target != "vda" {
		t.Fatalf("disks %+v", d.Disks)
	}
	got, err := domainxml.SetDisk(before, "vda", images+"new.qcow2", "qcow2", domainxml.BackingLayer{Path: images + "debian12.qcow2", Format: "qcow2"})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/inactive.replaced.golden.xml"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read(t, golden), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// And back again: what was cut away is the old disk's alone.
	back, err := domainxml.SetDisk(got, "vda", images+"old.raw", "raw")
	if err != nil {
		t.Fatal(err)
	}
	was, is := mustParse(t, before), mustParse(t, back)
	if diff := cmp.Diff(was, is); diff != "" {
		t.Errorf("there and back (-was +is):\n%s", diff)
	}
}
