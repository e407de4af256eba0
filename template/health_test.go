package template_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

// tended is a host that counts which copies are read, and what looks say.
type tended struct {
	*host
	mu      sync.Mutex
	reads   []string
	results []string
	opening func(path string) error // before a copy is opened to be read
}

func newTended(t testing.TB) *tended {
	h := &tended{host: newHost(t)}
	before := h.change
	h.change = func(o *template.Options) {
		before(o)
		o.Tending.Open = func(path string) (*os.File, error) {
			h.mu.Lock()
			h.reads = append(h.reads, path)
			opening := h.opening
			h.mu.Unlock()
			if opening != nil {
				if err := opening(path); err != nil {
					return nil, err
				}
			}
			return os.Open(path)
		}
		o.Tending.Checked = func(result string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.results = append(h.results, result)
		}
	}
	h.reopen()
	return h
}

// checked is one look, and what came of it.
func (h *tended) checked() (results string, reads int) {
	h.mu.Lock()
	h.results, h.reads = nil, nil
	h.mu.Unlock()
	h.Check(h.t.Context())
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.results, " "), len(h.reads)
}

// sameTimes writes to a file and then sets its time of modification back, as a
// tool that keeps times does.
func sameTimes(t *testing.T, path string, write func()) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	write()
	must(t, os.Chtimes(path, time.Time{}, info.ModTime()))
}

// overwrite writes other bytes of the same length into the file.
func overwrite(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt([]byte("other bytes"), 100)
	must(t, errors.Join(err, file.Close()))
}

// harms is what may become of a copy's file, and what is to come of it.
var harms = []struct {
	name   string
	harm   func(t *testing.T, path string)
	result string // of the look
	state  string // of the copy after it
	reads  int
	// usable: at once, before anybody looked.
	usable bool
	parts  string // of the message
}{
	{"nothing", func(*testing.T, string) {}, "unchanged", template.StateReady, 0, true, ""},
	{"it was read", func(t *testing.T, path string) {
		_, err := os.ReadFile(path)
		must(t, err)
	}, "unchanged", template.StateReady, 0, true, ""},
	// What libvirt does when the first instance on it starts.
	{"another owner", func(t *testing.T, path string) { must(t, os.Chown(path, 1, 1)) }, "verified", template.StateReady, 1, true, ""},
	{"another mode", func(t *testing.T, path string) { must(t, os.Chmod(path, 0o400)) }, "verified", template.StateReady, 1, true, ""},
	{"another time", func(t *testing.T, path string) { must(t, os.Chtimes(path, time.Time{}, time.Now())) }, "verified", template.StateReady, 1, false, ""},
	{"other bytes", overwrite, "changed", template.StateFailed, 1, false, "sha256:"},
	{"other bytes, and the time set back", func(t *testing.T, path string) { sameTimes(t, path, func() { overwrite(t, path) }) },
		"changed", template.StateFailed, 1, true, "sha256:"},
	{"shorter", func(t *testing.T, path string) { sameTimes(t, path, func() { must(t, os.Truncate(path, 100)) }) },
		"changed", template.StateFailed, 0, false, "another size"},
	{"gone", func(t *testing.T, path string) { must(t, os.Remove(path)) }, "missing", template.StateMissing, 0, false, "is gone"},
	{"the same bytes in another file", func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		must(t, err)
		replace(t, path, b)
	}, "missing", template.StateMissing, 0, false, "another file"},
	{"a folder", func(t *testing.T, path string) { must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700))) }, "missing", template.StateMissing, 0, false, "another file"},
	{"a pipe", func(t *testing.T, path string) { must(t, errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600))) }, "missing", template.StateMissing, 0, false, "another file"},
	{"the folder is gone", func(t *testing.T, path string) {
		must(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+".away"))
	}, "missing", template.StateMissing, 0, false, "is gone"},
	{"the folder is none", func(t *testing.T, path string) {
		must(t, errors.Join(os.Rename(filepath.Dir(path), filepath.Dir(path)+".away"), os.WriteFile(filepath.Dir(path), nil, 0o600)))
	}, "unread", template.StateFailed, 0, false, ""},
}

