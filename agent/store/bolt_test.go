package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
)

func TestBoltKeepsAcrossReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := store.Open(path, time.Second)
	must(t, err)
	must(t, s.Put("a", "k", []byte("v")))
	_, err = s.NextID("a")
	must(t, err)
	must(t, s.Close())

	s, err = store.Open(path, time.Second)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	if v, err := s.Get("a", "k"); err != nil || string(v) != "v" {
		t.Errorf("after reopening: %q, %v", v, err)
	}
	if id, err := s.NextID("a"); err != nil || id != 2 {
		t.Errorf("next id after reopening: %d, %v", id, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the store: %v, %v", info.Mode(), err)
	}
}

func TestBoltIsLockedByItsFirstUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	first, err := store.Open(path, time.Second)
	must(t, err)
	defer func() { must(t, first.Close()) }()
	for _, timeout := range []time.Duration{0, 100 * time.Millisecond} {
		_, err := store.Open(path, timeout)
		if !errors.Is(err, store.ErrLocked) {
			t.Fatalf("second open with timeout %s: %v", timeout, err)
		}
		if !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name the path: %v", err)
		}
	}
}

func TestBoltRefusesWhatIsNoStore(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"short": "hello",
		"zeros": strings.Repeat("\x00", 1<<16),
		"text":  strings.Repeat("not a store\n", 1<<13),
	} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := store.Open(path, time.Second)
		if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := store.Open(filepath.Join(dir, "absent", "store.db"), time.Second); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent folder: %v", err)
	}
}
