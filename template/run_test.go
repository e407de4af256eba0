package template_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// until waits for what a registry tells of a template.
type until struct {
	t     testing.TB
	tells chan template.Template
}

func newUntil(t testing.TB) *until { return &until{t, make(chan template.Template, 1000)} }

func (u *until) notify(t template.Template) { u.tells <- t }

func (u *until) copy(what string, match func(template.Copy) bool) template.Copy {
	u.t.Helper()
	for {
		select {
		case t := <-u.tells:
			if i := slices.IndexFunc(t.Copies, match); i >= 0 {
				return t.Copies[i]
			}
		case <-time.After(30 * time.Second):
			u.t.Fatalf("never told: %s", what)
		}
	}
}

func (u *until) state(state string) template.Copy {
	u.t.Helper()
	return u.copy(state, func(c template.Copy) bool { return c.State == state })
}

// links is a fetcher that knows where URLs lead.
type links map[string]source.Origin

func (l links) Resolve(_ context.Context, r source.Request) (source.Resolved, error) {
	return source.Resolved{Origins: []source.Origin{l[r.URL]}, Size: -1}, nil
}

func (l links) Check(source.Request) error { return nil }

// flaky is an origin that is not there until it is well.
type flaky struct {
	memory
	well atomic.Bool
}

func newFlaky(content []byte) *flaky {
	return &flaky{memory: memory{name: "https://images.example/a", b: content, asked: &atomic.Int32{}}}
}

func (f *flaky) Open(ctx context.Context, at source.At) (source.Stream, error) {
	if !f.well.Load() {
		f.asked.Add(1)
		return source.Stream{}, fault.New(fault.Unreachable, "no route to it")
	}
	return f.memory.Open(ctx, at)
}

func specOf(id string, content []byte) template.Spec {
	return spec(id, "https://images.example/"+id, content)
}

// pass lets time pass, of which a bubble has as much as it wants, and waits
// for what happens then.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// Attempts come 1, 2, 4, 5 and 5 minutes after each failure, go on counting
// over a restart of the agent, and end with the first that succeeds.
func TestRetriesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, content := newHost(t), raw(1, 1<<20)
		f := newFlaky(content)
		h.change = func(o *template.Options) { o.Fetcher = links{"https://images.example/rocky9": f} }
		h.reopen()
		began := time.Now()
		must(t, errOf(h.Register(t.Context(), specOf("rocky9", content))))
		wantFault(t, h.Fetch(t.Context(), "rocky9", nil), fault.Unreachable, fault.Source)
		stop := running(t, h)
		for i, gap := range []time.Duration{1, 2, 4, 5, 5} {
			gap *= time.Minute
			_, c := h.copyOf("rocky9")
			if c.State != template.StateFailed || c.Attempts != i+1 || int(f.asked.Load()) != i+1 ||
				!c.RetryAt.Equal(time.Now().Add(gap)) || !c.FailedSince.Equal(began) {
				t.Fatalf("after attempt %d, %s from the first: %+v, asked %d times", i+1, time.Since(began), c, f.asked.Load())
			}
			if i == 2 {
				stop()
				h.reopen()
				stop = running(t, h)
			}
			f.well.Store(i == 4)
			pass(gap - time.Nanosecond)
			if n := int(f.asked.Load()); n != i+1 {
				t.Fatalf("attempt %d came early", n)
			}
			pass(time.Nanosecond)
		}
		if _, c := h.copyOf("rocky9"); c.State != template.StateReady || c.Attempts != 6 || c.FailedSince != nil || c.RetryAt != nil || c.Code != "" {
			t.Errorf("at last: %+v", c)
		}
	})
}

// What fell due while the agent was down is brought at once, but not all in
// the same instant.
func TestOverdueRetriesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, all := newHost(t), links{}
		h.change = func(o *template.Options) { o.Fetcher = all }
		h.reopen()
		for i, id := range []string{"a", "b", "c"} {
			content := raw(uint64(i), 4096)
			f := newFlaky(content)
			all["https://images.example/"+id] = f
			must(t, errOf(h.Register(t.Context(), specOf(id, content))))
			wantFault(t, h.Fetch(t.Context(), id, nil), fault.Unreachable, fault.Source)
			f.well.Store(true)
		}
		pass(time.Hour)
		h.reopen()
		running(t, h)
		synctest.Wait()
		for want := 1; want <= len(all); want++ {
			ready := 0
			for _, id := range []string{"a", "b", "c"} {
				if _, c := h.copyOf(id); c.State == template.StateReady {
					ready++
				}
			}
			if ready != want {
				t.Errorf("%d are ready, want %d", ready, want)
			}
			pass(time.Second)
		}
	})
}

func TestPermanentFailuresAreNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, content := newHost(t), raw(1, 4096)
		f := newFlaky(raw(2, 4096))
		f.well.Store(true)
		h.change = func(o *template.Options) { o.Fetcher = links{"https://images.example/rocky9": f} }
		h.reopen()
		must(t, errOf(h.Register(t.Context(), specOf("rocky9", content))))
		wantFault(t, h.Fetch(t.Context(), "rocky9", nil), fault.Checksum, fault.Source)
		h.reopen()
		running(t, h)
		pass(24 * time.Hour)
		if n := f.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		// Asking helps, and begins a new row.
		f.b = content
		must(t, h.Fetch(t.Context(), "rocky9", nil))
		if _, c := h.copyOf("rocky9"); c.State != template.StateReady || c.Attempts != 1 || c.Permanent {
			t.Errorf("copy %+v", c)
		}
	})
}

// A copy whose file is gone comes back by itself, and the time of its failure
// goes with it.
func TestLostCopyComesBack(t *testing.T) {
	h, u, content := newHost(t), newUntil(t), raw(1, 4096)
	h.change = func(o *template.Options) { o.Notify = u.notify }
	h.reopen()
	site := serveBytes(t, content)
	_, c := h.ready(spec("a", site.URL, content))
	running(t, h)
	replace(t, c.Path, raw(3, 4096))
	if _, _, err := h.OpenContent("a"); err == nil {
		t.Error("opened what is not the template")
	}
	missing := u.state(template.StateMissing)
	if missing.Code != fault.Changed || missing.Class != fault.Local || missing.FailedSince == nil || missing.Message == "" {
		t.Errorf("copy %+v", missing)
	}
	if c := u.state(template.StateReady); c.FailedSince != nil || c.Attempts != 1 || site.requests.Load() != 2 {
		t.Errorf("copy %+v, %d requests", c, site.requests.Load())
	}
	file, _, err := h.OpenContent("a")
	must(t, err)
	file.Close()
}

func TestDownloadsAtOnce(t *testing.T) {
	h, u := newHost(t), newUntil(t)
	h.change = func(o *template.Options) { o.Downloads, o.Notify = 1, u.notify }
	h.reopen()
	a, b := raw(1, 4096), raw(2, 4096)
	begun, proceed := make(chan struct{}), make(chan struct{})
	first := serve(t, func(w http.ResponseWriter, _ *http.Request) { close(begun); <-proceed; send(w, a) })
	second := serveBytes(t, b)
	must(t, errOf(h.Register(t.Context(), spec("a", first.URL, a))))
	must(t, errOf(h.Register(t.Context(), spec("b", second.URL, b))))
	ends := make(chan error, 2)
	go func() { ends <- h.Fetch(t.Context(), "a", nil) }()
	<-begun
	go func() { ends <- h.Fetch(t.Context(), "b", nil) }()
	waits := u.copy("waiting", func(c template.Copy) bool { return c.Message == "waiting: 1 downloads at once" })
	if waits.State != template.StatePending || second.requests.Load() != 0 {
		t.Errorf("%+v, %d requests", waits, second.requests.Load())
	}
	close(proceed)
	must(t, <-ends)
	must(t, <-ends)
	if diff := cmp.Diff([]int32{1, 1}, []int32{first.requests.Load(), second.requests.Load()}); diff != "" {
		t.Error(diff)
	}
}

// What cannot work does not wait behind what does, and what waits does not say
// why it failed before.
func TestHopelessDownloadsDoNotWait(t *testing.T) {
	h, u := newHost(t), newUntil(t)
	h.change = func(o *template.Options) { o.Downloads, o.Notify = 1, u.notify }
	h.reopen()
	a, b := raw(1, 4096), raw(2, 4096)
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/b" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	must(t, errOf(h.Register(t.Context(), spec("b", site.URL+"/b", b))))
	wantFault(t, h.Fetch(t.Context(), "b", nil), fault.HTTPStatus, fault.Source)
	begun, proceed := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(proceed) })
	t.Cleanup(release)
	first := serve(t, func(w http.ResponseWriter, _ *http.Request) { close(begun); <-proceed; send(w, a) })
	must(t, errOf(h.Register(t.Context(), spec("a", first.URL, a))))
	ends := make(chan error, 2)
	go func() { ends <- h.Fetch(t.Context(), "a", nil) }()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i, bad := range []struct {
		url, code string
		class     fault.Class
	}{
		{"httpsinvalid://images.example/c", fault.Scheme, fault.Policy},
		{"file:///elsewhere/c", fault.FileFolder, fault.Policy},
	} {
		content := raw(uint64(3+i), 4096)
		s := spec(bad.code, bad.url, content)
		must(t, errOf(h.Register(t.Context(), s)))
		wantFault(t, h.Fetch(ctx, s.ID, nil), bad.code, bad.class)
		if _, c := h.copyOf(s.ID); c.State != template.StateFailed || c.Attempts != 1 || c.RetryAt == nil {
			t.Errorf("copy %+v; want it failed, and tried again", c)
		}
		// A file that lies there is found all the same, in its turn.
		must(t, os.WriteFile(filepath.Join(h.pool, published(content, "raw")), content, 0o444))
		defer func() {
			must(t, h.Fetch(t.Context(), s.ID, nil))
		}()
	}
	go func() { ends <- h.Fetch(t.Context(), "b", nil) }()
	waits := u.copy("waiting", func(c template.Copy) bool { return c.Message == "waiting: 1 downloads at once" })
	if waits.State != template.StatePending || waits.Code != "" || waits.Class != "" {
		t.Errorf("%+v waits; want no fault of an attempt that is over", waits)
	}
	release()
	if err := errors.Join(<-ends, <-ends); err == nil || fault.Of(err).Code != fault.HTTPStatus {
		t.Errorf("ended with %v", err)
	}
}