// A look finds what became of a copy, and reads nothing while its inode, size
// and times are what they were.
func TestCheck(t *testing.T) {
	for _, c := range harms {
		t.Run(c.name, func(t *testing.T) {
			h, content := newTended(t), raw(1, 4096)
			at, before := h.ready(spec("rocky9", serveBytes(t, content).URL, content))
			c.harm(t, before.Path)
			if result, reads := h.checked(); result != c.result || reads != c.reads {
				t.Errorf("the look said %q and read %d files; want %q and %d", result, reads, c.result, c.reads)
			}
			_, now := h.copyOf("rocky9")
			if now.State != c.state || !strings.Contains(now.Message, c.parts) {
				t.Fatalf("copy %+v; want %s", now, c.state)
			}
			if now.State == template.StateReady {
				if result, reads := h.checked(); result != "unchanged" || reads != 0 || now.Message != "" {
					t.Errorf("the next look said %q and read %d files; message %q", result, reads, now.Message)
				}
				return
			}
			// What is gone takes no room; what lies there in its place is not ours.
			if now.State == template.StateMissing && now.Allocated != 0 || now.Code == fault.Changed && now.State == template.StateFailed && now.Allocated == 0 {
				t.Errorf("%s, and takes %d bytes", now.State, now.Allocated)
			}
			if now.Message == "" || now.Class != fault.Local || now.RetryAt == nil || now.FailedSince == nil || now.Attempts != 0 {
				t.Errorf("copy %+v; want a local fault that is repaired at once", now)
			}
			if c.result != "unread" && now.Code != fault.Changed {
				t.Errorf("code %q", now.Code)
			}
			if c.parts == "sha256:" && !strings.Contains(now.Message, at.Digest) {
				t.Errorf("message %q lacks what it was", now.Message)
			}
			if result, reads := h.checked(); result != "" || reads != 0 {
				t.Errorf("lost, and looked at again: %q, %d read", result, reads)
			}
		})
	}
}

// Whoever uses a copy looks at it first: one that was written to is not given
// out, and comes back when it was read and is what it was.
func TestUse(t *testing.T) {
	for _, c := range harms {
		t.Run(c.name, func(t *testing.T) {
			for name, use := range map[string]func(h *tended, digest string) bool{
				"open": func(h *tended, _ string) bool {
					file, _, err := h.OpenContent("rocky9")
					if err == nil {
						file.Close()
					}
					return err == nil
				},
				"by digest": func(h *tended, digest string) bool { _, _, ok := h.ByDigest(digest, ""); return ok },
				"usable":    func(h *tended, _ string) bool { _, _, err := h.Usable("rocky9"); return err == nil },
			} {
				h, content := newTended(t), raw(1, 4096)
				at, before := h.ready(spec("rocky9", serveBytes(t, content).URL, content))
				c.harm(t, before.Path)
				if got := use(h, at.Digest); got != c.usable {
					t.Errorf("%s: %t; want %t", name, got, c.usable)
				}
				if len(h.reads) != 0 {
					t.Errorf("%s: the caller waited for %q to be read", name, h.reads)
				}
				if _, now := h.copyOf("rocky9"); !c.usable && now.State == template.StateReady {
					t.Errorf("%s: copy %+v", name, now)
				}
				h.checked()
				if got := use(h, at.Digest); got != (c.state == template.StateReady) {
					t.Errorf("%s after the look: %t", name, got)
				}
			}
		})
	}
}

