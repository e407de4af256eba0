package template_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// halves is a server of content that sends only a part of it, and then waits
// for the client to go, until it is whole.
type halves struct {
	*site
	mu      sync.Mutex
	content []byte
	part    int // bytes that are sent; all of them when 0
	etag    string
	lie     bool // ranges are of the content, whatever the validator says
	ranges  []string
	sent    chan struct{} // closed when the part was sent
}

func newHalves(t testing.TB, content []byte, part int) *halves {
	s := &halves{content: content, part: part, etag: `"one"`, sent: make(chan struct{})}
	s.site = serve(t, s.answer)
	return s
}

func (s *halves) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	content, part := s.content, s.part
	s.ranges = append(s.ranges, r.Header.Get("Range"))
	w.Header().Set("ETag", s.etag)
	if s.lie {
		w.Header().Set("ETag", r.Header.Get("If-Range"))
	}
	s.mu.Unlock()
	if part == 0 {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	send(w, content[:part])
	w.(http.Flusher).Flush()
	close(s.sent)
	<-r.Context().Done()
}

func (s *halves) become(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.part, s.ranges = 0, nil
}

// stopped fetches half of what a server has, as an agent that stops then.
func stopped(t *testing.T, h *host, s *halves, sp template.Spec) {
	t.Helper()
	_, err := h.Register(t.Context(), sp)
	must(t, err)
	ctx, stop := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	come := make(chan struct{})
	var once sync.Once
	go func() {
		ended <- h.Fetch(ctx, sp.ID, func(done, _ int64) {
			if done >= int64(s.part) {
				once.Do(func() { close(come) })
			}
		})
	}()
	<-come
	stop(errStop)
	wantErr(t, <-ended, errStop)
	_, c := h.copyOf(sp.ID)
	if c.State != template.StatePending || c.RetryAt == nil || c.Code != "" || c.FailedSince != nil || !strings.Contains(c.Message, "the agent stopped") {
		t.Fatalf("copy of a stopped agent: %+v", c)
	}
	if left := h.inPool(); len(left) != 1 || filepath.Join(h.pool, left[0]) != c.Partial {
		t.Fatalf("pool of a stopped agent: %v, partial %q", left, c.Partial)
	}
	h.reopen()
}

// What came before the agent stopped is not asked for again, and the image is
// the same.
func TestResumeAfterAStop(t *testing.T) {
	content := raw(1, 8<<20)
	for name, tt := range map[string]struct {
		change func(*halves)
		ranges []string
		digest string
	}{
		"same content": {
			change: func(*halves) {},
			ranges: []string{"bytes=3145728-"},
		},
		"other content under the same checksum's name": {
			// The server says so: it has another validator, and gives all of it.
			change: func(s *halves) { s.etag = `"two"` },
			ranges: []string{"bytes=3145728-"},
		},
		"server without a validator": {
			change: func(s *halves) { s.etag = "" },
			ranges: []string{"bytes=3145728-"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, u := newHost(t), newUntil(t)
			h.change = func(o *template.Options) { o.Notify = u.notify }
			h.reopen()
			s := newHalves(t, content, 3<<20)
			stopped(t, h, s, spec("rocky9", s.URL, content))
			s.become(func() { tt.change(s) })
			// Nobody asks: the next start goes on by itself.
			running(t, h)
			if c := u.state(template.StateReady); c.Partial != "" || c.FailedSince != nil {
				t.Errorf("copy %+v", c)
			}
			if diff := cmp.Diff(tt.ranges, s.ranges); diff != "" {
				t.Errorf("ranges: %s", diff)
			}
			file, _, err := h.OpenContent("rocky9")
			must(t, err)
			defer file.Close()
			back, err := os.ReadFile(file.Name())
			must(t, err)
			if !bytes.Equal(back, content) {
				t.Error("content differs")
			}
			if diff := cmp.Diff([]string{published(content, "raw")}, h.inPool()); diff != "" {
				t.Errorf("pool: %s", diff)
			}
		})
	}
}

// A server that sends the rest of other content, and lies about it, is found
// out by the checksum, and gets a second chance to give all at once.
func TestResumeOfALie(t *testing.T) {
	old, content := raw(1, 8<<20), raw(2, 8<<20)
	for _, right := range []bool{true, false} {
		t.Run(fmt.Sprintf("in the end right %t", right), func(t *testing.T) {
			h := newHost(t)
			s := newHalves(t, old, 3<<20)
			stopped(t, h, s, spec("rocky9", s.URL, content))
			s.become(func() {
				s.lie = true
				if right {
					s.content = content
				}
			})
			err := h.Fetch(t.Context(), "rocky9", nil)
			if diff := cmp.Diff([]string{"bytes=3145728-", ""}, s.ranges); diff != "" {
				t.Errorf("ranges: %s", diff)
			}
			if right {
				must(t, err)
				return
			}
			if f := wantFault(t, err, fault.Checksum, fault.Source); !f.Permanent {
				t.Error("wrong in full, and yet tried again")
			}
		})
	}
}

