package volume_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/volume"
)

// overlay forges an image at path that names backing, in format if there is one.
func overlay(t testing.TB, path, backing, format string) string {
	t.Helper()
	b := forge()
	if format != "" {
		b.extension(112, 0xE2792ACA, format)
	}
	b.backing(backing)
	return writeFile(t, path, b)
}

func paths(c volume.Chain) []string {
	var out []string
	for _, l := range c {
		out = append(out, l.Path)
	}
	return out
}

func TestWalkRefuses(t *testing.T) {
	tests := map[string]struct {
		// build makes the chain in dir and returns its active layer.
		build func(t *testing.T, dir string) string
		want  error
		names string // what the error must name, below dir
		read  int    // layers read before
	}{
		"format not recorded": {func(t *testing.T, dir string) string {
			writeFile(t, dir+"/base", forge())
			return overlay(t, dir+"/top", "base", "")
		}, volume.ErrBackingFormatUnknown, "base", 1},
		"format of another kind": {func(t *testing.T, dir string) string {
			writeFile(t, dir+"/base", forge())
			return overlay(t, dir+"/top", "base", "vmdk")
		}, volume.ErrFormatUnsupported, "base", 1},
		"protocol as format": {func(t *testing.T, dir string) string {
			writeFile(t, dir+"/base", forge())
			return overlay(t, dir+"/top", "base", "file")
		}, volume.ErrFormatUnsupported, "base", 1},
		"outside": {func(t *testing.T, dir string) string {
			return overlay(t, dir+"/top", "/etc/passwd", "raw")
		}, volume.ErrOutsideRoots, "/etc/passwd", 1},
		"outside by dots": {func(t *testing.T, dir string) string {
			writeFile(t, dir+"/../secret", nil)
			return overlay(t, dir+"/top", "../secret", "raw")
		}, volume.ErrOutsideRoots, "../secret", 1},
		"outside by a folder of the same beginning": {func(t *testing.T, dir string) string {
			if err := os.Mkdir(dir+"2", 0o700); err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir+"2/base", nil)
			return overlay(t, dir+"/top", dir+"2/base", "raw")
		}, volume.ErrOutsideRoots, "2/base", 1},
		"outside by a link": {func(t *testing.T, dir string) string {
			if err := os.Symlink("/etc/passwd", dir+"/base"); err != nil {
				t.Fatal(err)
			}
			return overlay(t, dir+"/top", "base", "raw")
		}, volume.ErrOutsideRoots, "base", 1},
		"outside by a linked folder": {func(t *testing.T, dir string) string {
			if err := os.Symlink("/etc", dir+"/etc"); err != nil {
				t.Fatal(err)
			}
			return overlay(t, dir+"/top", "etc/passwd", "raw")
		}, volume.ErrOutsideRoots, "etc/passwd", 1},
		"json": {func(t *testing.T, dir string) string {
			return overlay(t, dir+"/top", `json:{"driver":"file","filename":"/etc/passwd"}`, "raw")
		}, volume.ErrBackingProtocol, "json:", 1},
		"network": {func(t *testing.T, dir string) string {
			return overlay(t, dir+"/top", "nbd://127.0.0.1/x", "raw")
		}, volume.ErrBackingProtocol, "nbd:", 1},
		"file by protocol": {func(t *testing.T, dir string) string {
			return overlay(t, dir+"/top", "file:/etc/passwd", "raw")
		}, volume.ErrBackingProtocol, "file:", 1},
		"missing": {func(t *testing.T, dir string) string {
			return overlay(t, dir+"/top", "gone", "raw")
		}, fs.ErrNotExist, "gone", 1},
		"missing active layer": {func(_ *testing.T, dir string) string {
			return dir + "/top"
		}, fs.ErrNotExist, "top", 0},
		"itself": {func(t *testing.T, dir string) string {
			return overlay(t, dir+"/top", "top", "qcow2")
		}, volume.ErrLoop, "top", 1},
		"two layers in a circle": {func(t *testing.T, dir string) string {
			overlay(t, dir+"/base", "top", "qcow2")
			return overlay(t, dir+"/top", "base", "qcow2")
		}, volume.ErrLoop, "top", 2},
		"itself by a hard link": {func(t *testing.T, dir string) string {
			overlay(t, dir+"/top", "other", "qcow2")
			if err := os.Link(dir+"/top", dir+"/other"); err != nil {
				t.Fatal(err)
			}
			return dir + "/top"
		}, volume.ErrLoop, "other", 1},
		"itself as raw": {func(t *testing.T, dir string) string {
			return overlay(t, dir+"/top", "top", "raw")
		}, volume.ErrLoop, "top", 1},
		"too deep": {func(t *testing.T, dir string) string {
			writeFile(t, dir+"/0", forge())
			for i := range volume.MaxDepth {
				overlay(t, fmt.Sprintf("%s/%d", dir, i+1), fmt.Sprint(i), "qcow2")
			}
			return fmt.Sprintf("%s/%d", dir, volume.MaxDepth)
		}, volume.ErrTooDeep, "0", volume.MaxDepth},
		"pipe": {func(t *testing.T, dir string) string {
			if err := unix.Mkfifo(dir+"/pipe", 0o600); err != nil {
				t.Fatal(err)
			}
			return overlay(t, dir+"/top", "pipe", "raw")
		}, volume.ErrFileType, "pipe", 1},
		"folder": {func(t *testing.T, dir string) string {
			if err := os.Mkdir(dir+"/base", 0o700); err != nil {
				t.Fatal(err)
			}
			return overlay(t, dir+"/top", "base", "raw")
		}, volume.ErrFileType, "base", 1},
		"base of another format than recorded": {func(t *testing.T, dir string) string {
			writeFile(t, dir+"/base", make([]byte, 4096))
			return overlay(t, dir+"/top", "base", "qcow2")
		}, volume.ErrNotQcow2, "base", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(tempDir(t), "images")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			c, err := volume.Walk(tt.build(t, dir), volume.FormatQcow2, []string{dir})
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v; want %v", err, tt.want)
			}
			var layer *volume.LayerError
			if !errors.As(err, &layer) || !strings.Contains(layer.Path, tt.names) {
				t.Errorf("error %v does not name %q", err, tt.names)
			}
			if len(c) != tt.read {
				t.Errorf("read %q before the refusal; want %d layers", paths(c), tt.read)
			}
		})
	}
}

