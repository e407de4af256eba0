package volume_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

func reserve(t testing.TB, path string) volume.Owned {
	t.Helper()
	o, err := volume.Reserve(path)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestReserve(t *testing.T) {
	path := tempDir(t) + "/disk"
	o := reserve(t, path)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if o.Path != path || o.Dev != st.Dev || o.Ino != st.Ino || info.Size() != 0 || info.Mode() != 0o600 {
		t.Errorf("reserved %+v, found %v inode %d on %d", o, info.Mode(), st.Ino, st.Dev)
	}
}

func TestReserveRefusesWhatIsThere(t *testing.T) {
	dir := tempDir(t)
	writeFile(t, dir+"/file", []byte("theirs"))
	for name, target := range map[string]string{"link": "file", "dangling": "nowhere"} {
		if err := os.Symlink(target, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file", "link", "dangling"} {
		if _, err := volume.Reserve(dir + "/" + name); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v; want fs.ErrExist", name, err)
		}
	}
	if exists(dir + "/nowhere") {
		t.Error("a file was made through a dangling link")
	}
	if _, err := volume.Reserve("relative"); !errors.Is(err, volume.ErrSpec) {
		t.Errorf("relative path: %v; want ErrSpec", err)
	}
	if _, err := volume.Reserve(dir + "/gone/disk"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v; want fs.ErrNotExist", err)
	}
}

// What is journalled must still identify the file when it is read back.
func TestOwnedSurvivesTheJournal(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var back volume.Owned
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back != o {
		t.Errorf("journalled %+v, read %+v", o, back)
	}
	if err := back.Remove(); err != nil || exists(o.Path) {
		t.Errorf("remove by the journal: %v", err)
	}
}

func TestRemove(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	for range 2 { // the second time it is absent already
		if err := o.Remove(); err != nil {
			t.Fatal(err)
		}
		if exists(o.Path) {
			t.Fatal("the file is still there")
		}
	}
	o.Path = tempDir(t) + "/gone/disk"
	if err := o.Remove(); err != nil {
		t.Errorf("missing folder: %v", err)
	}
}

func TestRemoveRefusesAnotherFile(t *testing.T) {
	replace := map[string]func(t *testing.T, path string){
		"another file moved over it": func(t *testing.T, path string) {
			if err := os.Rename(writeFile(t, path+".new", []byte("theirs")), path); err != nil {
				t.Fatal(err)
			}
		},
		"another file made in its place": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			writeFile(t, path, []byte("theirs")) // often gets the very same inode number
		},
		"a link to the reserved file": func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path)); err != nil {
				t.Fatal(err)
			}
		},
		"a hard link to another file": func(t *testing.T, path string) {
			writeFile(t, path+".other", []byte("theirs"))
			if err := errors.Join(os.Remove(path), os.Link(path+".other", path)); err != nil {
				t.Fatal(err)
			}
		},
		"a folder": func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, change := range replace {
		t.Run(name, func(t *testing.T) {
			o := reserve(t, tempDir(t)+"/disk")
			change(t, o.Path)
			if err := o.Remove(); !errors.Is(err, volume.ErrNotOwned) {
				t.Errorf("remove: %v; want ErrNotOwned", err)
			}
			if !exists(o.Path) {
				t.Error("the other file was removed")
			}
			if err := o.Verify(); !errors.Is(err, volume.ErrNotOwned) {
				t.Errorf("verify: %v; want ErrNotOwned", err)
			}
		})
	}
}

// A second name for the reserved file is no reason to keep the first, and is
// not ours to remove.
func TestRemoveLeavesOtherNames(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	if err := os.Link(o.Path, o.Path+".link"); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(); err != nil {
		t.Fatal(err)
	}
	if exists(o.Path) || !exists(o.Path+".link") {
		t.Error("not exactly the reserved name is gone")
	}
}

func TestRemoveRefusesAFileInUse(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	pipe, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	f, err := os.Open(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	holder := exec.CommandContext(t.Context(), "cat")
	holder.Stdin, holder.ExtraFiles = pipe, []*os.File{f}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	err = o.Remove()
	if !errors.Is(err, volume.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("cat (%d)", holder.Process.Pid)) {
		t.Errorf("remove: %v; want ErrInUse naming the holder", err)
	}
	if !exists(o.Path) {
		t.Error("a file in use was removed")
	}
	hold.Close()
	if err := holder.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(); err != nil {
		t.Errorf("after the holder is gone: %v", err)
	}
}

// A loop device holds its file inside the kernel, where /proc shows nobody.
func TestRemoveRefusesALoopDevicesFile(t *testing.T) {
	needRoot(t)
	o := reserve(t, tempDir(t)+"/disk")
	if err := os.Truncate(o.Path, mib); err != nil {
		t.Fatal(err)
	}
	loop(t, o.Path)
	if err := o.Remove(); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("remove: %v; want ErrInUse", err)
	}
}

