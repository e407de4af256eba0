package domainxml_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

var update = flag.Bool("update", false, "write the golden files anew")

const images = "/var/lib/libvirt/images/"

// TestRewriteGolden rewrites what two libvirt versions really wrote.
func TestRewriteGolden(t *testing.T) {
	rewrite := domainxml.RewriteOptions{
		GraphicsListen: "fd77::2",
		Disks: []domainxml.DiskRewrite{
			{Target: "vda", OldSource: images + "top.qcow2", Type: "file", Source: "/srv/b/top.qcow2", Format: "qcow2", Backing: []domainxml.BackingLayer{
				{Path: "/srv/b/mid.qcow2", Format: "qcow2"}, {Path: "/srv/b/base.qcow2", Format: "qcow2"},
			}},
			{Target: "vdb", OldSource: images + "data.raw", Type: "network", Source: "iscsi://10.77.0.2:3260/iqn.2026-01.test:b/1", Format: "raw"},
			{Target: "sdd", OldSource: images + "top.qcow2.2", Type: "block", Source: "/dev/vg/top", Format: "raw"},
		},
	}
	for _, name := range []string{"live-9.0", "migratable-11.3"} {
		t.Run(name, func(t *testing.T) {
			got, err := domainxml.Rewrite(read(t, "testdata/"+name+".xml"), rewrite)
			if err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + name + ".rewritten.golden.xml"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(read(t, golden), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRewriteOneDisk(t *testing.T) {
	file := func(target, from, to string) domainxml.DiskRewrite {
		return domainxml.DiskRewrite{Target: target, OldSource: from, Type: "file", Source: to, Format: "qcow2"}
	}
	for name, tc := range map[string]struct {
		in, want string
		r        domainxml.DiskRewrite
	}{
		"no whitespace": {
			`<disk type='file'><driver name='qemu' type='qcow2'/><source file='/a'/><backingStore/><target dev='vda'/></disk>`,
			`<disk type='file'><driver name='qemu' type='qcow2'/><source file='/b'/><backingStore/><target dev='vda'/></disk>`,
			file("vda", "/a", "/b"),
		},
		"double quotes, escapes": {
			`<disk type="file"><driver name="qemu" type="raw"/><source file="/a&amp;b"/><target dev="vda"/></disk>`,
			`<disk type="file"><driver name="qemu" type="qcow2"/><source file='/c&amp;d&apos;e&quot;f&lt;'/><backingStore/><target dev="vda"/></disk>`,
			file("vda", "/a&b", `/c&d'e"f<`),
		},
		"prefix of another path stays": {
			`<disk type='file'><driver type='raw'/><source file='/a.img2'/><target dev='vdb'/></disk><disk type='file'><driver type='raw'/><source file='/a.img'/><target dev='vda'/></disk>`,
			`<disk type='file'><driver type='raw'/><source file='/a.img2'/><target dev='vdb'/></disk><disk type='file'><driver type='qcow2'/><source file='/n'/><backingStore/><target dev='vda'/></disk>`,
			file("vda", "/a.img", "/n"),
		},
		"same source on two targets": {
			`<disk><driver type='raw'/><source file='/a'/><target dev='vda'/></disk><disk><driver type='raw'/><source file='/a'/><target dev='vdb'/></disk>`,
			`<disk><driver type='raw'/><source file='/a'/><target dev='vda'/></disk><disk type='file'><driver type='qcow2'/><source file='/n'/><backingStore/><target dev='vdb'/></disk>`,
			file("vdb", "/a", "/n"),
		},
		"three layers become none": {
			"<disk type='file'>\n <driver type='qcow2'/>\n <source file='/3' index='1'/>\n <backingStore type='file' index='2'><format type='qcow2'/><source file='/2'/><backingStore type='file'><format type='raw'/><source file='/1'/><backingStore/></backingStore></backingStore>\n <target dev='vda'/>\n</disk>",
			"<disk type='file'>\n <driver type='qcow2'/>\n <source file='/n'/>\n <backingStore/>\n <target dev='vda'/>\n</disk>",
			file("vda", "/3", "/n"),
		},
		"driver absent": {
			`<disk type='file'><source file='/a'/><target dev='vda'/></disk>`,
			`<disk type='file'><driver name='qemu' type='qcow2'/><source file='/b'/><backingStore/><target dev='vda'/></disk>`,
			file("vda", "/a", "/b"),
		},
		"volume becomes file": {
			`<disk type='volume'><driver type='qcow2'/><source pool='p' volume='v' mode='host'/><target dev='vda'/></disk>`,
			`<disk type='file'><driver type='qcow2'/><source file='/b'/><backingStore/><target dev='vda'/></disk>`,
			file("vda", "p/v", "/b"),
		},
		"labels, slices and mirror go, policy, serial and tuning stay": {
			"<disk type='file'><driver type='qcow2' cache='none'/><source file='/a' startupPolicy='optional' index='3'><seclabel model='dac' relabel='no'/><slices><slice type='storage' offset='0' size='1'/></slices></source>\n  <mirror type='file' job='copy'><source file='/m'/></mirror>\n  <iotune><total_iops_sec>5</total_iops_sec></iotune><target dev='vda'/><serial>S</serial></disk>",
			"<disk type='file'><driver type='qcow2' cache='none'/><source file='/b' startupPolicy='optional'/><backingStore/>\n  <iotune><total_iops_sec>5</total_iops_sec></iotune><target dev='vda'/><serial>S</serial></disk>",
			file("vda", "/a", "/b"),
		},
		"encryption of the source stays": {
			`<disk type='file'><driver type='qcow2'/><source file='/a'><encryption format='luks'><secret type='passphrase' uuid='u'/></encryption></source><target dev='vda'/></disk>`,
			`<disk type='file'><driver type='qcow2'/><source file='/b'><encryption format='luks'><secret type='passphrase' uuid='u'/></encryption></source><backingStore/><target dev='vda'/></disk>`,
			file("vda", "/a", "/b"),
		},
		"iscsi becomes file, its secret goes": {
			`<disk type='network'><driver type='raw'/><auth username='u'><secret type='iscsi' uuid='x'/></auth><source protocol='iscsi' name='iqn.x:y/1'><host name='h' port='3260'/><auth username='u'><secret type='iscsi' uuid='x'/></auth></source><target dev='vda'/></disk>`,
			`<disk type='file'><driver type='qcow2'/><source file='/b'/><backingStore/><target dev='vda'/></disk>`,
			file("vda", "iscsi://h:3260/iqn.x:y/1", "/b"),
		},
		"file becomes iscsi": {
			`<disk type='file'><driver type='qcow2' discard_no_unref='on'><metadata_cache><max_size unit='bytes'>1</max_size></metadata_cache></driver><source file='/a' startupPolicy='optional'/><backingStore/><target dev='vda'/></disk>`,
			`<disk type='network'><driver type='raw'></driver><source protocol='iscsi' name='iqn.x:y/1'><host name='fd77::2' port='3260'/></source><backingStore/><target dev='vda'/></disk>`,
			domainxml.DiskRewrite{Target: "vda", OldSource: "/a", Type: "network", Source: "iscsi://[fd77::2]/iqn.x:y/1", Format: "raw"},
		},
		"iscsi to iscsi keeps who may log in": {
			`<disk type='network'><driver type='raw'/><source protocol='iscsi' name='iqn.x:y/1'><host name='h' port='3260'/><auth username='u'><secret type='iscsi' uuid='x'/></auth><initiator><iqn name='i'/></initiator></source><target dev='vda'/></disk>`,
			`<disk type='network'><driver type='raw'/><source protocol='iscsi' name='iqn.x:y/2'><host name='g' port='3260'/><auth username='u'><secret type='iscsi' uuid='x'/></auth><initiator><iqn name='i'/></initiator></source><backingStore/><target dev='vda'/></disk>`,
			domainxml.DiskRewrite{Target: "vda", OldSource: "iscsi://h:3260/iqn.x:y/1", Type: "network", Source: "iscsi://g:3260/iqn.x:y/2", Format: "raw"},
		},
		"iscsi to iscsi with a login of its own": {
			`<disk type='network'><driver type='raw'/><auth username='u'><secret type='iscsi' uuid='x'/></auth><source protocol='iscsi' name='iqn.x:y/1'><host name='h' port='3260'/><auth username='u'><secret type='iscsi' uuid='x'/></auth></source><target dev='vda'/></disk>`,
			`<disk type='network'><driver type='raw'/><source protocol='iscsi' name='iqn.x:y/2'><host name='g' port='3260'/><auth username='v&amp;w'><secret type='iscsi' usage='kept'/></auth></source><backingStore/><target dev='vda'/></disk>`,
			domainxml.DiskRewrite{Target: "vda", OldSource: "iscsi://h:3260/iqn.x:y/1", Type: "network", Source: "iscsi://g:3260/iqn.x:y/2", Format: "raw", Auth: &domainxml.Auth{User: "v&w", Usage: "kept"}},
		},
		"iscsi to iscsi without a login": {
			`<disk type='network'><driver type='raw'/><source protocol='iscsi' name='iqn.x:y/1'><host name='h' port='3260'/><auth username='u'><secret type='iscsi' uuid='x'/></auth></source><target dev='vda'/></disk>`,
			`<disk type='network'><driver type='raw'/><source protocol='iscsi' name='iqn.x:y/2'><host name='g' port='3260'/></source><backingStore/><target dev='vda'/></disk>`,
			domainxml.DiskRewrite{Target: "vda", OldSource: "iscsi://h:3260/iqn.x:y/1", Type: "network", Source: "iscsi://g:3260/iqn.x:y/2", Format: "raw", Auth: &domainxml.Auth{}},
		},
		"rbd keeps its monitors": {
			`<disk type='network'><driver type='raw'/><source protocol='rbd' name='p/a'><host name='m1'/><host name='m2'/></source><target dev='vda'/></disk>`,
			`<disk type='network'><driver type='raw'/><source protocol='rbd' name='p/b'><host name='m1'/><host name='m2'/></source><backingStore/><target dev='vda'/></disk>`,
			domainxml.DiskRewrite{Target: "vda", OldSource: "rbd:p/a", Type: "network", Source: "rbd:p/b", Format: "raw"},
		},
		"CD-ROM with a medium": {
			`<disk type='file' device='cdrom'><driver type='raw'/><source file='/x.iso'/><target dev='sda'/><readonly/></disk><disk type='file' device='cdrom'><target dev='sdb'/><readonly/></disk>`,
			`<disk type='file' device='cdrom'><driver type='raw'/><source file='/y.iso'/><backingStore/><target dev='sda'/><readonly/></disk><disk type='file' device='cdrom'><target dev='sdb'/><readonly/></disk>`,
			domainxml.DiskRewrite{Target: "sda", OldSource: "/x.iso", Type: "file", Source: "/y.iso", Format: "raw"},
		},
		"comments and CDATA survive": {
			`<!-- <disk> --><disk type='file'><!-- source --><driver type='qcow2'/><source file='/a'/><!-- <source file='/no'/> --><target dev='vda'/><serial><![CDATA[<&>]]></serial></disk>`,
			`<!-- <disk> --><disk type='file'><!-- source --><driver type='qcow2'/><source file='/b'/><backingStore/><!-- <source file='/no'/> --><target dev='vda'/><serial><![CDATA[<&>]]></serial></disk>`,
			file("vda", "/a", "/b"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := domainxml.Rewrite(disk(tc.in), domainxml.RewriteOptions{Disks: []domainxml.DiskRewrite{tc.r}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(disk(tc.want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if d, ok := mustParse(t, got).Disk(tc.r.Target); !ok || d.Format != tc.r.Format || d.Type != tc.r.Type {
				t.Errorf("parsed again: %+v", d)
			}
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	good := domainxml.DiskRewrite{Target: "vda", OldSource: "/a.img", Type: "file", Source: "/b", Format: "raw"}
	with := func(f func(*domainxml.DiskRewrite)) []domainxml.DiskRewrite {
		r := good
		f(&r)
		return []domainxml.DiskRewrite{r}
	}
	text := disk(`<disk type='file'><driver type='raw'/><source file='/a.img'/><target dev='vda'/></disk>`)
	for name, tc := range map[string]struct {
		disks []domainxml.DiskRewrite
		says  string
	}{
		"longer path":       {with(func(r *domainxml.DiskRewrite) { r.OldSource = "/a.img2" }), `"/a.img2"`},
		"shorter path":      {with(func(r *domainxml.DiskRewrite) { r.OldSource = "/a" }), `"/a"`},
		"another target":    {with(func(r *domainxml.DiskRewrite) { r.Target = "vdb" }), `"vdb"`},
		"given twice":       {[]domainxml.DiskRewrite{good, good}, "twice"},
		"no format":         {with(func(r *domainxml.DiskRewrite) { r.Format = "" }), "format"},
		"no source":         {with(func(r *domainxml.DiskRewrite) { r.Source = "" }), "source"},
		"unknown type":      {with(func(r *domainxml.DiskRewrite) { r.Type = "nvme" }), `"nvme"`},
		"no network URL":    {with(func(r *domainxml.DiskRewrite) { r.Type = "network" }), `"/b"`},
		"layer, no format":  {with(func(r *domainxml.DiskRewrite) { r.Backing = []domainxml.BackingLayer{{Path: "/base"}} }), `"/base"`},
		"layer, no path":    {with(func(r *domainxml.DiskRewrite) { r.Backing = []domainxml.BackingLayer{{Format: "raw"}} }), "path"},
		"iscsi without LUN": {with(func(r *domainxml.DiskRewrite) { r.Type, r.Source = "network", "iscsi://h:3260/" }), "iscsi"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := domainxml.Rewrite(text, domainxml.RewriteOptions{Disks: tc.disks})
			if err == nil || !strings.Contains(err.Error(), tc.says) || got != "" {
				t.Errorf("got %q, error %v, which should say %s", got, err, tc.says)
			}
		})
	}
}

func TestRewriteGraphics(t *testing.T) {
	for name, tc := range map[string]struct{ listen, in, want string }{
		"IPv4 to IPv6":         {"fd77::2", `<graphics type='vnc' listen='10.0.0.1'><listen type='address' address='10.0.0.1'/></graphics>`, `<graphics type='vnc' listen='fd77::2'><listen type='address' address='fd77::2'/></graphics>`},
		"IPv6 to IPv4":         {"10.0.0.2", `<graphics type="spice" listen="fd77::1"><listen type="address" address="fd77::1"/></graphics>`, `<graphics type="spice" listen="10.0.0.2"><listen type="address" address="10.0.0.2"/></graphics>`},
		"brackets":             {"[fd77::2]", `<graphics type='vnc' listen='::ffff:1.2.3.4'/>`, `<graphics type='vnc' listen='fd77::2'/>`},
		"loopback stays":       {"10.0.0.2", `<graphics type='vnc' listen='127.0.0.1'><listen type='address' address='::1'/></graphics>`, ""},
		"wildcard stays":       {"10.0.0.2", `<graphics type='vnc' listen='0.0.0.0'><listen type='address' address='::'/></graphics>`, ""},
		"localhost stays":      {"10.0.0.2", `<graphics type='vnc' listen='localhost'/>`, ""},
		"none given":           {"10.0.0.2", `<graphics type='vnc'><listen type='address'/></graphics>`, ""},
		"socket and network":   {"10.0.0.2", `<graphics type='vnc'><listen type='socket' socket='/s'/><listen type='network' network='n' address='10.0.0.1'/></graphics>`, ""},
		"another kind":         {"10.0.0.2", `<graphics type='rdp' listen='10.0.0.1'/>`, ""},
		"address as text only": {"10.0.0.2", `<sound model='10.0.0.1'/>`, ""},
		"not asked for":        {"", `<graphics type='vnc' listen='10.0.0.1'/>`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := tc.want
			if want == "" {
				want = tc.in
			}
			got, err := domainxml.Rewrite(disk(tc.in), domainxml.RewriteOptions{GraphicsListen: tc.listen})
			if err != nil || got != disk(want) {
				t.Errorf("got  %s\nwant %s\nerror %v", got, disk(want), err)
			}
		})
	}
	if _, err := domainxml.Rewrite(disk(""), domainxml.RewriteOptions{GraphicsListen: "host.example"}); err == nil {
		t.Error("a host name was accepted as a listen address")
	}
}

func TestRewriteCharacterDevices(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"generated channel, old place": {
			`<channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/target/domain-3-vm/org.qemu.guest_agent.0'/><target type='virtio'/></channel>`,
			`<channel type='unix'><source mode='bind'/><target type='virtio'/></channel>`,
		},
		"generated channel, new place": {
			`<channel type='unix'><source mode="bind" path="/run/libvirt/qemu/channel/3-vm/org.qemu.guest_agent.0"/></channel>`,
			`<channel type='unix'><source mode="bind"/></channel>`,
		},
		"channel of the administrator": {`<channel type='unix'><source mode='bind' path='/srv/agent.sock'/></channel>`, ""},
		"serial to a file, with a log": {`<serial type='file'><source path='/var/log/vm.log' append='on'/><log file='/var/log/x.log'/></serial>`, ""},
		"path given by the caller": {
			`<serial type='unix'><source mode='bind' path='/srv/a.sock'/></serial><console type='unix'><source mode='bind' path='/srv/a.sock'/></console>`,
			`<serial type='unix'><source mode='bind' path='/srv/b.sock'/></serial><console type='unix'><source mode='bind' path='/srv/b.sock'/></console>`,
		},
		"longer path than the caller's": {`<serial type='unix'><source mode='bind' path='/srv/a.sock2'/></serial>`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := tc.want
			if want == "" {
				want = tc.in
			}
			got, err := domainxml.Rewrite(disk(tc.in), domainxml.RewriteOptions{CharPaths: map[string]string{"/srv/a.sock": "/srv/b.sock"}})
			if err != nil || got != disk(want) {
				t.Errorf("got  %s\nwant %s\nerror %v", got, disk(want), err)
			}
		})
	}
}

func TestRewriteKeepsOtherNamespaces(t *testing.T) {
	const in = `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>old</name><metadata><my:x xmlns:my="urn:my"><my:disk><source file="/a"/></my:disk></my:x></metadata>` +
		`<devices><disk type='file'><driver type='raw'/><source file='/a'/><target dev='vda'/></disk></devices>` +
		`<qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='file=/a'/></qemu:commandline></domain>`
	want := strings.Replace(in, "<source file='/a'/>", "<source file='/b'/><backingStore/>", 1)
	want = strings.Replace(want, "<name>old</name>", "<name>new &amp; old</name>", 1)
	got, err := domainxml.Rewrite(in, domainxml.RewriteOptions{Name: "new & old", Disks: []domainxml.DiskRewrite{
		{Target: "vda", OldSource: "/a", Type: "file", Source: "/b", Format: "raw"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRewriteNothingIsTheIdentity(t *testing.T) {
	text := read(t, "testdata/migratable-11.3.xml")
	got, err := domainxml.Rewrite(text, domainxml.RewriteOptions{})
	if err != nil || got != text {
		t.Errorf("changed, error %v:\n%s", err, cmp.Diff(text, got))
	}
}

func TestSetDisk(t *testing.T) {
	in := disk(`<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/x'/><target dev='vda'/></disk><disk type='file'><source file='/k'/><target dev='vdb'/></disk>`)
	got, err := domainxml.SetDisk(in, "vda", "/n.qcow2", "qcow2", domainxml.BackingLayer{Path: "/base", Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	d := mustParse(t, got)
	want := domainxml.Disk{
		Target: "vda", Device: "disk", Type: "file", Format: "qcow2", Source: "/n.qcow2",
		Chain: []domainxml.BackingLayer{{Path: "/base", Format: "raw", Type: "file"}}, BackingTerminated: true,
	}
	if diff := cmp.Diff(want, d.Disks[0]); diff != "" {
		t.Errorf("vda (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(mustParse(t, in).Disks[1], d.Disks[1]); diff != "" {
		t.Errorf("vdb changed:\n%s", diff)
	}
	if _, err := domainxml.SetDisk(in, "vdc", "/n", "raw"); err == nil {
		t.Error("a target that is not there was accepted")
	}
}
