package domainxml_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustParse(t *testing.T, text string) domainxml.Domain {
	t.Helper()
	d, err := domainxml.Parse(text)
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, text)
	}
	return d
}

func TestParseLiveDomain(t *testing.T) {
	d := mustParse(t, read(t, "testdata/live-9.0.xml"))
	if d.Name != "g1" || d.Type != "qemu" || d.Arch != "x86_64" || d.Machine != "pc-q35-7.2" || d.VCPUs != 1 || d.Memory != 128<<20 {
		t.Errorf("domain: %+v", d)
	}
	if d.CPUMode != "custom" || d.CPUCheck != "full" || !d.CPUModel || !strings.HasPrefix(d.CPU, "<cpu ") || !strings.HasSuffix(d.CPU, "</cpu>") {
		t.Errorf("cpu %q mode %q check %q", d.CPU, d.CPUMode, d.CPUCheck)
	}
	const images = "/var/lib/libvirt/images/"
	want := []domainxml.Disk{
		{
			Target: "vda", Device: "disk", Bus: "virtio", Type: "file", Format: "qcow2", Source: images + "top.qcow2", Discard: "unmap", Alias: "virtio-disk0",
			Chain: []domainxml.BackingLayer{
				{Path: images + "mid.qcow2", Format: "qcow2", Type: "file"},
				{Path: images + "base.qcow2", Format: "qcow2", Type: "file"},
			},
			BackingTerminated: true,
		},
		{Target: "vdb", Device: "disk", Bus: "virtio", Type: "file", Format: "raw", Source: images + "data.raw", Discard: "unmap", Alias: "virtio-disk1", BackingTerminated: true},
		{Target: "sdc", Device: "cdrom", Bus: "sata", Type: "file", ReadOnly: true, Alias: "sata0-0-2"},
		{Target: "sdd", Device: "disk", Bus: "sata", Type: "file", Format: "qcow2", Source: images + "top.qcow2.2", Discard: "unmap", Alias: "sata0-0-3", BackingTerminated: true},
	}
	if diff := cmp.Diff(want, d.Disks); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]domainxml.Graphics{{Type: "vnc", Listen: "10.77.0.1"}}, d.Graphics); diff != "" {
		t.Errorf("graphics (-want +got):\n%s", diff)
	}
	if len(d.HostDevices)+len(d.OtherBlockers) != 0 {
		t.Errorf("blockers of a plain domain: %q %q", d.HostDevices, d.OtherBlockers)
	}
}

// disk wraps one disk into the least domain.
func disk(x string) string { return "<domain><name>d</name><devices>" + x + "</devices></domain>" }

func TestParseDiskSources(t *testing.T) {
	for name, tc := range map[string]struct{ xml, source, typ string }{
		"file":                  {`<disk type='file'><source file='/a/b c.img'/><target dev='vda'/></disk>`, "/a/b c.img", "file"},
		"type left out":         {`<disk><source file='/a'/><target dev='vda'/></disk>`, "/a", "file"},
		"entities":              {`<disk type='file'><source file='/a&amp;b&apos;c&quot;d&lt;.img'/><target dev='vda'/></disk>`, `/a&b'c"d<.img`, "file"},
		"double quotes":         {`<disk type="file"><source file="/it's"/><target dev="vda"/></disk>`, "/it's", "file"},
		"block":                 {`<disk type='block'><source dev='/dev/vg/lv'/><target dev='vda'/></disk>`, "/dev/vg/lv", "block"},
		"volume":                {`<disk type='volume'><source pool='p' volume='v.img'/><target dev='vda'/></disk>`, "p/v.img", "volume"},
		"iscsi":                 {`<disk type='network'><source protocol='iscsi' name='iqn.2026-01.x:y/3'><host name='h' port='3261'/></source><target dev='vda'/></disk>`, "iscsi://h:3261/iqn.2026-01.x:y/3", "network"},
		"iscsi, default port":   {`<disk type='network'><source protocol='iscsi' name='iqn.x:y/3'><host name='h'/></source><target dev='vda'/></disk>`, "iscsi://h:3260/iqn.x:y/3", "network"},
		"iscsi, IPv6":           {`<disk type='network'><source protocol='iscsi' name='iqn.x:y/3'><host name='fd77::2'/></source><target dev='vda'/></disk>`, "iscsi://[fd77::2]:3260/iqn.x:y/3", "network"},
		"iscsi, default LUN":    {`<disk type='network'><source protocol='iscsi' name='iqn.x:y'><host name='h'/></source><target dev='vda'/></disk>`, "iscsi://h:3260/iqn.x:y/0", "network"},
		"rbd":                   {`<disk type='network'><source protocol='rbd' name='pool/img'><host name='m1'/></source><target dev='vda'/></disk>`, "rbd:pool/img", "network"},
		"nbd":                   {`<disk type='network'><source protocol='nbd' name='exp'><host name='h' port='10809'/></source><target dev='vda'/></disk>`, "nbd://h:10809/exp", "network"},
		"empty drive":           {`<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>`, "", "file"},
		"another namespace":     {`<disk type='file' xmlns:q='urn:q'><q:source file='/no'/><source file='/yes'/><target dev='vda'/></disk>`, "/yes", "file"},
		"child of another name": {`<disk type='file'><backingStore type='file'><format type='raw'/><source file='/base'/></backingStore><target dev='vda'/></disk>`, "", "file"},
	} {
		t.Run(name, func(t *testing.T) {
			d := mustParse(t, disk(tc.xml))
			if got := d.Disks[0]; got.Source != tc.source || got.Type != tc.typ {
				t.Errorf("source %q type %q, want %q %q", got.Source, got.Type, tc.source, tc.typ)
			}
		})
	}
}