// Removing a template takes the download of it down.
func TestRemoveWhileFetched(t *testing.T) {
	h, content := newHost(t), raw(1, 4<<20)
	begun := make(chan struct{})
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4194304")
		send(w, content[:2<<20])
		w.(http.Flusher).Flush()
		close(begun)
		<-r.Context().Done()
	})
	_, err := h.Register(t.Context(), spec("rocky9", site.URL, content))
	must(t, err)
	fetched := make(chan error, 1)
	go func() { fetched <- h.Fetch(t.Context(), "rocky9", nil) }()
	<-begun
	got, err := h.Remove(t.Context(), "rocky9")
	must(t, err)
	if !got.Removed() || len(got.Copies) != 0 {
		t.Errorf("removed as %+v", got)
	}
	wantErr(t, <-fetched, template.ErrNotFound)
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("left in the pool: %v", left)
	}
	// The id can be used again at once.
	must(t, errOf(h.Register(t.Context(), spec("rocky9", serveBytes(t, content).URL, content))))
	must(t, h.Fetch(t.Context(), "rocky9", nil))
}

func errOf(_ template.Template, err error) error { return err }

// A copy that is ready stays ready, and is not held up, while others are
// downloaded.
func TestReadyNeedsNoPlaceAmongDownloads(t *testing.T) {
	h := newHost(t)
	h.change = func(o *template.Options) { o.Downloads = 1 }
	h.reopen()
	a, b := raw(1, 4096), raw(2, 4096)
	h.ready(spec("a", serveBytes(t, a).URL, a))
	begun, proceed := make(chan struct{}), make(chan struct{})
	site := serve(t, func(w http.ResponseWriter, _ *http.Request) { close(begun); <-proceed; send(w, b) })
	must(t, errOf(h.Register(t.Context(), spec("b", site.URL, b))))
	ended := make(chan error, 1)
	go func() { ended <- h.Fetch(t.Context(), "b", nil) }()
	<-begun
	must(t, h.Fetch(t.Context(), "a", nil))
	if _, c := h.copyOf("a"); c.State != template.StateReady || c.Message != "" {
		t.Errorf("copy %+v", c)
	}
	close(proceed)
	must(t, <-ended)
}

// failing is a store that takes nothing more after so many writes.
type failing struct {
	template.Store
	left int
}

var errFull = errors.New("the store is full")

func (f *failing) Put(bucket, key string, value []byte) error {
	if f.left--; f.left < 0 {
		return errFull
	}
	return f.Store.Put(bucket, key, value)
}

// Wherever the store fails, the fetch does too: nothing is left half, and no
// copy seems to be under way for ever.
func TestStoreThatFails(t *testing.T) {
	content := raw(1, 4096)
	site := serveBytes(t, content)
	for writes := 1; ; writes++ {
		h := newHost(t)
		h.store = &failing{h.store, writes}
		h.reopen()
		must(t, errOf(h.Register(t.Context(), spec("a", site.URL, content))))
		err := h.Fetch(t.Context(), "a", nil)
		if err == nil {
			if writes < 6 {
				t.Errorf("only %d writes", writes)
			}
			return
		}
		wantErr(t, err, errFull)
		if _, c := h.copyOf("a"); c.State != template.StateFailed || c.Class != fault.Local || c.RetryAt == nil {
			t.Errorf("after %d writes: %+v", writes, c)
		}
		for _, name := range h.inPool() {
			if name != published(content, "raw") {
				t.Errorf("after %d writes: %s is left", writes, name)
			}
		}
	}
}

// running runs a registry's own attempts until the end of the test, or until
// stop is called, which is the end of the agent.
func running(t testing.TB, h *host) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	r := h.Registry
	go func() { r.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}
