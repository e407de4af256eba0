package template_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

func TestFetchPublishes(t *testing.T) {
	image := qcow2(t)
	content := raw(1, 4<<20)
	for name, tt := range map[string]struct {
		content          []byte
		format, checksum string
	}{
		"qcow2":  {image, "qcow2", sha(image)},
		"raw":    {content, "raw", sha(content)},
		"sha512": {content, "raw", sha5(content)},
		"sha1":   {content, "raw", sums(content).Sum("sha1")},
		"md5":    {content, "raw", sums(content).Sum("md5")},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			var last [2]int64
			_, err := h.Register(t.Context(), template.Spec{
				ID: "rocky9", URL: serveBytes(t, tt.content).URL, Checksum: tt.checksum, Format: tt.format,
			})
			must(t, err)
			must(t, h.Fetch(t.Context(), "rocky9", func(done, total int64) { last = [2]int64{done, total} }))
			got, c := h.copyOf("rocky9")
			size := int64(len(tt.content))
			if last != [2]int64{size, size} {
				t.Errorf("last progress %v", last)
			}
			virtual := size
			if tt.format == "qcow2" {
				virtual = 8 << 20
			}
			if got.Digest != sha(tt.content) || got.Size != size || got.VirtualSize != virtual {
				t.Errorf("digest %s, size %d, virtual %d", got.Digest, got.Size, got.VirtualSize)
			}
			if c.State != template.StateReady || c.Progress != 100 || c.Message != "" || c.Attempts != 1 || c.Partial != "" || !c.Owned {
				t.Errorf("copy %+v", c)
			}
			if diff := cmp.Diff([]string{published(tt.content, tt.format)}, h.inPool()); diff != "" {
				t.Errorf("pool: %s", diff)
			}
			info, err := os.Stat(c.Path)
			must(t, err)
			if info.Mode() != 0o444 {
				t.Errorf("mode %s", info.Mode())
			}
			if used := info.Sys().(*syscall.Stat_t).Blocks * 512; tt.format == "raw" && used > size*3/4 {
				t.Errorf("%d bytes used for %d with a hole of a half", used, size)
			}
			file, _, err := h.OpenContent("rocky9")
			must(t, err)
			defer file.Close()
			back, err := io.ReadAll(file)
			must(t, err)
			if !slices.Equal(back, tt.content) {
				t.Error("content differs")
			}
			if err := h.Fetch(t.Context(), "rocky9", nil); err != nil {
				t.Errorf("fetching what is ready: %v", err)
			}
			if _, c := h.copyOf("rocky9"); c.Attempts != 1 {
				t.Errorf("%d attempts", c.Attempts)
			}
		})
	}
}

