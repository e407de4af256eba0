package hypervisor

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePoolAndIdentity(t *testing.T) {
	for name, tc := range map[string]struct {
		xml      string
		want     Pool
		identity string
	}{
		"folder": {
			`<pool type='dir'><name>default</name><uuid>u1</uuid><capacity unit='bytes'>100</capacity><allocation unit='bytes'>40</allocation><available unit='bytes'>60</available><source/><target><path>/srv/images</path></target></pool>`,
			Pool{Name: "default", UUID: "u1", Type: "dir", Path: "/srv/images", Capacity: 100, Available: 60}, "",
		},
		"NFS": {
			`<pool type='netfs'><name>n</name><source><host name='nas'/><dir path='/export/vm/'/><format type='nfs'/></source><target><path>/mnt/n</path></target></pool>`,
			Pool{Name: "n", Type: "netfs", Path: "/mnt/n", SourceHosts: []string{"nas"}, SourceDir: "/export/vm/", SourceFormat: "nfs"}, "nfs:nas:/export/vm",
		},
		"CIFS": {
			`<pool type='netfs'><name>n</name><source><host name='nas'/><dir path='share'/><format type='cifs'/></source></pool>`,
			Pool{Name: "n", Type: "netfs", SourceHosts: []string{"nas"}, SourceDir: "share", SourceFormat: "cifs"}, "cifs:nas:share",
		},
		"RBD, monitors in any order, with and without port": {
			`<pool type='rbd'><name>r</name><source><host name='m2'/><host name='m1' port='6789'/><host name='fd77::3' port='3300'/><name>vms</name></source></pool>`,
			Pool{Name: "r", Type: "rbd", SourceName: "vms", SourceHosts: []string{"m2", "m1:6789", "[fd77::3]:3300"}}, "rbd:[fd77::3]:3300,m1:6789,m2:6789/vms",
		},
		"iSCSI": {
			`<pool type='iscsi'><name>i</name><source><host name='san'/><device path='iqn.2026-01.x:y'/></source><target><path>/dev/disk/by-path</path></target></pool>`,
			Pool{Name: "i", Type: "iscsi", Path: "/dev/disk/by-path", SourceHosts: []string{"san"}, SourceDevices: []string{"iqn.2026-01.x:y"}}, "iscsi:san:3260/iqn.2026-01.x:y",
		},
		"Gluster": {
			`<pool type='gluster'><name>g</name><source><host name='g1'/><dir path='/'/><name>vol</name></source></pool>`,
			Pool{Name: "g", Type: "gluster", SourceName: "vol", SourceDir: "/", SourceHosts: []string{"g1"}}, "gluster:g1/vol/",
		},
		"volume group of this host": {
			`<pool type='logical'><name>vg</name><source><device path='/dev/sda3'/><name>vg</name></source></pool>`,
			Pool{Name: "vg", Type: "logical", SourceName: "vg", SourceDevices: []string{"/dev/sda3"}}, "",
		},
		"NFS of this host": {
			`<pool type='netfs'><name>n</name><source><host name='localhost'/><dir path='/export'/></source></pool>`,
			Pool{Name: "n", Type: "netfs", SourceHosts: []string{"localhost"}, SourceDir: "/export"}, "",
		},
		"iSCSI of this host": {
			`<pool type='iscsi'><name>i</name><source><host name='127.0.0.1' port='3260'/><device path='iqn.2026-01.x:y'/></source></pool>`,
			Pool{Name: "i", Type: "iscsi", SourceHosts: []string{"127.0.0.1:3260"}, SourceDevices: []string{"iqn.2026-01.x:y"}}, "",
		},
		"Ceph with a monitor of this host": {
			`<pool type='rbd'><name>r</name><source><host name='::1' port='6789'/><name>vms</name></source></pool>`,
			Pool{Name: "r", Type: "rbd", SourceName: "vms", SourceHosts: []string{"[::1]:6789"}}, "",
		},
		"NFS without a folder": {`<pool type='netfs'><name>n</name><source><host name='nas'/></source></pool>`, Pool{Name: "n", Type: "netfs", SourceHosts: []string{"nas"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePool([]byte(tc.xml))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if id := got.Identity(); id != tc.identity {
				t.Errorf("identity %q, want %q", id, tc.identity)
			}
		})
	}
	if p, err := parsePool([]byte("<pool><name>")); err == nil {
		t.Errorf("accepted as %+v", p)
	}
}
