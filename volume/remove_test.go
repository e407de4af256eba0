package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

func nothing() {}

// swap puts another file into the place of the one at path.
func swap(t *testing.T, path string) func() {
	return func() {
		if err := os.Rename(writeFile(t, path+".new", []byte("theirs")), path); err != nil {
			t.Error(err)
		}
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// names gives what lies in a folder.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestRemoveKeepsAFileThatTakesThePlaceMeanwhile(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	if err := o.RemoveWhile(swap(t, o.Path), nothing); !errors.Is(err, volume.ErrNotOwned) {
		t.Errorf("%v; want ErrNotOwned", err)
	}
	if got := content(t, o.Path); got != "theirs" {
		t.Errorf("the other file holds %q", got)
	}
	if got := names(t, filepath.Dir(o.Path)); len(got) != 1 {
		t.Errorf("left in the folder: %q", got)
	}
}

// Whoever opens the file after the first look is seen, and finds it under its
// name again.
func TestRemoveKeepsAFileThatIsOpenedMeanwhile(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	var f *os.File
	err := o.RemoveWhile(func() {
		var err error
		if f, err = os.Open(o.Path); err != nil {
			t.Error(err)
		}
	}, nothing)
	defer f.Close()
	if !errors.Is(err, volume.ErrInUse) {
		t.Errorf("%v; want ErrInUse", err)
	}
	if err := o.Verify(); err != nil {
		t.Errorf("the file under its name: %v", err)
	}
}

func TestRemoveReplacesNothingWhenItPutsAFileBack(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	err := o.RemoveWhile(swap(t, o.Path), func() { writeFile(t, o.Path, []byte("a third")) })
	if !errors.Is(err, volume.ErrNotOwned) || !errors.Is(err, os.ErrExist) {
		t.Errorf("%v; want ErrNotOwned and that the name is taken", err)
	}
	var all []string
	for _, name := range names(t, filepath.Dir(o.Path)) {
		all = append(all, content(t, filepath.Join(filepath.Dir(o.Path), name)))
	}
	if len(all) != 2 || content(t, o.Path) != "a third" {
		t.Errorf("what the folder's files hold: %q; want those of both others", all)
	}
}

// A removal that dies half-way leaves the file under another name, by which
// the journalled identity finds it.
func TestRemoveTakesUpOneThatBrokeOff(t *testing.T) {
	for name, since := range map[string]func(t *testing.T, path string){
		"nothing under its name":      func(*testing.T, string) {},
		"another file under its name": func(t *testing.T, path string) { writeFile(t, path, []byte("theirs")) },
	} {
		t.Run(name, func(t *testing.T) {
			o := reserve(t, tempDir(t)+"/disk")
			func() {
				defer func() { _ = recover() }()
				_ = o.RemoveWhile(nothing, func() { panic("killed") })
			}()
			if exists(o.Path) || !o.Removing() {
				t.Fatal("the removal did not break off half-way")
			}
			since(t, o.Path)
			theirs := exists(o.Path)
			if err := o.Remove(); err != nil {
				t.Error(err)
			}
			if o.Removing() || exists(o.Path) != theirs {
				t.Errorf("left in the folder: %q", names(t, filepath.Dir(o.Path)))
			}
		})
	}
}

// What lies under the name of a removal is no reason to overwrite it.
func TestRemoveReplacesNothingThatIsInItsWay(t *testing.T) {
	o := reserve(t, tempDir(t)+"/disk")
	var aside string
	func() {
		defer func() { _ = recover() }()
		_ = o.RemoveWhile(nothing, func() {
			aside = filepath.Join(filepath.Dir(o.Path), names(t, filepath.Dir(o.Path))[0])
			panic("killed")
		})
	}()
	if err := os.Rename(aside, o.Path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, aside, []byte("theirs"))
	if err := o.Remove(); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v; want that the name is taken", err)
	}
	if content(t, aside) != "theirs" || o.Verify() != nil {
		t.Error("not both files are there")
	}
}
