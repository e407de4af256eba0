package template_test

import (
	"context"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// small has the pool on a file system of 4 MiB, which takes root.
func small(t testing.TB, h *host) {
	t.Helper()
	must(t, syscall.Mount("tmpfs", h.pool, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() { must(t, syscall.Unmount(h.pool, syscall.MNT_DETACH)) })
}

// taking is an origin that says what its image takes on disk.
type taking struct {
	memory
	allocated int64
}

func (o taking) Open(ctx context.Context, at source.At) (source.Stream, error) {
	s, err := o.memory.Open(ctx, at)
	s.Allocated = o.allocated
	return s, err
}

// hollow is an image of n bytes with 1 MiB of data.
func hollow(n int) []byte {
	b := make([]byte, n)
	copy(b[n/2:], raw(1, 2<<20)[:512<<10])
	copy(b, raw(2, 2<<20)[:512<<10])
	return b
}

// An image whose data has room comes, whatever its size with the holes, where
// the origin says what the data is; one that says less than it sends ends in
// the middle, with nothing left of it, and is this host's trouble.
func TestRoom(t *testing.T) {
	big := raw(3, 16<<20) // half of it data
	for name, c := range map[string]struct {
		content   []byte
		allocated int64
		fails     []string // parts of the message; nil: it comes
	}{
		"holes":            {hollow(32 << 20), 1 << 20, nil},
		"holes, not said":  {hollow(32 << 20), 0, []string{"33554432 bytes needed"}},
		"too much of it":   {big, 8 << 20, []string{"8388608 bytes needed"}},
		"more than said":   {big, 1 << 20, []string{"no space left on device"}},
		"more than it has": {hollow(1 << 20), 1 << 40, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			small(t, h)
			h.peers = []source.Origin{taking{memory{name: "peer https://b", b: c.content}, c.allocated}}
			s := spec("rocky9", "", c.content)
			s.SyncFrom = "https://b"
			must(t, errOf(h.Register(t.Context(), s)))
			err := h.Fetch(t.Context(), "rocky9", nil)
			if c.fails == nil {
				must(t, err)
				return
			}
			wantFault(t, err, fault.NoSpace, fault.Local, c.fails...)
			_, got := h.copyOf("rocky9")
			if got.State != template.StateFailed || got.Permanent || got.RetryAt == nil || got.Partial != "" || len(h.inPool()) != 0 {
				t.Errorf("copy %+v, left %v", got, h.inPool())
			}
		})
	}
}

// Another pool of this host is asked what its file takes.
func TestRoomForACopyOfAnotherPool(t *testing.T) {
	h, content := newHost(t), hollow(32<<20)
	s := spec("rocky9", serveBytes(t, content).URL, content)
	s.Pool = "other"
	h.ready(s)
	small(t, h)
	s.Pool = "default"
	must(t, errOf(h.Register(t.Context(), s)))
	must(t, h.Fetch(t.Context(), "rocky9", nil))
}

// A server does not know holes; of one that does not tell the length either,
// the lack is found in the middle.
func TestRoomForAURL(t *testing.T) {
	for name, told := range map[string]bool{"length told": true, "length not told": false} {
		t.Run(name, func(t *testing.T) {
			h, content := newHost(t), raw(3, 16<<20)
			small(t, h)
			site := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if !told {
					w.(http.Flusher).Flush()
				}
				send(w, content)
			})
			must(t, errOf(h.Register(t.Context(), spec("rocky9", site.URL, content))))
			wantFault(t, h.Fetch(t.Context(), "rocky9", nil), fault.NoSpace, fault.Local)
			if left, _ := filepath.Glob(filepath.Join(h.pool, ".*")); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}
