package hypervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const images = "/var/lib/libvirt/images/"

// The replies were captured from a guest with a chain of three layers, a raw
// disk, an empty CD-ROM and a SATA disk.
func TestParseBlocksOfBothVersions(t *testing.T) {
	qcow2 := func(path, backing, node string, size int64) Layer {
		l := Layer{Path: images + path, Format: "qcow2", VirtualSize: size, NodeName: node, ClusterSize: 65536, Compat: "1.1"}
		if backing != "" {
			l.BackingFile, l.BackingFormat = images+backing, "qcow2"
		}
		return l
	}
	for version, rawNode := range map[string]string{"7.2": "libvirt-3-format", "10.0": "libvirt-3-storage"} {
		t.Run(version, func(t *testing.T) {
			got, err := parseBlocks(testdata(t, "query-block-"+version+".json"), testdata(t, "query-named-block-nodes-"+version+".json"))
			if err != nil {
				t.Fatal(err)
			}
			mid, base := qcow2("mid.qcow2", "base.qcow2", "libvirt-5-format", 256<<20), qcow2("base.qcow2", "", "libvirt-6-format", 256<<20)
			mid.ReadOnly, base.ReadOnly = true, true
			want := []BlockNode{
				{Device: "virtio-disk0", Layers: []Layer{qcow2("top.qcow2", "mid.qcow2", "libvirt-4-format", 256<<20), mid, base}},
				{Device: "virtio-disk1", Layers: []Layer{{Path: images + "data.raw", Format: "raw", VirtualSize: 64 << 20, NodeName: rawNode}}},
				{Device: "sata0-0-2"},
				{Device: "sata0-0-3", Layers: []Layer{qcow2("top.qcow2.2", "", "libvirt-1-format", 64<<20)}},
			}
			for _, n := range got {
				for i := range n.Layers {
					if n.Layers[i].Allocated <= 0 {
						t.Errorf("%s: %d bytes allocated", n.Layers[i].Path, n.Layers[i].Allocated)
					}
					n.Layers[i].Allocated = 0 // the guest was writing
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseBlocksISCSI(t *testing.T) {
	got, err := parseBlocks(testdata(t, "query-block-iscsi-10.0.json"), []byte("[]"))
	if err != nil {
		t.Fatal(err)
	}
	l := got[1].Layers[0]
	if l.Path != "iscsi://10.77.0.2:3260/iqn.2026-01.test:b/1" || l.Format != "raw" || l.Allocated != -1 || l.VirtualSize != 64<<20 {
		t.Errorf("%+v", l)
	}
}

func TestParseBlocksQcow2Facts(t *testing.T) {
	block := `[{"device":"d0","qdev":"","inserted":{"drv":"copy-on-read","node-name":"cor","image":{"format":"copy-on-read","filename":"/a","backing-image":
		{"format":"qcow2","filename":"/a","virtual-size":10,"encrypted":true,"dirty-flag":true,"snapshots":[{},{}],"cluster-size":4096,
		 "format-specific":{"type":"qcow2","data":{"compat":"0.10","corrupt":true,"extended-l2":true,"data-file":"/d"}}}}}}]`
	got, err := parseBlocks([]byte(block), []byte(`[{"drv":"qcow2","node-name":"n1","ro":true,"image":{"filename":"/a"}}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := []BlockNode{{Device: "d0", Layers: []Layer{{
		Path: "/a", Format: "qcow2", VirtualSize: 10, Allocated: -1, NodeName: "n1", ReadOnly: true, Encrypted: true, DirtyFlag: true,
		Corrupt: true, DataFile: "/d", InternalSnapshots: 2, ClusterSize: 4096, Compat: "0.10", ExtendedL2: true,
	}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseBlocksSharedBase(t *testing.T) {
	// Two disks stand on one base: its node cannot be told, so none is named.
	one := `{"qdev":"%","inserted":{"drv":"qcow2","node-name":"a","image":{"format":"qcow2","filename":"/a","backing-image":{"format":"raw","filename":"/base"}}}}`
	named := `[{"drv":"raw","node-name":"b1","ro":true,"image":{"filename":"/base"}},{"drv":"raw","node-name":"b2","ro":true,"image":{"filename":"/base"}}]`
	got, err := parseBlocks([]byte("["+one+"]"), []byte(named))
	if err != nil {
		t.Fatal(err)
	}
	if l := got[0].Layers[1]; l.NodeName != "" || !l.ReadOnly || l.Path != "/base" {
		t.Errorf("%+v", l)
	}
}

func TestParseBlocksRefuses(t *testing.T) {
	deep := `{"format":"qcow2","filename":"/x"}`
	for range maxLayers + 1 {
		deep = `{"format":"qcow2","filename":"/x","backing-image":` + deep + `}`
	}
	for name, tc := range map[string][2]string{
		"no JSON":       {"x", "[]"},
		"no list":       {"{}", "[]"},
		"nodes no JSON": {"[]", "x"},
		"endless chain": {`[{"inserted":{"image":` + deep + `}}]`, "[]"},
	} {
		if got, err := parseBlocks([]byte(tc[0]), []byte(tc[1])); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
}

func TestImagePath(t *testing.T) {
	for in, want := range map[string]string{
		"/a/b":                             "/a/b",
		"iscsi://h/iqn.x:y/1":              "iscsi://h:3260/iqn.x:y/1",
		"iscsi://[fd77::2]:3261/iqn.x:y/1": "iscsi://[fd77::2]:3261/iqn.x:y/1",
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"/x y"}}`:                                      "/x y",
		`json:{"driver":"raw","file":{"driver":"host_device","filename":"/dev/sda"}}`:                             "/dev/sda",
		`json:{"driver":"iscsi","portal":"h","target":"iqn.x:y","lun":"4"}`:                                       "iscsi://h:3260/iqn.x:y/4",
		`json:{"driver":"raw","file":{"driver":"iscsi","portal":"fd77::2","target":"iqn.x:y","transport":"tcp"}}`: "iscsi://[fd77::2]:3260/iqn.x:y/0",
		`json:{"driver":"rbd","pool":"p","image":"i","server":[{"host":"m"}]}`:                                    "rbd:p/i",
		`json:{"driver":"nbd","server":{"type":"inet"}}`:                                                          `json:{"driver":"nbd","server":{"type":"inet"}}`,
		`json:{broken`: `json:{broken`,
	} {
		if got := imagePath(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestAliasOf(t *testing.T) {
	for in, want := range map[string]string{
		"/machine/peripheral/virtio-disk0/virtio-backend": "virtio-disk0", "/machine/peripheral/ua-root": "ua-root", "sata0-0-3": "sata0-0-3", "": "",
	} {
		if got := aliasOf(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseBlocks(f *testing.F) {
	for _, v := range []string{"7.2", "10.0"} {
		f.Add(testdata(f, "query-block-"+v+".json"), testdata(f, "query-named-block-nodes-"+v+".json"))
	}
	f.Add(testdata(f, "query-block-iscsi-10.0.json"), []byte("[]"))
	f.Fuzz(func(t *testing.T, block, named []byte) {
		nodes, err := parseBlocks(block, named)
		if err != nil {
			return
		}
		for _, n := range nodes {
			if len(n.Layers) > maxLayers {
				t.Fatalf("%d layers", len(n.Layers))
			}
		}
	})
}

func TestParseBlockJobs(t *testing.T) {
	jobs, err := parseBlockJobs(testdata(t, "query-block-jobs-7.2.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := BlockJob{ID: "drive-sata0-0-3", Type: "mirror", Done: 16 << 20, Total: 64 << 20, Speed: 10 << 20, Status: "running"}
	if len(jobs) != 3 {
		t.Fatalf("%d jobs", len(jobs))
	}
	if diff := cmp.Diff(want, jobs[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := parseBlockJobs([]byte(`{"a":1}`)); err == nil {
		t.Error("an object was accepted as a list of jobs")
	}
}

func TestJobTarget(t *testing.T) {
	targets := map[string]string{"virtio-disk0": "vda", "sata0-0-3": "sdd", "": "no"}
	for id, want := range map[string]string{
		"drive-virtio-disk0": "vda", "drive-sata0-0-3": "sdd", "drive-unknown": "", "copy-vdb-libvirt-3-format": "vdb",
		"backup-vda-libvirt-1-format": "vda", "commit-sda-libvirt-2-format": "sda", "pull-vdc-libvirt-9-format": "vdc", "something": "",
	} {
		if got := jobTarget(id, targets); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}

func TestParseYank(t *testing.T) {
	raw := []byte(`[{"type":"chardev","id":"charmonitor"},{"type":"migration"},{"type":"block-node","node-name":"migration-vda-storage"},
		{"type":"block-node","node-name":"libvirt-1-storage"},{"type":"block-node","node-name":"migration-sdd-storage"}]`)
	got, err := parseYank(raw, isStorageYank)
	want := []yankInstance{{Type: "block-node", NodeName: "migration-vda-storage"}, {Type: "block-node", NodeName: "migration-sdd-storage"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	// What is sent back must be what QEMU named, without members it does not know.
	sent, err := json.Marshal(got[0])
	if err != nil || string(sent) != `{"type":"block-node","node-name":"migration-vda-storage"}` {
		t.Errorf("%s, error %v", sent, err)
	}
	captured, err := parseYank(testdata(t, "query-yank-7.2.json"), isStorageYank)
	if err != nil || len(captured) != 3 {
		t.Errorf("captured reply: %v, error %v", captured, err)
	}
	if _, err := parseYank([]byte("x"), isStorageYank); err == nil {
		t.Error("no JSON was accepted")
	}
}
