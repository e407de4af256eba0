package template_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

// A file that was away, as it is while its file system is not mounted, is ours
// again when it is back. A copy of it that somebody laid there is not.
func TestFileThatComesBack(t *testing.T) {
	for name, tt := range map[string]struct {
		back func(t *testing.T, from, to string)
		ours bool
	}{
		"the file":   {func(t *testing.T, from, to string) { must(t, os.Rename(from, to)) }, true},
		"like bytes": {copyFile, false},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				h, content := newHost(t), raw(1, 4096)
				site := serveBytes(t, content)
				_, c := h.ready(spec("a", site.URL, content))
				away := filepath.Join(t.TempDir(), "away")
				must(t, os.Rename(c.Path, away))
				if restart {
					h.reopen()
				}
				h.Check(t.Context())
				if _, c := h.copyOf("a"); c.State != template.StateMissing || c.Owned {
					t.Fatalf("copy %+v; want it missing", c)
				}
				tt.back(t, away, c.Path)
				must(t, h.Fetch(t.Context(), "a", nil))
				if _, c := h.copyOf("a"); c.State != template.StateReady || c.Owned != tt.ours {
					t.Errorf("copy %+v; want it ready, and ours: %t", c, tt.ours)
				}
				if n := site.requests.Load(); n != 1 {
					t.Errorf("%d requests; want the file to be found", n)
				}
				must(t, errOf(h.Remove(t.Context(), "a")))
				if there(c.Path) == tt.ours {
					t.Errorf("the file is there: %t; want it gone if it is ours", there(c.Path))
				}
			})
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o644))
}

// While the file system of a pool is not mounted, its copies are not brought
// into the folder below, which the system's own file system would fill with,
// and which nobody would see again.
func TestPoolThatIsNotMounted(t *testing.T) {
	h, content := newHost(t), raw(1, 4096)
	mounted := true
	h.change = func(o *template.Options) { o.Mounted = func(string) bool { return mounted } }
	h.reopen()
	site := serveBytes(t, content)
	_, c := h.ready(spec("a", site.URL, content))
	away := filepath.Join(t.TempDir(), "away")
	must(t, os.Rename(c.Path, away))
	mounted = false
	h.Check(t.Context())
	other := raw(2, 4096)
	must(t, errOf(h.Register(t.Context(), spec("b", serveBytes(t, other).URL, other))))
	for _, id := range []string{"a", "b"} {
		err := h.Fetch(t.Context(), id, nil)
		wantFault(t, err, fault.Pool, fault.Local, h.pool, "mount")
		if f, _ := errors.AsType[*fault.Fault](err); f.Permanent {
			t.Errorf("%v is permanent; want it tried again", err)
		}
	}
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("pool: %v; want nothing below the mount", left)
	}
	must(t, os.Rename(away, c.Path))
	mounted = true
	must(t, h.Fetch(t.Context(), "a", nil))
	must(t, h.Fetch(t.Context(), "b", nil))
	if _, c := h.copyOf("a"); !c.Owned || site.requests.Load() != 1 {
		t.Errorf("copy %+v after %d requests; want the file found", c, site.requests.Load())
	}
}

// A sparse image that was there once is brought again into the room that it
// took then, and not only into as much as its length.
func TestRoomForWhatWasThere(t *testing.T) {
	h, content := newHost(t), raw(1, 4<<20) // half of it is a hole
	space := template.Space{Free: 1 << 40, Capacity: 1 << 40}
	h.change = func(o *template.Options) {
		o.Tending.Space = func(string) (template.Space, error) { return space, nil }
	}
	h.reopen()
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	must(t, os.Remove(c.Path))
	h.Check(t.Context())
	space.Free = 1 << 20
	wantFault(t, h.Fetch(t.Context(), "a", nil), fault.NoSpace, fault.Local, "1048576 free")
	space.Free = 3 << 20
	must(t, h.Fetch(t.Context(), "a", nil))
	// Of another nothing is known but its length.
	other := raw(2, 4<<20)
	must(t, errOf(h.Register(t.Context(), spec("b", serveBytes(t, other).URL, other))))
	wantFault(t, h.Fetch(t.Context(), "b", nil), fault.NoSpace, fault.Local, "4194304 bytes needed")
}

// Who moves a pool to the system's own file system moves its files along, and
// is not told to mount anything.
func TestPoolThatNeedsNoMount(t *testing.T) {
	h, content := newHost(t), raw(1, 4096)
	mounted := true
	h.change = func(o *template.Options) { o.Mounted = func(string) bool { return mounted } }
	h.reopen()
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	moved := filepath.Join(t.TempDir(), "moved")
	copyFile(t, c.Path, moved)
	must(t, os.Remove(c.Path))
	must(t, os.Rename(moved, c.Path))
	mounted = false
	h.Check(t.Context())
	must(t, h.Fetch(t.Context(), "a", nil))
	other := raw(2, 4096)
	h.ready(spec("b", serveBytes(t, other).URL, other))
}
