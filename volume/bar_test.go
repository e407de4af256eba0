package volume_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

// QEMU does not take an image for writing while it is barred, whatever its format;
// it may read it, and take it once the bar is lifted. One that has changed
// identity is not barred.
func TestBar(t *testing.T) {
	folder := tempDir(t)
	images := map[string]string{"qcow2": qcow2(t, filepath.Join(folder, "a.qcow2"), "1M"),
		"raw": writeFile(t, filepath.Join(folder, "a.raw"), make([]byte, 1<<20))}
	takes := func(format, path string) bool {
		return exec.CommandContext(t.Context(), "qemu-io", "-f", format, "-c", "write 0 4k", path).Run() == nil
	}
	for format, path := range images {
		owned, err := volume.Identify(path)
		if err != nil {
			t.Fatal(err)
		}
		gone := volume.Owned{Path: filepath.Join(folder, "gone"), Dev: owned.Dev, Ino: owned.Ino}
		bar, err := volume.NewBar([]volume.Owned{gone, owned})
		if err != nil {
			t.Fatal(err)
		}
		if takes(format, path) {
			t.Errorf("%s: it was taken for writing", format)
		}
		if out, err := exec.CommandContext(t.Context(), "qemu-io", "-r", "-U", "-f", format, "-c", "read 0 4k", path).CombinedOutput(); err != nil {
			t.Errorf("%s: reading it: %v: %s", format, err, out)
		}
		bar.Lift()
		bar.Lift()
		if !takes(format, path) {
			t.Errorf("%s: it was not taken though nothing bars it", format)
		}
		if err := os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, nil)
		if _, err := volume.NewBar([]volume.Owned{owned}); err == nil {
			t.Errorf("%s: another file was barred in its place", format)
		}
	}
}