func TestFormat(t *testing.T) {
	dir := tempDir(t)
	base := qcow2(t, dir+"/base: 1", "1M")
	raw := writeFile(t, dir+"/raw", make([]byte, mib))
	tests := map[string]volume.Spec{
		"raw":                  {Format: "raw", VirtualSize: 10 * mib},
		"raw of odd size":      {Format: "raw", VirtualSize: 10*mib + 512},
		"qcow2":                {Format: "qcow2", VirtualSize: 10 * mib},
		"qcow2 of odd size":    {Format: "qcow2", VirtualSize: 10*mib + 512},
		"one sector":           {Format: "qcow2", VirtualSize: 512},
		"version 2":            {Format: "qcow2", VirtualSize: mib, Compat: "0.10"},
		"extended":             {Format: "qcow2", VirtualSize: mib, ExtendedL2: true, ClusterSize: 128 * kib},
		"smallest clusters":    {Format: "qcow2", VirtualSize: mib, ClusterSize: 512},
		"largest clusters":     {Format: "qcow2", VirtualSize: mib, ClusterSize: 2 * mib},
		"backed by qcow2":      {Format: "qcow2", VirtualSize: 3 * mib, Backing: base, BackingFormat: "qcow2"},
		"backed by raw":        {Format: "qcow2", VirtualSize: mib, Backing: raw, BackingFormat: "raw"},
		"version 2 and backed": {Format: "qcow2", VirtualSize: mib, Compat: "0.10", Backing: raw, BackingFormat: "raw"},
	}
	for name, spec := range tests {
		t.Run(name, func(t *testing.T) {
			spec.Path = tempDir(t) + "/disk, of: odd name"
			o := formatted(t, spec)
			if err := o.Verify(); err != nil {
				t.Error(err)
			}
			l := oracle(t, spec.Path, spec.Format)[0]
			if l.VirtualSize != spec.VirtualSize || l.Backing != spec.Backing || l.BackingFormat != spec.BackingFormat || l.ExtendedL2 != spec.ExtendedL2 {
				t.Errorf("qemu-img sees %+v", l)
			}
			if info, err := os.Stat(spec.Path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			// Once more, as after an interrupted first try.
			if err := o.Format(t.Context(), spec, volume.Exec{}); err != nil {
				t.Errorf("format again: %v", err)
			}
		})
	}
}

func TestFormatRefuses(t *testing.T) {
	dir := tempDir(t)
	o := reserve(t, dir+"/disk")
	good := volume.Spec{Path: o.Path, Format: "qcow2", VirtualSize: mib}
	tests := map[string]struct {
		change func(s *volume.Spec)
		want   error
	}{
		"another path":             {func(s *volume.Spec) { s.Path = dir + "/other" }, volume.ErrSpec},
		"relative path":            {func(s *volume.Spec) { s.Path = "disk" }, volume.ErrSpec},
		"no size":                  {func(s *volume.Spec) { s.VirtualSize = 0 }, volume.ErrSpec},
		"negative size":            {func(s *volume.Spec) { s.VirtualSize = -512 }, volume.ErrSpec},
		"half a sector":            {func(s *volume.Spec) { s.VirtualSize = mib + 1 }, volume.ErrSpec},
		"no format":                {func(s *volume.Spec) { s.Format = "" }, volume.ErrSpec},
		"vmdk":                     {func(s *volume.Spec) { s.Format = "vmdk" }, volume.ErrSpec},
		"odd clusters":             {func(s *volume.Spec) { s.ClusterSize = 65537 }, volume.ErrSpec},
		"small clusters":           {func(s *volume.Spec) { s.ClusterSize = 256 }, volume.ErrSpec},
		"large clusters":           {func(s *volume.Spec) { s.ClusterSize = 4 * mib }, volume.ErrSpec},
		"negative clusters":        {func(s *volume.Spec) { s.ClusterSize = -1 << 63 }, volume.ErrSpec},
		"option smuggled":          {func(s *volume.Spec) { s.Compat = "1.1,data_file=/etc/shadow" }, volume.ErrSpec},
		"extended in version 2":    {func(s *volume.Spec) { s.Compat, s.ExtendedL2 = "0.10", true }, volume.ErrSpec},
		"extended in 8 KiB":        {func(s *volume.Spec) { s.ClusterSize, s.ExtendedL2 = 8*kib, true }, volume.ErrSpec},
		"backing without format":   {func(s *volume.Spec) { s.Backing = "/b" }, volume.ErrSpec},
		"format without backing":   {func(s *volume.Spec) { s.BackingFormat = "raw" }, volume.ErrSpec},
		"backing by protocol":      {func(s *volume.Spec) { s.Backing, s.BackingFormat = "nbd://x", "raw" }, volume.ErrSpec},
		"backing itself":           {func(s *volume.Spec) { s.Backing, s.BackingFormat = s.Path, "qcow2" }, volume.ErrSpec},
		"backing of odd format":    {func(s *volume.Spec) { s.Backing, s.BackingFormat = "/b", "file" }, volume.ErrSpec},
		"raw with backing":         {func(s *volume.Spec) { s.Format, s.Backing, s.BackingFormat = "raw", "/b", "raw" }, volume.ErrSpec},
		"backing missing":          {func(s *volume.Spec) { s.Backing, s.BackingFormat = dir+"/gone", "raw" }, fs.ErrNotExist},
		"backing of wrong format":  {func(s *volume.Spec) { s.Backing, s.BackingFormat = writeFile(t, dir+"/b", nil), "qcow2" }, volume.ErrNotQcow2},
		"size beyond this cluster": {func(s *volume.Spec) { s.VirtualSize, s.ClusterSize = 1<<50, 512 }, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spec := good
			tt.change(&spec)
			err := o.Format(t.Context(), spec, volume.Exec{})
			var command *volume.CommandError
			if tt.want == nil && !errors.As(err, &command) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("format: %v; want %v", err, tt.want)
			}
		})
	}
}

