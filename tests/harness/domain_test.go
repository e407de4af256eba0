package harness

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func TestDomainXML(t *testing.T) {
	domain := Domain{
		Name: "vm<1>", UUID: "6d1a7b5e-9a0c-4d6e-8f1e-000000000001", Options: "wherry.pace=20ms",
		Disks: []Disk{
			{Target: "vda", Source: ImagesPath + "/a&b.qcow2", Cache: "none"},
			{Target: "sda", Source: "/dev/disk/by-id/emc-vol-1", Format: "raw"},
			{Target: "vdb", Source: "iscsi://10.77.0.2/iqn.2024-01.org.wherry:lun/1", Format: "raw"},
			{Target: "hda", Device: "cdrom", Format: "raw", ReadOnly: true},
		},
		Extra: "<graphics type='vnc' autoport='yes' listen='10.77.0.1'/>",
	}
	got := domain.XML()
	const golden = "testdata/domain.xml"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s; -update writes it):\n%s", got, golden, want)
	}
}

func TestISCSISourceKeepsAPort(t *testing.T) {
	want := `<source protocol='iscsi' name='iqn.x/2'><host name='fd77::2' port='3261'/></source>`
	if got := iscsiSource("iscsi://[fd77::2]:3261/iqn.x/2"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