// What was begun from one origin is gone on with from another that has the same
// bytes; where the pieces do not fit, it gives all of them.
func TestResumeFromAnother(t *testing.T) {
	content := raw(1, 8<<20)
	for name, c := range map[string]struct {
		begun  []byte
		ranges []string
	}{
		"same bytes":  {content, []string{"bytes=3145728-"}},
		"other bytes": {raw(2, 8<<20), []string{"bytes=3145728-", ""}},
		// The other one's content is of another length: it is another.
		"another length": {raw(2, 9<<20), []string{"bytes=3145728-", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := newHalves(t, c.begun, 3<<20)
			sp := spec("rocky9", s.URL, content)
			stopped(t, h, s, sp)
			other := newHalves(t, content, 0)
			other.etag = `"another server's"`
			sp.URL = other.URL
			must(t, errOf(h.Register(t.Context(), sp)))
			must(t, h.Fetch(t.Context(), "rocky9", nil))
			if diff := cmp.Diff(c.ranges, other.ranges); diff != "" {
				t.Errorf("ranges: %s", diff)
			}
		})
	}
}

// asking is an origin that remembers from where it was asked, and may end early.
type asking struct {
	memory
	from []int64
	part int64 // it fails behind so many bytes; 0: it does not
}

func (o *asking) Open(ctx context.Context, at source.At) (source.Stream, error) {
	o.from = append(o.from, at.Offset)
	s, err := o.memory.Open(ctx, at)
	if o.part > 0 {
		s.ReadCloser = io.NopCloser(io.MultiReader(io.LimitReader(s, o.part), iotest.ErrReader(fault.New(fault.Peer, "its disk failed"))))
	}
	return s, err
}

// The next origin goes on from what is safe on the disk, but for bytes that
// were found to be wrong.
func TestNextOriginGoesOn(t *testing.T) {
	const safe = 64 << 20
	content := make([]byte, safe+2<<20)
	copy(content, "an image")
	wrong := bytes.Clone(content)
	wrong[len(wrong)-1] = 1
	for name, c := range map[string]struct {
		first asking
		from  int64
	}{
		"one that broke":    {asking{memory: memory{b: content}, part: safe + 1<<20}, safe},
		"one that is wrong": {asking{memory: memory{b: wrong}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			first, next := c.first, asking{memory: memory{name: "peer https://c", b: content}}
			first.name = "peer https://b"
			h.peers = []source.Origin{&first, &next}
			s := spec("rocky9", "", content)
			s.SyncFrom = "https://b"
			h.ready(s)
			if diff := cmp.Diff([]int64{c.from}, next.from); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An operator who cancels what a stopped agent had begun sees it gone.
func TestCancelAfterAStop(t *testing.T) {
	content := raw(1, 8<<20)
	h := newHost(t)
	s := newHalves(t, content, 3<<20)
	stopped(t, h, s, spec("rocky9", s.URL, content))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, h.Fetch(ctx, "rocky9", nil), context.Canceled)
	_, err := h.Remove(t.Context(), "rocky9")
	must(t, err)
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("left in the pool: %v", left)
	}
}

// A sync goes on after a stop as well.
func TestResumeOfASync(t *testing.T) {
	content := raw(1, 8<<20)
	h := newHost(t)
	s := newHalves(t, content, 3<<20)
	found, err := h.download.Resolve(t.Context(), source.Request{URL: s.URL})
	must(t, err)
	h.peers = found.Origins
	sp := spec("rocky9", "", content)
	sp.SyncFrom = "https://peer:8470"
	stopped(t, h, s, sp)
	s.become(func() {})
	must(t, h.Fetch(t.Context(), "rocky9", nil))
	if diff := cmp.Diff([]string{"bytes=3145728-"}, s.ranges); diff != "" {
		t.Errorf("ranges: %s", diff)
	}
}

// slow looks into an image until it is told to stop.
type slow struct{ looking chan struct{} }

func (s slow) Check(ctx context.Context, _ *os.File, _ string) (template.ImageInfo, error) {
	close(s.looking)
	<-ctx.Done()
	return template.ImageInfo{}, context.Cause(ctx)
}

// Stopped while the image is looked into, none of its bytes come twice.
func TestStopWhileVerifying(t *testing.T) {
	content := raw(1, 8<<20)
	h := newHost(t)
	s := newHalves(t, content, 0)
	looking := make(chan struct{})
	h.change = func(o *template.Options) { o.Intake = slow{looking} }
	h.reopen()
	must(t, errOf(h.Register(t.Context(), spec("rocky9", s.URL, content))))
	ctx, stop := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Fetch(ctx, "rocky9", nil) }()
	<-looking
	stop(errStop)
	wantErr(t, <-ended, errStop)
	var come int64
	h.change = func(o *template.Options) { o.Received = func(_ string, n int64) { come += n } }
	h.reopen()
	must(t, h.Fetch(t.Context(), "rocky9", nil))
	if come != 0 {
		t.Errorf("%d bytes came again", come)
	}
}

// A pool whose folder moved to another place gets its images there.
func TestResumeInAnotherFolder(t *testing.T) {
	content := raw(1, 8<<20)
	h := newHost(t)
	s := newHalves(t, content, 3<<20)
	stopped(t, h, s, spec("rocky9", s.URL, content))
	s.become(func() {})
	before := h.pool
	h.pool = t.TempDir()
	must(t, h.Fetch(t.Context(), "rocky9", nil))
	if left, err := os.ReadDir(before); err != nil || len(left) != 0 {
		t.Errorf("left in the old folder: %v, %v", left, err)
	}
	if diff := cmp.Diff([]string{published(content, "raw")}, h.inPool()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{""}, s.ranges); diff != "" {
		t.Errorf("ranges: %s", diff)
	}
}