func TestParseChainThatIsNotTerminated(t *testing.T) {
	d := mustParse(t, disk(`<disk type='file'><source file='/top'/><backingStore type='block'><format type='raw'/><source dev='/dev/x'/></backingStore><target dev='vda'/></disk>`))
	want := []domainxml.BackingLayer{{Path: "/dev/x", Format: "raw", Type: "block"}}
	if diff := cmp.Diff(want, d.Disks[0].Chain); diff != "" || d.Disks[0].BackingTerminated {
		t.Errorf("terminated %v, chain (-want +got):\n%s", d.Disks[0].BackingTerminated, diff)
	}
}

func TestParseMemoryUnits(t *testing.T) {
	for in, want := range map[string]int64{
		"<memory>1024</memory>": 1 << 20, "<memory unit='KiB'>2</memory>": 2048, "<memory unit='MiB'> 3 </memory>": 3 << 20,
		"<memory unit='G'>1</memory>": 1 << 30, "<memory unit='GB'>1</memory>": 1e9, "<memory unit='bytes'>7</memory>": 7,
	} {
		d := mustParse(t, "<domain><name>d</name>"+in+"</domain>")
		if d.Memory != want {
			t.Errorf("%s: %d bytes, want %d", in, d.Memory, want)
		}
	}
}

func TestParseBlockers(t *testing.T) {
	d := mustParse(t, disk(`
		<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source></hostdev>
		<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='c2177883'/></source></hostdev>
		<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x01' slot='0x02' function='0x0'/></source></interface>
		<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>
		<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><model type='virtio'/></interface>
		<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='share'/></filesystem>
		<shmem name='s0'/><shmem name='s1' role='master'/>
		<disk type='file'><source file='/t'/><target dev='vda'/><transient/></disk>`))
	wantHost := []string{"pci 0000:3b:00.1", "mdev c2177883", "interface hostdev 0000:01:02.0", "interface vdpa /dev/vhost-vdpa-0"}
	if diff := cmp.Diff(wantHost, d.HostDevices); diff != "" {
		t.Errorf("host devices (-want +got):\n%s", diff)
	}
	wantOther := []string{"filesystem virtiofs share", "shmem s0", "disk vda transient"}
	if diff := cmp.Diff(wantOther, d.OtherBlockers); diff != "" {
		t.Errorf("other blockers (-want +got):\n%s", diff)
	}
	if got := d.Interfaces[2]; got.Source != "br0" || got.MAC != "52:54:00:00:00:01" {
		t.Errorf("bridge interface: %+v", got)
	}
}

func TestParseKeepsMetadataAsWritten(t *testing.T) {
	const inner = "\n<x:y xmlns:x=\"urn:x\"  a='&amp;'/><!-- c -->"
	d := mustParse(t, "<domain><name>d</name><metadata>"+inner+"</metadata></domain>")
	if d.Metadata != inner {
		t.Errorf("metadata %q, want %q", d.Metadata, inner)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":              "",
		"no XML":               "hello",
		"another root":         "<network/>",
		"default namespace":    "<domain xmlns='urn:x'/>",
		"not closed":           "<domain><name>",
		"crossed":              "<domain><a><b></a></b></domain>",
		"DOCTYPE":              "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain/>",
		"unknown entity":       "<domain><name>&x;</name></domain>",
		"two roots":            "<domain/><domain/>",
		"text after the root":  "<domain/>x",
		"instruction":          "<domain><?php x?></domain>",
		"attribute twice":      "<domain type='a' type='b'/>",
		"attribute no quotes":  "<domain type=a/>",
		"two devices":          "<domain><devices/><devices/></domain>",
		"disk without target":  disk("<disk type='file'><source file='/a'/></disk>"),
		"target used twice":    disk("<disk><target dev='vda'/></disk><disk><target dev='vda'/></disk>"),
		"vcpu no number":       "<domain><vcpu>many</vcpu></domain>",
		"vcpu none":            "<domain><vcpu>0</vcpu></domain>",
		"memory overflow":      "<domain><memory unit='TiB'>99999999999</memory></domain>",
		"memory negative":      "<domain><memory>-1</memory></domain>",
		"memory strange unit":  "<domain><memory unit='parsec'>1</memory></domain>",
		"deep":                 "<domain>" + strings.Repeat("<a>", 600) + strings.Repeat("</a>", 600) + "</domain>",
		"large":                "<domain><name>" + strings.Repeat("x", 5<<20) + "</name></domain>",
		"many elements":        "<domain>" + strings.Repeat("<a/>", 200_001) + "</domain>",
		"not UTF-8":            "<domain><name>\xff</name></domain>",
		"declared other bytes": "<?xml version='1.0' encoding='latin1'?><domain/>",
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := domainxml.Parse(text); !errors.Is(err, domainxml.ErrInvalid) {
				t.Errorf("got %+v, error %v", d, err)
			}
		})
	}
}