func TestFetchFailures(t *testing.T) {
	content := raw(1, 1<<20)
	ok := func(w http.ResponseWriter, _ *http.Request) { send(w, content) }
	tests := map[string]struct {
		handler   http.HandlerFunc
		change    func(*template.Spec, *template.Options)
		code      string
		class     fault.Class
		permanent bool
		parts     []string
	}{
		"not found": {
			handler: func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "no such  image\x00here", http.StatusNotFound)
			},
			code: fault.HTTPStatus, class: fault.Source, parts: []string{"404"},
		},
		"other bytes": {
			handler: func(w http.ResponseWriter, _ *http.Request) { send(w, raw(2, 1<<20)) },
			code:    fault.Checksum, class: fault.Source, permanent: true, parts: []string{sha(content), sha(raw(2, 1<<20))},
		},
		"login page": {
			handler: func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, "\n<!DOCTYPE html><title>Log in</title>")
			},
			code: fault.NotAnImage, class: fault.Source, parts: []string{"HTML", sha(content)},
		},
		"archive": {
			handler: func(w http.ResponseWriter, _ *http.Request) { send(w, []byte("PK\x03\x04abcdefgh")) },
			code:    fault.NotAnImage, class: fault.Source, permanent: true, parts: []string{"ZIP", sha(content)},
		},
		"broken archive of another checksum": {
			handler: func(w http.ResponseWriter, _ *http.Request) { send(w, []byte("\x1f\x8b\x08\x00abcdefgh")) },
			code:    fault.Checksum, class: fault.Source, parts: []string{"gzip", sha(content)},
		},
		"broken archive": {
			handler: func(w http.ResponseWriter, _ *http.Request) { send(w, []byte("\x1f\x8b\x08\x00abcdefgh")) },
			change: func(s *template.Spec, _ *template.Options) {
				s.Checksum = sha([]byte("\x1f\x8b\x08\x00abcdefgh"))
			},
			code: fault.Packed, class: fault.Source, permanent: true, parts: []string{"gzip"},
		},
		"refused": {
			handler: ok,
			change:  func(_ *template.Spec, o *template.Options) { o.Intake = refusing{} },
			code:    fault.Image, class: fault.Policy, permanent: true, parts: []string{"a backing file"},
		},
		"cut short": {
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				panic(http.ErrAbortHandler)
			},
			code: fault.ConnectionLost, class: fault.Source,
		},
		"larger than said to be allowed": {
			handler: ok,
			change:  func(_ *template.Spec, o *template.Options) { o.MaxSize = 1000 },
			code:    fault.TooLarge, class: fault.Policy, parts: []string{"1000"},
		},
		"larger, and not said": {
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush() // no Content-Length any more
				ok(w, r)
			},
			change: func(_ *template.Spec, o *template.Options) { o.MaxSize = 1000 },
			code:   fault.TooLarge, class: fault.Policy, parts: []string{"1000"},
		},
		"more than the disk has": {
			handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1099511627775999") },
			change:  func(_ *template.Spec, o *template.Options) { o.MaxSize = 1 << 60 },
			code:    fault.NoSpace, class: fault.Local, parts: []string{"1099511627775999"},
		},
		"encoded": {
			handler: func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Encoding", "gzip"); ok(w, r) },
			code:    fault.Protocol, class: fault.Source, parts: []string{"gzip"},
		},
		"no such scheme": {
			change: func(s *template.Spec, _ *template.Options) { s.URL = "httpsinvalid://images.example/parrot.qcow2" },
			code:   fault.Scheme, class: fault.Policy, parts: []string{"httpsinvalid"},
		},
		"file elsewhere": {
			change: func(s *template.Spec, _ *template.Options) { s.URL = "file:///etc/passwd" },
			code:   fault.FileFolder, class: fault.Policy, parts: []string{"/etc/passwd"},
		},
		"pool that went": {
			change: func(_ *template.Spec, o *template.Options) {
				all := o.Pools
				registered := false
				o.Pools = func(ctx context.Context) ([]template.Pool, error) {
					if registered {
						return nil, nil
					}
					registered = true
					return all(ctx)
				}
			},
			code: fault.Pool, class: fault.Local, parts: []string{"default"},
		},
		"folder that went": {
			change: func(_ *template.Spec, o *template.Options) {
				o.Pools = func(context.Context) ([]template.Pool, error) {
					return []template.Pool{{Name: "default", Path: "/nowhere/at/all"}}, nil
				}
			},
			code: fault.Pool, class: fault.Local, parts: []string{"/nowhere/at/all"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if tt.handler == nil {
				tt.handler = func(http.ResponseWriter, *http.Request) { t.Error("asked") }
			}
			s := spec("rocky9", serve(t, tt.handler).URL, content)
			h.change = func(o *template.Options) {
				o.Now = func() time.Time { return start }
				if tt.change != nil {
					tt.change(&s, o)
				}
			}
			h.reopen()
			_, err := h.Register(t.Context(), s)
			must(t, err)
			err = h.Fetch(t.Context(), "rocky9", nil)
			f := wantFault(t, err, tt.code, tt.class, append(tt.parts, "rocky9", "default")...)
			_, c := h.copyOf("rocky9")
			want := template.Copy{
				Pool: "default", State: template.StateFailed, Code: tt.code, Class: tt.class, Permanent: tt.permanent,
				FailedSince: &start, Attempts: 1, UpdatedAt: start, Message: fault.Message(&f), BytesTotal: -1, Origin: c.Origin,
			}
			if retry := start.Add(time.Minute); !tt.permanent {
				want.RetryAt = &retry
			}
			if diff := cmp.Diff(want, c); diff != "" {
				t.Error(diff)
			}
			if left := h.inPool(); len(left) != 0 {
				t.Errorf("left in the pool: %v", left)
			}
			if _, _, err := h.OpenContent("rocky9"); !errors.Is(err, template.ErrNotReady) {
				t.Errorf("content of a failed copy: %v", err)
			}
		})
	}
}

type refusing struct{}

func (refusing) Check(context.Context, *os.File, string) (template.ImageInfo, error) {
	return template.ImageInfo{}, fault.New(fault.Image, "it names a backing file")
}

func TestFetchAgainAfterAFailure(t *testing.T) {
	h := newHost(t)
	content := raw(1, 1<<20)
	fail := true
	site := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if fail {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		send(w, content)
	})
	_, err := h.Register(t.Context(), spec("rocky9", site.URL, content))
	must(t, err)
	wantFault(t, h.Fetch(t.Context(), "rocky9", nil), fault.HTTPStatus, fault.Source, "503")
	h.reopen()
	if _, c := h.copyOf("rocky9"); c.State != template.StateFailed || c.Message == "" {
		t.Errorf("after a restart: %+v", c)
	}
	fail = false
	must(t, h.Fetch(t.Context(), "rocky9", nil))
	if _, c := h.copyOf("rocky9"); c.State != template.StateReady || c.Message != "" || c.Attempts != 1 || c.FailedSince != nil || c.Code != "" {
		t.Errorf("copy %+v", c)
	}
}