func TestWalkDeviceIsNotOpened(t *testing.T) {
	dir := tempDir(t)
	top := overlay(t, dir+"/top", "/dev/null", "raw")
	if _, err := volume.Walk(top, volume.FormatQcow2, []string{"/"}); !errors.Is(err, volume.ErrFileType) {
		t.Errorf("a character device: %v; want ErrFileType", err)
	}
}

func TestWalkNeedsAFormat(t *testing.T) {
	path := writeFile(t, tempDir(t)+"/top", forge())
	if _, err := volume.Walk(path, "", []string{"/"}); !errors.Is(err, volume.ErrFormatUnknown) {
		t.Errorf("no format: %v; want ErrFormatUnknown", err)
	}
	if _, err := volume.Walk(path, "vmdk", []string{"/"}); !errors.Is(err, volume.ErrFormatUnsupported) {
		t.Errorf("vmdk: %v; want ErrFormatUnsupported", err)
	}
}

// A raw disk into which a guest wrote a qcow2 header stays a raw disk.
func TestWalkTakesTheToldFormat(t *testing.T) {
	dir := tempDir(t)
	top := overlay(t, dir+"/top", "/etc/passwd", "raw")
	c := walk(t, top, volume.FormatRaw)
	if len(c) != 1 || c[0].BackingFile != "" || c[0].VirtualSize != 256*kib {
		t.Errorf("chain %+v", c)
	}
}

// The names of layers stay as they were given, links are resolved beside them.
func TestWalkThroughLinks(t *testing.T) {
	dir := tempDir(t)
	for _, d := range []string{"store", "pool"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir+"/store/base", forge())
	overlay(t, dir+"/store/top", "base", "qcow2")
	for _, name := range []string{"top", "base"} {
		if err := os.Symlink("../store/"+name, dir+"/pool/"+name); err != nil {
			t.Fatal(err)
		}
	}
	c := walk(t, dir+"/pool/top", volume.FormatQcow2, dir+"/store")
	if diff := cmp.Diff([]string{dir + "/pool/top", dir + "/pool/base"}, paths(c)); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	if c[1].Real != dir+"/store/base" {
		t.Errorf("resolved path %q", c[1].Real)
	}
}