// A file that took the reserved one's place gets no byte.
func TestFormatRefusesAnotherFile(t *testing.T) {
	for _, format := range []volume.Format{"raw", "qcow2"} {
		o := reserve(t, tempDir(t)+"/disk")
		if err := os.Rename(writeFile(t, o.Path+".new", []byte("theirs")), o.Path); err != nil {
			t.Fatal(err)
		}
		err := o.Format(t.Context(), volume.Spec{Path: o.Path, Format: format, VirtualSize: mib}, volume.Exec{})
		if !errors.Is(err, volume.ErrNotOwned) {
			t.Errorf("%s: %v; want ErrNotOwned", format, err)
		}
		if b, err := os.ReadFile(o.Path); string(b) != "theirs" {
			t.Errorf("%s: the other file holds %d bytes, %v", format, len(b), err)
		}
	}
}

// qemu-img goes by the path: a file that is put there just before it runs is
// noticed.
func TestFormatNoticesAReplacedFile(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	runner := before{volume.Exec{}, func() {
		if err := os.Rename(writeFile(t, o.Path+".new", nil), o.Path); err != nil {
			t.Error(err)
		}
	}}
	err := o.Format(t.Context(), volume.Spec{Path: o.Path, Format: "qcow2", VirtualSize: mib}, runner)
	if !errors.Is(err, volume.ErrNotOwned) {
		t.Errorf("format: %v; want ErrNotOwned", err)
	}
}

// before does something before each command.
type before struct {
	volume.Exec
	do func()
}

func (r before) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	r.do()
	return r.Exec.Run(ctx, name, args...)
}

// The backing layer is looked at, what it refers to is not opened.
func TestFormatOpensNothingBehindTheBackingLayer(t *testing.T) {
	dir := tempDir(t)
	backing := overlay(t, dir+"/backing", "/nowhere/at/all", "qcow2")
	formatted(t, volume.Spec{Path: dir + "/disk", Format: "qcow2", VirtualSize: mib, Backing: backing, BackingFormat: "qcow2"})
}

func TestSpecLike(t *testing.T) {
	dir := tempDir(t)
	for _, opts := range []string{"compat=0.10,cluster_size=4k", "extended_l2=on,cluster_size=256k", "cluster_size=2M"} {
		src, err := volume.Inspect(qcow2(t, dir+"/"+opts, "5M", "-o", opts), volume.FormatQcow2)
		if err != nil {
			t.Fatal(err)
		}
		path := dir + "/copy of " + opts
		formatted(t, volume.SpecLike(path, src))
		got, err := volume.Inspect(path, volume.FormatQcow2)
		if err != nil {
			t.Fatal(err)
		}
		if got.ClusterSize != src.ClusterSize || got.Compat != src.Compat || got.ExtendedL2 != src.ExtendedL2 || got.VirtualSize != src.VirtualSize {
			t.Errorf("%s: made %+v", opts, got)
		}
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
}
