package volume

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestMountIdentity(t *testing.T) {
	tests := map[string]struct{ line, dir, want string }{
		"nfs":                       {"36 28 0:52 / /mnt rw,relatime shared:1 - nfs4 NAS.example:/export rw,addr=10.0.0.1", "/mnt", "nfs:nas.example:/export"},
		"nfs, deeper":               {"36 28 0:52 / /mnt rw - nfs NAS:/export rw", "/mnt/sub/images", "nfs:nas:/export/sub/images"},
		"nfs, bound":                {"36 28 0:52 /sub /mnt rw - nfs4 nas:/export/ rw", "/mnt/images", "nfs:nas:/export/sub/images"},
		"nfs by IPv6":               {"36 28 0:52 / /mnt rw - nfs4 [2001:db8::1]:/export rw", "/mnt", "nfs:[2001:db8::1]:/export"},
		"nfs with a space":          {`36 28 0:52 / /mnt/my\040pool rw - nfs4 nas:/my\040export rw`, "/mnt/my pool/x", "nfs:nas:/my export/x"},
		"nfs of this very host":     {"36 28 0:52 / /mnt rw - nfs4 localhost:/export rw", "/mnt", ""},
		"nfs by loopback":           {"36 28 0:52 / /mnt rw - nfs4 127.0.1.1:/export rw", "/mnt", ""},
		"nfs by IPv6 loopback":      {"36 28 0:52 / /mnt rw - nfs4 [::1]:/export rw", "/mnt", ""},
		"nfs by link-local address": {"36 28 0:52 / /mnt rw - nfs4 [fe80::1]:/export rw", "/mnt", ""},
		"cifs":                      {"36 28 0:52 / /mnt rw - cifs //Srv/Share rw", "/mnt/a", "cifs:srv:/share/a"},
		"gluster":                   {"36 28 0:52 / /mnt rw - fuse.glusterfs gl1:/vol rw", "/mnt/a", "gluster:gl1:/vol/a"},
		"gluster without slash":     {"36 28 0:52 / /mnt rw - fuse.glusterfs gl1:vol rw", "/mnt", "gluster:gl1:/vol"},
		"ceph":                      {"36 28 0:52 / /mnt rw - ceph 10.0.0.2:6789,10.0.0.1:6789:/vms rw", "/mnt/a", "ceph:10.0.0.1:6789,10.0.0.2:6789:/vms/a"},
		"ceph, newer":               {"36 28 0:52 / /mnt rw - ceph admin@3ef1c4a0-aaaa-bbbb-cccc-000000000001.cephfs=/vms rw", "/mnt", "ceph:3ef1c4a0-aaaa-bbbb-cccc-000000000001.cephfs:/vms"},
		"ceph of any cluster":       {"36 28 0:52 / /mnt rw - ceph admin@.cephfs=/vms rw", "/mnt", ""},
		"local":                     {"36 28 8:1 / / rw - ext4 /dev/sda1 rw", "/var/lib", ""},
		"tmpfs":                     {"36 28 0:5 / /run rw - tmpfs tmpfs rw", "/run", ""},
		"outside of the mount":      {"36 28 0:52 / /mnt rw - nfs4 nas:/export rw", "/mntx", ""},
		"nfs without a server":      {"36 28 0:52 / /mnt rw - nfs4 :/export rw", "/mnt", ""},
		"no export at all":          {"36 28 0:52 / /mnt rw - nfs4 nas rw", "/mnt", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// The mount is found among others by its number alone.
			table := "3 28 0:52 / /mnt rw - nfs4 wrong:/export rw\n" + tt.line + "\n136 28 0:52 / /mnt rw - nfs4 wrong:/export rw\nbroken line\n"
			m, ok := findMount(table, 36)
			if !ok {
				t.Fatal("mount not found")
			}
			if got := m.identity(tt.dir); got != tt.want {
				t.Errorf("identity %q; want %q", got, tt.want)
			}
		})
	}
	if _, ok := findMount("", 36); ok {
		t.Error("a mount was found in an empty table")
	}
}

func FuzzMountTable(f *testing.F) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(table), "/")
	f.Add(`36 28 0:52 / /m\04 rw - ceph a@b.c=/vms rw`, "/m")
	f.Fuzz(func(_ *testing.T, table, dir string) {
		first, _, _ := strings.Cut(table, " ")
		id, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			return
		}
		if m, ok := findMount(table, id); ok {
			m.identity(dir)
		}
	})
}

func TestFolderIdentity(t *testing.T) {
	// The test's folder is on a local file system, by a link or not.
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, "/proc", "/"} {
		if got, err := FolderIdentity(path); err != nil || got != "" {
			t.Errorf("%q: identity %q, %v", path, got, err)
		}
	}
	if _, err := FolderIdentity(dir + "/gone"); err == nil {
		t.Error("a folder that does not exist has an identity")
	}
}

func TestFreeBytes(t *testing.T) {
	dir := t.TempDir()
	before, err := FreeBytes(dir)
	if err != nil || before <= 0 {
		t.Fatalf("%d bytes free, %v", before, err)
	}
	if _, err := FreeBytes(dir + "/gone"); err == nil {
		t.Error("a folder that does not exist has free bytes")
	}
}