func TestFetchIsCancelled(t *testing.T) {
	h := newHost(t)
	content := raw(1, 4<<20)
	ctx, stop := context.WithCancelCause(t.Context())
	why := errors.New("told to stop")
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		send(w, content[:2<<20])
		w.(http.Flusher).Flush()
		stop(why)
		<-r.Context().Done()
	})
	_, err := h.Register(t.Context(), spec("rocky9", site.URL, content))
	must(t, err)
	wantErr(t, h.Fetch(ctx, "rocky9", nil), why)
	// It was somebody's wish: no failure, and nothing begins by itself.
	if _, c := h.copyOf("rocky9"); c.State != template.StateFailed || c.Code != fault.Interrupted || c.Class != fault.Local ||
		!c.Permanent || c.RetryAt != nil || c.FailedSince != nil || !strings.Contains(c.Message, why.Error()) {
		t.Errorf("copy %+v", c)
	}
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("left in the pool: %v", left)
	}
}

// However many ask, and under however many ids, the bytes come once.
func TestConcurrentFetchesDownloadOnce(t *testing.T) {
	h := newHost(t)
	content := raw(1, 1<<20)
	all := make(chan struct{})
	site := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		<-all
		send(w, content)
	})
	for _, id := range []string{"a", "b"} {
		_, err := h.Register(t.Context(), spec(id, site.URL, content))
		must(t, err)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if err := h.Fetch(t.Context(), []string{"a", "b"}[i%2], nil); err != nil {
				t.Error(err)
			}
		})
	}
	close(all)
	wg.Wait()
	if n := site.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
	for _, id := range []string{"a", "b"} {
		if _, c := h.copyOf(id); c.State != template.StateReady || !c.Owned {
			t.Errorf("copy of %s: %+v", id, c)
		}
	}
	if left := h.inPool(); len(left) != 1 {
		t.Errorf("pool: %v", left)
	}
}

func TestWaitersShareTheFailureButNotTheCancel(t *testing.T) {
	content := raw(1, 1<<20)
	for _, cancelled := range []bool{false, true} {
		t.Run(fmt.Sprintf("cancelled %t", cancelled), func(t *testing.T) {
			h := newHost(t)
			first, proceed, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var once sync.Once
			site := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				led := false
				once.Do(func() { led = true; close(first) })
				switch {
				case led && cancelled:
					<-left
					send(w, content)
				case led:
					<-proceed
					http.Error(w, "no", http.StatusInternalServerError)
				default:
					send(w, content)
				}
			})
			for _, id := range []string{"a", "b"} {
				_, err := h.Register(t.Context(), spec(id, site.URL, content))
				must(t, err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			leader, same, other := make(chan error, 1), make(chan error, 1), make(chan error, 1)
			go func() { leader <- h.Fetch(ctx, "a", nil) }()
			<-first
			joined := make(chan struct{}, 2)
			wait := func(id string, to chan error) {
				go func() { joined <- struct{}{}; to <- h.Fetch(t.Context(), id, nil) }()
				<-joined
			}
			wait("a", same)
			wait("b", other)
			if cancelled {
				stop()
				// The leader is not needed for the others to go on: it only leaves.
				wantErr(t, <-leader, context.Canceled)
				close(left)
				for _, ch := range []chan error{same, other} {
					if err := <-ch; err != nil {
						t.Errorf("a waiter suffers from somebody else's cancel: %v", err)
					}
				}
				return
			}
			close(proceed)
			wantFault(t, <-leader, fault.HTTPStatus, fault.Source, "500")
			// A waiter either shared the failure or came later and succeeded.
			for id, ch := range map[string]chan error{"a": same, "b": other} {
				err := <-ch
				_, c := h.copyOf(id)
				shared := c.Code == fault.HTTPStatus && c.State == template.StateFailed && strings.Contains(c.Message, "500")
				if !shared && (err != nil || c.State != template.StateReady) {
					t.Errorf("%s: %v, copy %+v", id, err, c)
				}
			}
		})
	}
}

