package volume_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

func TestResemble(t *testing.T) {
	folder := t.TempDir()
	old := filepath.Join(folder, "old")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 64055, 64054
	}
	if err := os.Chown(old, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(old, 0o660); err != nil { // past the umask
		t.Fatal(err)
	}
	own, err := volume.Reserve(filepath.Join(folder, "new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{old, folder, filepath.Join(folder, "absent")} {
		if err := own.Resemble(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		info, err := os.Stat(own.Path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if int(st.Uid) != uid || int(st.Gid) != gid || info.Mode() != 0o660 {
			t.Errorf("after %s: %d:%d %s; want %d:%d -rw-rw----", path, st.Uid, st.Gid, info.Mode(), uid, gid)
		}
	}
	if err := os.Remove(own.Path); err != nil {
		t.Fatal(err)
	}
	if err := own.Resemble(old); err == nil {
		t.Error("no error for a file that is gone")
	}
}
