package template_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/intake"
	"github.com/wherry-kvm/wherry/template/source"
)

// dying ends the process at a write, before or after it took effect.
type dying struct {
	folder
	left  int
	after bool
}

const died = 42

func (d *dying) Put(bucket, key string, value []byte) error {
	d.left--
	if d.left == 0 && !d.after {
		os.Exit(died)
	}
	err := d.folder.Put(bucket, key, value)
	if d.left == 0 {
		os.Exit(died)
	}
	return err
}

func crashSpec(dir string, content []byte) template.Spec {
	s := spec("rocky9", "file://"+filepath.Join(dir, "files", "image.raw"), content)
	return s
}

// openIn opens a registry whose store, pool and files lie in dir.
func openIn(t *testing.T, dir string, wrap func(folder) template.Store, received func(string, int64)) *template.Registry {
	t.Helper()
	r, err := template.Open(template.Options{
		Received: received,
		Store:    wrap(folder(filepath.Join(dir, "store"))), DefaultPool: "default",
		Fetcher: source.NewDownload(source.Options{Files: []string{filepath.Join(dir, "files")}}),
		Intake:  intake.New(intake.Options{}),
		Pools: func(context.Context) ([]template.Pool, error) {
			return []template.Pool{{Name: "default", Path: filepath.Join(dir, "pool")}}, nil
		},
	})
	must(t, err)
	return r
}

// TestCrashChild is the process that dies; it runs only as a child of
// TestCrashAtEveryWrite.
func TestCrashChild(t *testing.T) {
	dir, at, _ := strings.Cut(os.Getenv("WHERRY_TEST_CRASH"), "|")
	if dir == "" {
		return
	}
	n, err := strconv.Atoi(at)
	must(t, err)
	r := openIn(t, dir, func(s folder) template.Store { return &dying{s, n/2 + 1, n%2 == 1} }, nil)
	content := raw(1, 1<<20)
	_, err = r.Register(t.Context(), crashSpec(dir, content))
	must(t, err)
	must(t, r.Fetch(t.Context(), "rocky9", nil))
	os.Exit(0)
}

// Before and after each write to the store, the process dies for good. The
// next one leaves nothing half, deletes nothing foreign, and finishes.
func TestCrashAtEveryWrite(t *testing.T) {
	content := raw(1, 1<<20)
	for n := 0; ; n++ {
		dir := t.TempDir()
		for _, sub := range []string{"pool", "files", "store"} {
			must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
		}
		must(t, os.WriteFile(filepath.Join(dir, "files", "image.raw"), content, 0o600))
		foreign := filepath.Join(dir, "pool", ".wherry-template-SOMEBODY.partial")
		must(t, os.WriteFile(foreign, nil, 0o600))

		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("WHERRY_TEST_CRASH=%s|%d", dir, n))
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState.ExitCode() != died {
			t.Fatalf("crash %d: %v: %s", n, err, out)
		}
		lookAfterCrash(t, n, dir, content)
		if err == nil {
			if n < 10 {
				t.Errorf("only %d crashes", n)
			}
			return
		}
	}
}

func lookAfterCrash(t *testing.T, n int, dir string, content []byte) {
	t.Helper()
	r := openIn(t, dir, func(s folder) template.Store { return s }, nil)
	pool := func() (names []string) {
		entries, err := os.ReadDir(filepath.Join(dir, "pool"))
		must(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	foreign, file := ".wherry-template-SOMEBODY.partial", published(content, "raw")
	before, known := r.Lookup("rocky9")
	for _, name := range pool() {
		journalled := known && before.Copies[0].Partial == filepath.Join(dir, "pool", name)
		if name != foreign && name != file && !journalled {
			t.Errorf("crash %d: %s is left after the restart", n, name)
		}
	}
	if _, ready := before.Ready(""); known && !ready && before.Copies[0].State != template.StatePending {
		t.Errorf("crash %d: state %s after the restart", n, before.Copies[0].State)
	}
	_, err := r.Register(t.Context(), crashSpec(dir, content))
	must(t, err)
	must(t, r.Fetch(t.Context(), "rocky9", nil))
	got, _ := r.Lookup("rocky9")
	c, ready := got.Ready("default")
	if !ready || !c.Owned || c.Partial != "" || got.Digest != sha(content) {
		t.Errorf("crash %d: finished as %+v", n, got)
	}
	if diff := cmp.Diff([]string{foreign, file}, pool()); diff != "" {
		t.Errorf("crash %d: pool: %s", n, diff)
	}
	// It is ours, although another process wrote it: removing removes it.
	_, err = r.Remove(t.Context(), "rocky9")
	must(t, err)
	if diff := cmp.Diff([]string{foreign}, pool()); diff != "" {
		t.Errorf("crash %d: pool after removing: %s", n, diff)
	}
}

// TestCrashUnderwayChild is the process that dies once so many bytes came, and
// a state was saved; it runs only as a child of TestCrashUnderway.
func TestCrashUnderwayChild(t *testing.T) {
	dir := os.Getenv("WHERRY_TEST_CRASH_UNDERWAY")
	if dir == "" {
		return
	}
	come := int64(0)
	r := openIn(t, dir, func(s folder) template.Store { return s }, func(_ string, n int64) {
		if come += n; come < 66<<20 {
			return
		}
		for {
			if found, err := filepath.Glob(filepath.Join(dir, "pool", "*", "state")); err != nil || len(found) > 0 {
				os.Exit(died)
			}
		}
	})
	must(t, r.Fetch(t.Context(), "rocky9", nil))
}

// Killed in the middle, the agent goes on from the last state, and what it
// publishes in the end is the image: also where zeros are.
func TestCrashUnderway(t *testing.T) {
	content := raw(1, 80<<20)
	dir := t.TempDir()
	for _, sub := range []string{"pool", "files", "store"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "files", "image.raw"), content, 0o600))
	plain := func(s folder) template.Store { return s }
	_, err := openIn(t, dir, plain, nil).Register(t.Context(), crashSpec(dir, content))
	must(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashUnderwayChild$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "WHERRY_TEST_CRASH_UNDERWAY="+dir)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != died {
		t.Fatalf("%v: %s", err, out)
	}
	var come int64
	r := openIn(t, dir, plain, func(_ string, n int64) { come += n })
	must(t, r.Fetch(t.Context(), "rocky9", nil))
	if come != 16<<20 {
		t.Errorf("%d bytes came after the crash, want the %d after the last state", come, 16<<20)
	}
	got, err := os.ReadFile(filepath.Join(dir, "pool", published(content, "raw")))
	must(t, err)
	if sha(got) != sha(content) {
		t.Error("what was published is not the image")
	}
}