// A path is looked at for whoever stands on it: removed templates count, and
// of two in one file the one that is ready.
func TestLookAt(t *testing.T) {
	h, content := newTended(t), raw(1, 4096)
	site := serveBytes(t, content)
	_, c := h.ready(spec("b", site.URL, content))
	must(t, h.AddRef(t.Context(), "b", ref("/pool/x")))
	must(t, errOf(h.Remove(t.Context(), "b")))
	want := func(id, state string) {
		t.Helper()
		at, c, ok := h.LookAt(c.Path)
		if at.ID != id || c.State != state || ok != (id != "") {
			t.Errorf("template %q, copy %+v, %t; want %q, %s", at.ID, c, ok, id, state)
		}
	}
	want("b", template.StateReady)
	must(t, os.Remove(c.Path))
	want("b", template.StateMissing)
	h.ready(spec("c", site.URL, content))
	want("c", template.StateReady)
	if _, _, ok := h.LookAt(c.Path + "x"); ok {
		t.Error("a copy where none is")
	}
}

func TestUsable(t *testing.T) {
	h, content := newTended(t), raw(1, 4096)
	_, _, err := h.Usable("rocky9")
	wantErr(t, err, template.ErrNotFound)
	must(t, errOf(h.Register(t.Context(), spec("rocky9", serveBytes(t, content).URL, content))))
	_, _, err = h.Usable("rocky9")
	wantErr(t, err, template.ErrNotReady)
	must(t, h.Fetch(t.Context(), "rocky9", nil))
	at, c, err := h.Usable("rocky9")
	if must(t, err); at.ID != "rocky9" || c.Path == "" {
		t.Errorf("%+v, %+v", at, c)
	}
	must(t, h.AddRef(t.Context(), "rocky9", ref("/pool/x")))
	must(t, errOf(h.Remove(t.Context(), "rocky9")))
	if at, _, err = h.Usable("rocky9"); !errors.Is(err, template.ErrNotFound) || !at.Removed() {
		t.Errorf("%+v, %v", at, err)
	}
}

// A copy that was lost is brought again by itself, and at once: no clock moves.
func TestLostCopiesAreRepaired(t *testing.T) {
	for _, c := range harms {
		if c.state == template.StateReady || strings.HasPrefix(c.name, "the folder") {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, content := newTended(t), raw(1, 4096)
				_, before := h.serve(content)
				running(t, h.host)
				c.harm(t, before.Path)
				h.Check(t.Context())
				synctest.Wait() // and no time has passed
				_, now := h.copyOf("rocky9")
				if b, err := os.ReadFile(now.Path); err != nil || !bytes.Equal(b, content) || now.State != template.StateReady || now.FailedSince != nil || now.Code != "" {
					t.Errorf("copy %+v, %v", now, err)
				}
			})
		})
	}
}

// serve has template rocky9 ready from an origin that is no server: those do
// not live in a bubble.
func (h *tended) serve(content []byte) (template.Template, template.Copy) {
	before := h.change
	h.change = func(o *template.Options) {
		before(o)
		o.Fetcher = links{"https://images.example/rocky9": memory{name: "https://images.example/rocky9", b: content}}
	}
	h.reopen()
	return h.ready(specOf("rocky9", content))
}

// What happened while the agent was away is found by its first look.
// held is an intake that looks until it is called off.
type held chan struct{}

func (h held) Check(ctx context.Context, _ *os.File, _ string) (template.ImageInfo, error) {
	h <- struct{}{}
	<-ctx.Done()
	return template.ImageInfo{}, context.Cause(ctx)
}

// A copy that was removed while it was verified for the first time has no file
// that could be missed.
func TestCheckOfWhatNeverCame(t *testing.T) {
	h, content, looks := newHost(t), raw(1, 4096), make(held)
	h.change = func(o *template.Options) { o.Intake = looks }
	h.reopen()
	site := serveBytes(t, content)
	ctx, cancel := context.WithCancel(t.Context())
	var fetches sync.WaitGroup
	defer fetches.Wait()
	defer cancel()
	for _, id := range []string{"a", "b"} {
		must(t, errOf(h.Register(t.Context(), spec(id, site.URL, content))))
	}
	fetches.Go(func() { _ = h.Fetch(ctx, "a", nil) }) // it is called off
	<-looks
	fetches.Go(func() { _ = h.Fetch(ctx, "b", nil) }) // and this one, at the end
	must(t, errOf(h.Remove(t.Context(), "a")))
	<-looks
	h.Check(t.Context())
	if got, err := h.Get("a"); err != nil || slices.ContainsFunc(got.Copies, func(c template.Copy) bool { return c.State == template.StateMissing }) {
		t.Errorf("%+v, %v; want nothing missing", got, err)
	}
}