// Whoever waits for the same bytes under another id has a URL and a folder of
// their own, and need not suffer from those of the first.
func TestWaitersHaveSourcesAndFoldersOfTheirOwn(t *testing.T) {
	content := raw(1, 1<<20)
	for what, c := range map[string]struct {
		pool string
		sent []byte // to the first
		code string // of the first
	}{
		"another URL":    {"default", raw(2, 1<<20), fault.Checksum},
		"another folder": {"other", content, fault.Pool},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHost(t)
			followed := make(chan struct{})
			halting := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				send(w, c.sent[:len(c.sent)/2])
				_ = http.NewResponseController(w).Flush() // the client sees what came
				<-followed
				send(w, c.sent[len(c.sent)/2:])
			})
			first := spec("a", halting.URL, content)
			first.Pool = c.pool
			_, err := h.Register(t.Context(), first)
			must(t, err)
			_, err = h.Register(t.Context(), spec("b", serveBytes(t, content).URL, content))
			must(t, err)
			reached, a := make(chan struct{}), make(chan error, 1)
			go func() { a <- h.Fetch(t.Context(), "a", signal(reached)) }()
			<-reached
			follows := make(chan struct{})
			go func() {
				<-follows
				if c.pool == "other" {
					_ = os.RemoveAll(h.other) // the fetch says what becomes of it
				}
				close(followed)
			}()
			if err := h.Fetch(t.Context(), "b", signal(follows)); err != nil {
				t.Error(err)
			}
			if _, c := h.copyOf("b"); c.State != template.StateReady || c.FailedSince != nil {
				t.Errorf("copy %+v; want it ready, with nothing of the other's failure", c)
			}
			if err := <-a; err == nil {
				t.Error("the first was fetched")
			}
			if _, got := h.copyOf("a"); got.State != template.StateFailed || got.Code != c.code {
				t.Errorf("copy %+v; want it failed for %q", got, c.code)
			}
		})
	}
}

// signal closes a channel at the first progress.
func signal(ch chan struct{}) template.Progress {
	var once sync.Once
	return func(int64, int64) { once.Do(func() { close(ch) }) }
}

func TestEveryStateIsTold(t *testing.T) {
	h := newHost(t)
	content := raw(1, 1<<20)
	begun, proceed := make(chan struct{}), make(chan struct{})
	site := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		close(begun)
		<-proceed
		send(w, content)
	})
	var states []string
	o := h.options()
	o.Notify = func(t template.Template) {
		if s := t.Copies[0].State; len(states) == 0 || states[len(states)-1] != s {
			states = append(states, s)
		}
	}
	r, err := template.Open(o)
	must(t, err)
	h.Registry = r
	_, err = h.Register(t.Context(), spec("rocky9", site.URL, content))
	must(t, err)
	fetched := make(chan error, 1)
	go func() { fetched <- h.Fetch(t.Context(), "rocky9", nil) }()
	<-begun
	if _, c := h.copyOf("rocky9"); c.State != template.StateDownloading || c.Attempts != 1 || c.Partial == "" || c.Origin != site.URL {
		t.Errorf("while it is fetched: %+v", c)
	}
	close(proceed)
	must(t, <-fetched)
	want := []string{template.StatePending, template.StateDownloading, template.StateVerifying, template.StateReady}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Error(diff)
	}
}

func TestFetchOfUnknownAndRemoved(t *testing.T) {
	h := newHost(t)
	wantErr(t, h.Fetch(t.Context(), "rocky9", nil), template.ErrNotFound, "rocky9")
	_, err := h.Register(t.Context(), spec("rocky9", "https://images.example/x", []byte("x")))
	must(t, err)
	_, err = h.Remove(t.Context(), "rocky9")
	must(t, err)
	wantErr(t, h.Fetch(t.Context(), "rocky9", nil), template.ErrNotFound, "rocky9")
	_, _, err = h.OpenContent("rocky9")
	wantErr(t, err, template.ErrNotFound)
}

func TestFetchFromAFile(t *testing.T) {
	h := newHost(t)
	content := raw(1, 1<<20)
	path := filepath.Join(h.files, "image.raw")
	must(t, os.WriteFile(path, content, 0o600))
	h.ready(spec("rocky9", "file://"+path, content))

	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, content, 0o600))
	link := filepath.Join(h.files, "link.raw")
	must(t, os.Symlink(secret, link))
	pipe := filepath.Join(h.files, "pipe.raw")
	must(t, syscall.Mkfifo(pipe, 0o600))
	for id, path := range map[string]string{"link": link, "pipe": pipe, "folder": h.files + "/.", "absent": h.files + "/absent"} {
		s := spec(id, "file://"+path, raw(2, 512))
		_, err := h.Register(t.Context(), s)
		must(t, err)
		if err := h.Fetch(t.Context(), id, nil); err == nil {
			t.Errorf("%s was fetched", id)
		}
		if _, c := h.copyOf(id); c.State != template.StateFailed || c.Message == "" {
			t.Errorf("%s: %+v", id, c)
		}
	}
}
