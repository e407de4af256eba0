package durable_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/durable"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func names(t testing.TB, folder string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	must(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteAndRemove(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "blue", "vm.yaml")
	for _, content := range []string{"one", "two, longer", ""} {
		must(t, durable.WriteFile(path, []byte(content)))
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%q, error %v; want %q", got, err, content)
		}
	}
	for p, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, error %v; want mode %o", p, info, err, mode)
		}
	}
	if got := names(t, filepath.Dir(path)); !slices.Equal(got, []string{"vm.yaml"}) {
		t.Errorf("files %q; want it alone", got)
	}
	for range 2 { // the second finds none
		must(t, durable.Remove(path))
	}
	if got := names(t, filepath.Dir(path)); len(got) != 0 {
		t.Errorf("files %q", got)
	}
}

// What cannot be written leaves what was.
func TestWriteFails(t *testing.T) {
	root := t.TempDir()
	blocked := filepath.Join(root, "vm")
	must(t, os.MkdirAll(filepath.Join(blocked, "in it"), 0o700))
	if err := durable.WriteFile(blocked, []byte("x")); err == nil {
		t.Error("a folder was written over")
	}
	if err := durable.WriteFile(filepath.Join(root, "file", "vm"), nil); err != nil {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(root, "a"), []byte("old"), 0o600))
	if err := durable.WriteFile(filepath.Join(root, "a", "vm"), nil); err == nil {
		t.Error("a file was taken for a folder")
	}
	if got := names(t, root); !slices.Equal(got, []string{"a", "file", "vm"}) {
		t.Errorf("files %q", got)
	}
}

// Tidy takes what this file's writes have left, and nothing else.
func TestTidy(t *testing.T) {
	folder := t.TempDir()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, age := range map[string]time.Duration{
		"vm.yaml": time.Hour, ".vm.yaml123": time.Hour, ".vm.yaml9": time.Second, ".vm.yaml": time.Hour,
		".vm.yaml12x": time.Hour, ".vm2.yaml123": time.Hour, "vm.yaml5": time.Hour,
	} {
		path := filepath.Join(folder, name)
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
	}
	must(t, os.Mkdir(filepath.Join(folder, ".vm.yaml77"), 0o700))
	must(t, os.Chtimes(filepath.Join(folder, ".vm.yaml77"), now.Add(-time.Hour), now.Add(-time.Hour)))
	must(t, durable.Tidy(filepath.Join(folder, "vm.yaml"), now.Add(-time.Minute)))
	want := []string{".vm.yaml", ".vm.yaml12x", ".vm.yaml77", ".vm.yaml9", ".vm2.yaml123", "vm.yaml", "vm.yaml5"}
	if got := names(t, folder); !slices.Equal(got, want) {
		t.Errorf("files %q; want %q", got, want)
	}
	must(t, durable.Tidy(filepath.Join(folder, "none", "vm.yaml"), now))
}

// TidyBelow takes what writes of any such file have left, one folder deep.
func TestTidyBelow(t *testing.T) {
	root := t.TempDir()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, age := range map[string]time.Duration{
		"a/.vm.yaml123": time.Hour, "b/.vm2.yaml4": time.Hour, "a/vm.yaml": time.Hour, "a/.vm.yaml9": time.Second,
		"a/.vm.json123": time.Hour, "a/.yaml7": time.Hour, ".vm.yaml5": time.Hour, "a/b/.vm.yaml6": time.Hour,
	} {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
	}
	must(t, durable.TidyBelow(root, ".yaml", now.Add(-time.Minute)))
	got := slices.Concat(names(t, root), names(t, filepath.Join(root, "a")), names(t, filepath.Join(root, "b")))
	want := []string{".vm.yaml5", "a", "b", ".vm.json123", ".vm.yaml9", ".yaml7", "b", "vm.yaml"}
	if !slices.Equal(got, want) {
		t.Errorf("files %q; want %q", got, want)
	}
	must(t, durable.TidyBelow(filepath.Join(root, "none"), ".yaml", now))
}