func TestCheckAfterARestart(t *testing.T) {
	h, content := newTended(t), raw(1, 4096)
	_, c := h.ready(spec("rocky9", serveBytes(t, content).URL, content))
	overwrite(t, c.Path)
	h.reopen()
	if result, _ := h.checked(); result != "changed" {
		t.Errorf("the look said %q", result)
	}
}

// A copy from before there were stamps is read once, and then has one.
func TestCheckWithoutAStamp(t *testing.T) {
	h, content := newTended(t), raw(1, 4096)
	h.ready(spec("rocky9", serveBytes(t, content).URL, content))
	h.rewrite(func(c *template.Copy) { c.Stamp = template.Stamp{} })
	if _, _, err := h.Usable("rocky9"); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"verified", "unchanged"} {
		if result, _ := h.checked(); result != want {
			t.Errorf("the look said %q; want %q", result, want)
		}
	}
}

// rewrite changes the one copy in the store, and starts the agent again.
func (h *host) rewrite(change func(*template.Copy)) {
	h.t.Helper()
	var stored template.Template
	must(h.t, h.store.List("templates", func(_ string, value []byte) error { return json.Unmarshal(value, &stored) }))
	change(&stored.Copies[0])
	value, err := json.Marshal(stored)
	must(h.t, err)
	must(h.t, h.store.Put("templates", stored.ID, value))
	h.reopen()
}

// What is written to while it is read is not judged by that.
func TestReadWhileWrittenTo(t *testing.T) {
	h, content := newTended(t), raw(1, 3<<20)
	_, c := h.ready(spec("rocky9", serveBytes(t, content).URL, content))
	once := sync.OnceFunc(func() { overwrite(t, c.Path) })
	if err := h.Scrub(t.Context(), "rocky9", func(int64, int64) { once() }); err == nil {
		t.Error("the bytes of two contents were taken for one")
	}
	if _, c := h.copyOf("rocky9"); c.State != template.StateReady {
		t.Errorf("copy %+v", c)
	}
	if result, _ := h.checked(); result != "changed" {
		t.Errorf("the look said %q", result)
	}
}

func TestCheckCannotRead(t *testing.T) {
	h, content := newTended(t), raw(1, 4096)
	_, c := h.ready(spec("rocky9", serveBytes(t, content).URL, content))
	must(t, os.Chtimes(c.Path, time.Time{}, time.Now()))
	h.opening = func(string) error { return &os.PathError{Op: "open", Path: c.Path, Err: syscall.EIO} }
	if result, _ := h.checked(); result != "unread" {
		t.Errorf("the look said %q", result)
	}
	if _, c := h.copyOf("rocky9"); c.State != template.StateFailed || c.Code != fault.IO || c.RetryAt == nil {
		t.Errorf("copy %+v", c)
	}
}