func TestWalkRootsMayBeLinks(t *testing.T) {
	dir := tempDir(t)
	if err := os.Mkdir(dir+"/store", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("store", dir+"/pool"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/store/base", forge())
	top := overlay(t, dir+"/top", dir+"/pool/base", "qcow2")
	walk(t, top, volume.FormatQcow2, dir+"/pool", dir+"/gone")
	if _, err := volume.Walk(top, volume.FormatQcow2, nil); !errors.Is(err, volume.ErrOutsideRoots) {
		t.Errorf("without roots: %v; want ErrOutsideRoots", err)
	}
}

func TestWalkBlockDevice(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	writeFile(t, dir+"/disk", forge())
	device := loop(t, dir+"/disk")
	c := walk(t, device, volume.FormatQcow2)
	if len(c) != 1 || c[0].FileSize != 256*kib || c[0].VirtualSize != mib || c[0].Ino != 0 {
		t.Errorf("chain on a block device: %+v", c)
	}
}

// loop attaches a file to a loop device until the test ends.
func loop(t testing.TB, path string) string {
	t.Helper()
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", path))
	t.Cleanup(func() { run(t, "losetup", "-d", device) })
	return device
}

func TestInspect(t *testing.T) {
	dir := tempDir(t)
	path := writeFile(t, dir+"/image", forge())
	if err := os.Symlink("image", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{dir + "/link", dir, "/dev/null"} {
		if _, err := volume.Inspect(bad, volume.FormatRaw); !errors.Is(err, volume.ErrFileType) {
			t.Errorf("%q: %v; want ErrFileType", bad, err)
		}
	}
	l, err := volume.Inspect(path, volume.FormatQcow2)
	if err != nil {
		t.Fatal(err)
	}
	if l.VirtualSize != mib || l.FileSize != 256*kib || l.Allocated < 4*kib {
		t.Errorf("layer %+v", l)
	}
}

func TestDetectForPerson(t *testing.T) {
	dir := tempDir(t)
	good := writeFile(t, dir+"/good", forge())
	broken := forge()
	broken.u32(4, 9)
	for path, want := range map[string]volume.Format{good: volume.FormatQcow2, writeFile(t, dir+"/broken", broken): volume.FormatQcow2} {
		if got, err := volume.DetectForPerson(path); got != want || err != nil {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
	_, err := volume.DetectForPerson(writeFile(t, dir+"/raw", make([]byte, 4096)))
	if !errors.Is(err, volume.ErrFormatUnknown) || !strings.Contains(err.Error(), "--format raw") {
		t.Errorf("raw: %v", err)
	}
	if _, err := volume.DetectForPerson(dir + "/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestIssues(t *testing.T) {
	tests := map[string]struct {
		spoil func(b image)
		want  []string
	}{
		"none":       {func(image) {}, nil},
		"dirty":      {func(b image) { b.u64(72, 1) }, []string{volume.IssueDirty}},
		"corrupt":    {func(b image) { b.u64(72, 2) }, []string{volume.IssueCorrupt}},
		"data file":  {func(b image) { b.u64(72, 4) }, []string{volume.IssueDataFile}},
		"encrypted":  {func(b image) { b.u32(32, 2) }, []string{volume.IssueEncrypted}},
		"unknown":    {func(b image) { b.u64(72, 1<<9) }, []string{volume.IssueUnknown}},
		"snapshots":  {func(b image) { b.u32(60, 1); b.u64(64, 2*64*kib) }, []string{volume.IssueSnapshots}},
		"everything": {func(b image) { b.u64(72, 7); b.u32(32, 1) }, []string{volume.IssueCorrupt, volume.IssueDirty, volume.IssueDataFile, volume.IssueEncrypted}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			b := forge()
			tt.spoil(b)
			writeFile(t, dir+"/base", b)
			top := overlay(t, dir+"/top", "base", "qcow2")
			var codes []string
			for _, issue := range walk(t, top, volume.FormatQcow2, dir).Issues() {
				codes = append(codes, issue.Code)
				if issue.Layer != dir+"/base" || issue.Detail == "" {
					t.Errorf("issue %+v does not name its layer", issue)
				}
			}
			if !slices.Equal(codes, tt.want) {
				t.Errorf("issues %q; want %q", codes, tt.want)
			}
		})
	}
}

func TestIssuesIncompleteChain(t *testing.T) {
	dir := tempDir(t)
	writeFile(t, dir+"/base", forge())
	c := walk(t, overlay(t, dir+"/top", "base", "qcow2"), volume.FormatQcow2, dir)
	if got := c[:1].Issues(); len(got) != 1 || got[0].Code != volume.IssueIncomplete {
		t.Errorf("a chain without its base: %v", got)
	}
}

// FuzzWalk puts any bytes on top of a folder that has what a forged header may
// want to reach; whatever it names, nothing outside the folder is read.
func FuzzWalk(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := tempDir(t)
		writeFile(t, dir+"/base", forge())
		top := writeFile(t, dir+"/top", b)
		c, err := volume.Walk(top, volume.FormatQcow2, []string{dir})
		if err != nil {
			var layer *volume.LayerError
			if !errors.As(err, &layer) {
				t.Fatalf("error that names no layer: %v", err)
			}
		}
		for _, l := range c {
			if filepath.Dir(l.Real) != dir {
				t.Fatalf("layer %q was read", l.Real)
			}
		}
		c.Issues()
	})
}
