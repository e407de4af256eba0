package domainxml_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

func TestGenerate(t *testing.T) {
	text, err := domainxml.Generate(domainxml.CreateSpec{
		Name: "vm <1>", UUID: "c7a5fdbd-cdaf-9455-926a-d65c16db1809", VCPUs: 2, Memory: 1<<30 + 1,
		Disks: []domainxml.CreateDisk{
			{Source: "/i/a&b.qcow2", Format: "qcow2", Backing: []domainxml.BackingLayer{{Path: "/i/base", Format: "qcow2"}}},
			{Device: "cdrom"},
			{Source: "/i/c.raw", Format: "raw", Serial: "S1"},
			{Bus: "scsi", Type: "network", Source: "iscsi://h:3260/iqn.x:y/1", Format: "raw"},
			{Target: "vdb", Source: "/i/d.raw", Format: "raw"},
		},
		NICs:      []domainxml.CreateNIC{{Source: "default"}, {Type: "bridge", Source: "br0", MAC: "52:54:00:00:00:01"}},
		Metadata:  `<w:x xmlns:w="urn:w">1</w:x>`,
		VNCListen: "127.0.0.1", SerialLog: "/var/log/s.log",
	})
	if err != nil {
		t.Fatal(err)
	}
	d := mustParse(t, text)
	if d.Name != "vm <1>" || d.VCPUs != 2 || d.Memory != 1<<30+1024 || d.Type != "qemu" || d.Machine != "q35" || d.CPUMode != "custom" {
		t.Errorf("domain: %+v", d)
	}
	want := []domainxml.Disk{
		{Target: "vda", Device: "disk", Bus: "virtio", Type: "file", Format: "qcow2", Source: "/i/a&b.qcow2", Discard: "unmap", Chain: []domainxml.BackingLayer{{Path: "/i/base", Format: "qcow2", Type: "file"}}, BackingTerminated: true},
		{Target: "sda", Device: "cdrom", Bus: "sata", Type: "file", Format: "raw", ReadOnly: true},
		{Target: "vdc", Device: "disk", Bus: "virtio", Type: "file", Format: "raw", Source: "/i/c.raw", Discard: "unmap", Serial: "S1", BackingTerminated: true},
		{Target: "sdb", Device: "disk", Bus: "scsi", Type: "network", Protocol: "iscsi", Format: "raw", Source: "iscsi://h:3260/iqn.x:y/1", Discard: "unmap", BackingTerminated: true},
		{Target: "vdb", Device: "disk", Bus: "virtio", Type: "file", Format: "raw", Source: "/i/d.raw", Discard: "unmap", BackingTerminated: true},
	}
	if diff := cmp.Diff(want, d.Disks); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
	if d.Metadata != `<w:x xmlns:w="urn:w">1</w:x>` {
		t.Errorf("metadata %q", d.Metadata)
	}
	for _, part := range []string{"<acpi>", `name="org.qemu.guest_agent.0"`, `<serial type="pty">`, `listen="127.0.0.1"`, `network="default"`, `bridge="br0"`} {
		if !strings.Contains(text, part) {
			t.Errorf("%s is missing in\n%s", part, text)
		}
	}
}

func TestGenerateForKVM(t *testing.T) {
	text, err := domainxml.Generate(domainxml.CreateSpec{Name: "vm", Memory: 1 << 28, KVM: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := mustParse(t, text); d.Type != "kvm" || d.CPUMode != "host-model" {
		t.Errorf("type %q, CPU mode %q", d.Type, d.CPUMode)
	}
}

func TestGenerateRefuses(t *testing.T) {
	base := domainxml.CreateSpec{Name: "vm", Memory: 1 << 28}
	for name, change := range map[string]func(*domainxml.CreateSpec){
		"no name":             func(s *domainxml.CreateSpec) { s.Name = "" },
		"no memory":           func(s *domainxml.CreateSpec) { s.Memory = 0 },
		"disk without source": func(s *domainxml.CreateSpec) { s.Disks = []domainxml.CreateDisk{{Format: "raw"}} },
		"disk without format": func(s *domainxml.CreateSpec) { s.Disks = []domainxml.CreateDisk{{Source: "/a"}} },
		"layer, no format": func(s *domainxml.CreateSpec) {
			s.Disks = []domainxml.CreateDisk{{Source: "/a", Format: "qcow2", Backing: []domainxml.BackingLayer{{Path: "/b"}}}}
		},
		"target twice": func(s *domainxml.CreateSpec) {
			s.Disks = []domainxml.CreateDisk{{Target: "vda", Source: "/a", Format: "raw"}, {Target: "vda", Source: "/b", Format: "raw"}}
		},
		"metadata not closed": func(s *domainxml.CreateSpec) { s.Metadata = "<x>" },
	} {
		t.Run(name, func(t *testing.T) {
			s := base
			change(&s)
			if text, err := domainxml.Generate(s); err == nil {
				t.Errorf("accepted:\n%s", text)
			}
		})
	}
}