// A scrub reads what no stamp tells: a disk that forgets.
func TestScrub(t *testing.T) {
	h, content := newTended(t), raw(1, 3<<20)
	wantErr(t, h.Scrub(t.Context(), "rocky9", nil), template.ErrNotFound)
	must(t, errOf(h.Register(t.Context(), spec("rocky9", serveBytes(t, content).URL, content))))
	wantErr(t, h.Scrub(t.Context(), "rocky9", nil), template.ErrNotReady)
	must(t, h.Fetch(t.Context(), "rocky9", nil))
	var told []int64
	must(t, h.Scrub(t.Context(), "rocky9", func(done, total int64) {
		if total != 3<<20 {
			t.Errorf("%d bytes in all", total)
		}
		told = append(told, done)
	}))
	if len(told) < 2 || told[len(told)-1] != 3<<20 || !slices.IsSorted(told) {
		t.Errorf("progress %d", told)
	}
	if _, c := h.copyOf("rocky9"); c.State != template.StateReady {
		t.Errorf("copy %+v", c)
	}
	// The bytes change, and the stamp does not know.
	_, c := h.copyOf("rocky9")
	overwrite(t, c.Path)
	info, err := os.Stat(c.Path)
	must(t, err)
	h.rewrite(func(c *template.Copy) { c.Stamp = template.StampOf(info) })
	if result, _ := h.checked(); result != "unchanged" {
		t.Errorf("the look said %q", result)
	}
	wantFault(t, h.Scrub(t.Context(), "rocky9", nil), fault.Changed, fault.Local, c.Path, sha(content))
	if _, c := h.copyOf("rocky9"); c.State != template.StateFailed || c.RetryAt == nil {
		t.Errorf("copy %+v", c)
	}
}

// One copy is read at a time, whoever asks, and who waits can be called off.
func TestOneIsReadAtATime(t *testing.T) {
	h := newTended(t)
	for i, id := range []string{"a", "b"} {
		content := raw(uint64(i+1), 4096)
		h.ready(spec(id, serveBytes(t, content).URL, content))
	}
	opened, proceed := make(chan struct{}), make(chan struct{})
	h.opening = func(string) error { opened <- struct{}{}; <-proceed; return nil }
	ended := make(chan error)
	go func() { ended <- h.Scrub(t.Context(), "a", nil) }()
	<-opened
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { ended <- h.Scrub(ctx, "b", nil) }()
	called := errors.New("called off")
	cancel(called)
	if err := <-ended; !errors.Is(err, called) {
		t.Errorf("error %v", err)
	}
	go func() { ended <- h.Scrub(t.Context(), "b", nil) }()
	close(proceed)
	<-opened // only now
	must(t, errors.Join(<-ended, <-ended))
	if len(h.reads) != 2 {
		t.Errorf("read %q", h.reads)
	}
}

// A look that is called off in the middle changes nothing.
func TestScrubIsCalledOff(t *testing.T) {
	h, content := newTended(t), raw(1, 4096)
	h.ready(spec("a", serveBytes(t, content).URL, content))
	ctx, cancel := context.WithCancel(t.Context())
	h.opening = func(string) error { cancel(); return nil }
	wantErr(t, h.Scrub(ctx, "a", nil), context.Canceled)
	if _, c := h.copyOf("a"); c.State != template.StateReady {
		t.Errorf("copy %+v", c)
	}
}

// Tend looks by itself: at once, at every interval, and as soon as somebody
// came upon a copy that has changed.
func TestTend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTended(t)
		before := h.change
		h.change = func(o *template.Options) { before(o); o.Tending.Interval = 90 * time.Second }
		_, c := h.serve(raw(1, 4096))
		must(t, os.Chtimes(c.Path, time.Time{}, time.Now()))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.Tend(ctx)
		said := func(what string, want ...string) {
			t.Helper()
			if !slices.Equal(h.results, want) {
				t.Errorf("%s: the looks said %q; want %q", what, h.results, want)
			}
		}
		synctest.Wait()
		said("at once", "verified")
		must(t, os.Chtimes(c.Path, time.Time{}, time.Now().Add(time.Hour)))
		pass(89 * time.Second)
		said("before the interval", "verified")
		_, _, err := h.Usable("rocky9")
		wantErr(t, err, template.ErrNotReady)
		synctest.Wait()
		said("somebody came upon it", "verified", "verified")
		if _, _, err := h.Usable("rocky9"); err != nil {
			t.Error(err)
		}
		must(t, os.Remove(c.Path))
		pass(90 * time.Second)
		said("after the interval", "verified", "verified", "missing")
	})
}
