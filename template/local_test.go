package template_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

// chattr sets flags of a folder, which takes root and a real file system.
func chattr(t testing.TB, flag, dir string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "chattr", flag, dir).CombinedOutput(); err != nil {
		t.Fatalf("chattr %s %s: %v: %s", flag, dir, err, out)
	}
}

func frozen(t testing.TB, dir string) (thaw func()) {
	t.Helper()
	chattr(t, "+i", dir)
	thaw = func() { _ = exec.Command("chattr", "-i", dir).Run() } // again at the end, when it is thawed already
	t.Cleanup(thaw)
	return thaw
}

// A folder that cannot be written is found before anybody is asked for a byte,
// is nobody else's fault, and is got over without being asked.
func TestImmutableFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, content := newHost(t), raw(1, 1<<20)
		f := newFlaky(content)
		f.well.Store(true)
		h.change = func(o *template.Options) { o.Fetcher = links{"https://images.example/rocky9": f} }
		h.reopen()
		must(t, errOf(h.Register(t.Context(), specOf("rocky9", content))))
		thaw := frozen(t, h.pool)
		wantFault(t, h.Fetch(t.Context(), "rocky9", nil), fault.ReadOnly, fault.Local, "immutable", h.pool)
		if _, c := h.copyOf("rocky9"); c.State != template.StateFailed || c.Code != fault.ReadOnly || c.RetryAt == nil || c.Partial != "" {
			t.Errorf("copy %+v", c)
		}
		running(t, h)
		pass(time.Minute)
		if _, c := h.copyOf("rocky9"); c.Code != fault.ReadOnly || c.Attempts != 2 || f.asked.Load() != 0 {
			t.Errorf("asked %d times for what could not be kept: %+v", f.asked.Load(), c)
		}
		thaw()
		pass(2 * time.Minute)
		if _, c := h.copyOf("rocky9"); c.State != template.StateReady {
			t.Errorf("copy %+v", c)
		}
	})
}

// Frozen while the partial file is written: the bytes arrive, but cannot be
// named. The copy fails with the cause, and nothing of the image is left.
func TestFolderFrozenUnderway(t *testing.T) {
	h, content := newHost(t), raw(1, 1<<20)
	begun, proceed := make(chan struct{}), make(chan struct{})
	first := true
	site := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if first {
			first = false
			close(begun)
			<-proceed
		}
		send(w, content)
	})
	must(t, errOf(h.Register(t.Context(), spec("rocky9", site.URL, content))))
	ended := make(chan error, 1)
	go func() { ended <- h.Fetch(t.Context(), "rocky9", nil) }()
	<-begun
	thaw := frozen(t, h.pool)
	close(proceed)
	wantFault(t, <-ended, fault.ReadOnly, fault.Local, "immutable", "rename")
	_, c := h.copyOf("rocky9")
	if c.State != template.StateFailed || c.RetryAt == nil || c.Partial == "" {
		t.Errorf("copy %+v", c)
	}
	// The folder itself cannot go, but takes no room, and is not forgotten.
	if left, err := os.ReadDir(c.Partial); err != nil || len(left) != 0 {
		t.Errorf("in the partial folder: %v, %v", left, err)
	}
	thaw()
	must(t, h.Fetch(t.Context(), "rocky9", nil))
	if left := h.inPool(); len(left) != 1 || left[0] != published(content, "raw") {
		t.Errorf("pool: %v", left)
	}
}

func TestAppendOnlyFolder(t *testing.T) {
	h, content := newHost(t), raw(1, 4096)
	site := serveBytes(t, content)
	must(t, errOf(h.Register(t.Context(), spec("rocky9", site.URL, content))))
	chattr(t, "+a", h.pool)
	t.Cleanup(func() { _ = exec.Command("chattr", "-a", h.pool).Run() })
	wantFault(t, h.Fetch(t.Context(), "rocky9", nil), fault.ReadOnly, fault.Local, "append-only")
}

// A copy of ours with other bytes is replaced where it lies.
func TestWrongBytesOfOurs(t *testing.T) {
	h, content := newHost(t), raw(1, 1<<20)
	site := serveBytes(t, content)
	_, before := h.ready(spec("a", site.URL, content))
	must(t, os.Chmod(before.Path, 0o644))
	must(t, os.Truncate(before.Path, 1<<19))
	h.reopen()
	if _, c := h.copyOf("a"); c.State != template.StateFailed {
		t.Fatalf("copy %+v", c)
	}
	must(t, h.Fetch(t.Context(), "a", nil))
	_, c := h.copyOf("a")
	info, err := os.Stat(c.Path)
	must(t, err)
	if c.State != template.StateReady || c.Path != before.Path || c.Inode == before.Inode || info.Size() != 1<<20 || c.Stamp != template.StampOf(info) {
		t.Errorf("copy %+v, %d bytes", c, info.Size())
	}
	if left := h.inPool(); len(left) != 1 {
		t.Errorf("pool: %v", left)
	}
}

// The pool's folder shows nothing that another could open while an image is
// written, and its folder is for the agent alone.
func TestPartialIsPrivate(t *testing.T) {
	h, content := newHost(t), raw(1, 1<<20)
	begun, proceed := make(chan struct{}), make(chan struct{})
	site := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-proceed
		send(w, content)
	})
	must(t, errOf(h.Register(t.Context(), spec("rocky9", site.URL, content))))
	ended := make(chan error, 1)
	go func() { ended <- h.Fetch(t.Context(), "rocky9", nil) }()
	<-begun
	left := h.inPool()
	if len(left) != 1 || !strings.HasPrefix(left[0], ".wherry-template-") {
		t.Fatalf("pool: %v", left)
	}
	for path, want := range map[string]os.FileMode{left[0]: os.ModeDir | 0o700, left[0] + "/image": 0o600} {
		if info, err := os.Lstat(filepath.Join(h.pool, path)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	close(proceed)
	must(t, <-ended)
}
