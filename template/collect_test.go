package template_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

// collected is a host that is told what its volumes stand on.
type collected struct {
	*host
	keep    template.Keeping
	space   template.Space // in KiB
	shared  bool
	chains  func(context.Context) (template.Chains, error)
	asked   int // how often the chains were read
	reasons []string
	now     time.Time
}

func newCollected(t testing.TB) *collected {
	h := &collected{host: newHost(t), space: template.Space{Free: 50, Capacity: 100}, now: start}
	h.chains = func(context.Context) (template.Chains, error) { return template.Chains{}, nil }
	h.change = func(o *template.Options) {
		o.Now = func() time.Time { return h.now }
		pools := o.Pools
		o.Pools = func(ctx context.Context) ([]template.Pool, error) {
			all, err := pools(ctx)
			for i := range all {
				all[i].Shared = h.shared
			}
			return all, err
		}
		o.Tending.Keep = h.keep
		o.Tending.Space = func(string) (template.Space, error) {
			return template.Space{Free: h.space.Free << 10, Capacity: h.space.Capacity << 10}, nil
		}
		o.Tending.Chains = func(ctx context.Context) (template.Chains, error) { h.asked++; return h.chains(ctx) }
		o.Tending.Collected = func(reason string) { h.reasons = append(h.reasons, reason) }
	}
	h.reopen()
	return h
}

// stands has a volume that the store does not know stand on the file.
func (h *collected) stands(path string) {
	use := template.Use{Instance: "vm", Disk: "vda", Volume: "/elsewhere/vm.qcow2",
		Layers: []template.File{{Path: "/elsewhere/vm.qcow2"}, template.FileAt(path)}}
	h.chains = func(context.Context) (template.Chains, error) { return template.Chains{Uses: []template.Use{use}}, nil }
}

func (h *collected) free() {
	h.chains = func(context.Context) (template.Chains, error) { return template.Chains{}, nil }
}

func there(path string) bool { _, err := os.Lstat(path); return err == nil }

// A removed template's file goes when nothing stands on it any more: not by
// the store, and not by what is found.
func TestTombstonesAreCollected(t *testing.T) {
	h, content := newCollected(t), raw(1, 4096)
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	must(t, h.AddRef(t.Context(), "a", ref("/pool/x")))
	h.stands(c.Path)
	must(t, errOf(h.Remove(t.Context(), "a")))
	if h.asked != 0 {
		t.Error("the chains were read although the store knows of a volume")
	}
	must(t, h.RemoveRef(t.Context(), "/pool/x"))
	_, c = h.copyOf("a")
	if !there(c.Path) || c.State != template.StateReady || !strings.Contains(c.Message, "/elsewhere/vm.qcow2") {
		t.Fatalf("a volume stands on it, that the store does not know: %+v", c)
	}
	// Nothing may stand on it, as far as can be seen, which is not far enough.
	h.chains = func(context.Context) (template.Chains, error) {
		return template.Chains{Unread: []string{`instance "vm2": no answer`}}, nil
	}
	if err := h.Collect(t.Context()); err == nil || !there(c.Path) {
		t.Errorf("not everything was read: %v", err)
	}
	if _, c := h.copyOf("a"); !strings.Contains(c.Message, `instance "vm2": no answer`) {
		t.Errorf("message %q", c.Message)
	}
	away := errors.New("libvirt is away")
	h.chains = func(context.Context) (template.Chains, error) { return template.Chains{}, away }
	if err := h.Collect(t.Context()); !errors.Is(err, away) || !there(c.Path) {
		t.Errorf("nothing was read: %v", err)
	}
	h.reopen()
	h.free()
	must(t, h.Collect(t.Context()))
	if got, _ := h.Get("a"); there(c.Path) || len(got.Copies) != 0 || !got.Removed() {
		t.Errorf("tombstone %+v", got)
	}
	if d := cmp.Diff([]string{template.ReasonRemoved}, h.reasons); d != "" {
		t.Errorf("reasons: %s", d)
	}
	asked := h.asked
	must(t, h.Collect(t.Context()))
	if h.asked != asked {
		t.Error("the chains are read although there is nothing to delete")
	}
}

// Removing answers, and the template is removed, also where the file has to
// stay for now.
func TestRemoveWithoutLibvirt(t *testing.T) {
	h, content := newCollected(t), raw(1, 4096)
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	h.chains = func(context.Context) (template.Chains, error) {
		return template.Chains{}, errors.New("libvirt is away")
	}
	got, err := h.Remove(t.Context(), "a")
	if must(t, err); !got.Removed() || len(got.Copies) != 1 || !there(c.Path) || !strings.Contains(got.Copies[0].Message, "libvirt is away") {
		t.Errorf("removed %+v", got)
	}
	// Other content under the same id would forget the file.
	_, err = h.Register(t.Context(), spec("a", "https://images.example/a", []byte("other")))
	wantErr(t, err, template.ErrConflict)
	h.free()
	must(t, h.Collect(t.Context()))
	must(t, errOf(h.Register(t.Context(), spec("a", "https://images.example/a", []byte("other")))))
}

// An unused copy goes by its age, says so, and is not brought again by itself,
// but by whoever needs it.
func TestUnusedCopiesAreCollected(t *testing.T) {
	for name, set := range map[string]func(h *collected){
		template.ReasonAge:   func(h *collected) { h.keep.UnusedAge = 24 * time.Hour },
		template.ReasonSpace: func(h *collected) { h.keep.MinFree, h.space.Free = 60, 50 },
	} {
		t.Run(name, func(t *testing.T) {
			h, content := newCollected(t), raw(1, 4096)
			set(h)
			h.reopen()
			site := serveBytes(t, content)
			_, c := h.ready(spec("a", site.URL, content))
			must(t, h.AddRef(t.Context(), "a", ref("/pool/x")))
			h.now = h.now.Add(48 * time.Hour)
			must(t, h.Collect(t.Context()))
			if !there(c.Path) {
				t.Fatal("it went under a volume")
			}
			must(t, h.RemoveRef(t.Context(), "/pool/x")) // its age begins
			must(t, h.Collect(t.Context()))
			if !there(c.Path) {
				t.Fatal("it went as soon as nothing stood on it")
			}
			h.now = h.now.Add(48 * time.Hour)
			h.stands(c.Path)
			must(t, h.Collect(t.Context()))
			if !there(c.Path) {
				t.Fatal("it went under a volume that the store does not know")
			}
			asked := h.asked
			must(t, h.Collect(t.Context()))
			if h.asked != asked {
				t.Error("the chains are read at each look")
			}
			left := h.now // when it was last seen to be used
			h.free()
			h.now = h.now.Add(48 * time.Hour)
			must(t, h.Collect(t.Context()))
			got, gone := h.copyOf("a")
			if there(c.Path) || gone.State != template.StatePending || !gone.Collected || gone.Path != "" || gone.RetryAt != nil || gone.FailedSince != nil || got.Removed() {
				t.Fatalf("copy %+v", gone)
			}
			for _, part := range []string{h.now.Format(time.RFC3339), left.Format(time.RFC3339), "fetched again"} {
				if !strings.Contains(gone.Message, part) {
					t.Errorf("message %q lacks %q", gone.Message, part)
				}
			}
			if !slices.Equal(h.reasons, []string{name}) {
				t.Errorf("reasons %q", h.reasons)
			}
			wantErr(t, h.AddRef(t.Context(), "a", ref("/pool/y")), template.ErrNotReady)

			h.reopen()
			if _, c := h.copyOf("a"); c.RetryAt != nil || c.Message != gone.Message {
				t.Errorf("after a restart: %+v", c)
			}
			must(t, h.Fetch(t.Context(), "a", nil))
			if _, c := h.copyOf("a"); c.State != template.StateReady || c.Collected || c.Message != "" || site.requests.Load() != 2 {
				t.Errorf("copy %+v after %d requests", c, site.requests.Load())
			}
		})
	}
}

// What goes is not brought again by Run, however long it runs.
func TestCollectedStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, content := newCollected(t), raw(1, 4096)
		h.keep.UnusedAge = time.Hour
		before := h.change
		h.change = func(o *template.Options) {
			before(o)
			o.Now = time.Now
			o.Fetcher = links{"https://images.example/rocky9": memory{name: "https://images.example/rocky9", b: content}}
		}
		h.reopen()
		h.ready(specOf("rocky9", content))
		running(t, h.host)
		pass(2 * time.Hour)
		must(t, h.Collect(t.Context()))
		pass(24 * time.Hour)
		if _, c := h.copyOf("rocky9"); c.State != template.StatePending || !c.Collected {
			t.Errorf("copy %+v", c)
		}
	})
}

func TestCopiesThatAreNotCollected(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(h *collected, c template.Copy)
		spec func(*template.Spec)
	}{
		{"on storage that other hosts have", func(h *collected, _ template.Copy) { h.shared = true }, nil},
		{"nowhere to fetch it from", nil, func(s *template.Spec) { s.URL, s.SyncFrom = "", "https://peer:8470" }},
		{"a process has it open", func(h *collected, c template.Copy) {
			file, err := os.Open(c.Path)
			must(h.t, err)
			h.t.Cleanup(func() { file.Close() })
		}, nil},
		{"it is not ours", func(h *collected, c template.Copy) {
			b, err := os.ReadFile(c.Path)
			must(h.t, err)
			must(h.t, errOf(h.Remove(h.t.Context(), "a")))
			must(h.t, os.WriteFile(c.Path, b, 0o600))
			must(h.t, errOf(h.Register(h.t.Context(), spec("a", "https://images.example/a", b))))
			must(h.t, h.Fetch(h.t.Context(), "a", nil))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, content := newCollected(t), raw(1, 4096)
			h.keep = template.Keeping{UnusedAge: time.Hour, MinFree: 60}
			h.reopen()
			s := spec("a", serveBytes(t, content).URL, content)
			if c.spec != nil {
				c.spec(&s)
				h.peers = append(h.peers, memory{name: "peer", b: content})
			}
			_, ready := h.ready(s)
			if c.make != nil {
				c.make(h, ready)
			}
			h.now = h.now.Add(48 * time.Hour)
			err := h.Collect(t.Context())
			if _, now := h.copyOf("a"); now.State != template.StateReady || !there(ready.Path) {
				t.Errorf("copy %+v, %v", now, err)
			}
		})
	}
}

// A volume comes to stand on the copy after it was found unused, and before it
// is deleted.
func TestRefBetweenDecisionAndUnlink(t *testing.T) {
	for name, keep := range map[string]template.Keeping{"age": {UnusedAge: time.Hour}, "removed": {}} {
		t.Run(name, func(t *testing.T) {
			h, content := newCollected(t), raw(1, 4096)
			h.keep = keep
			h.reopen()
			_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
			h.now = h.now.Add(48 * time.Hour)
			h.chains = func(context.Context) (template.Chains, error) {
				return template.Chains{}, h.AddRef(t.Context(), "a", ref("/pool/x"))
			}
			if name == "removed" {
				must(t, errOf(h.Remove(t.Context(), "a")))
			} else {
				must(t, h.Collect(t.Context()))
			}
			if _, now := h.copyOf("a"); now.State != template.StateReady || !there(c.Path) || len(h.RefsOf("a")) != 1 || len(h.reasons) != 0 {
				t.Errorf("copy %+v", now)
			}
		})
	}
}

// A fetch begins after the copy was found unused: for another pool, from this
// very file.
func TestFetchBetweenDecisionAndUnlink(t *testing.T) {
	h, content := newCollected(t), raw(1, 4096)
	h.keep.UnusedAge = time.Hour
	began, proceed := make(chan struct{}), make(chan struct{})
	before := h.change
	h.change = func(o *template.Options) {
		before(o)
		o.Received = func(string, int64) { close(began); <-proceed }
	}
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	h.reopen()
	h.now = h.now.Add(48 * time.Hour)
	other := spec("a", "https://images.example/a", content)
	other.Pool = "other"
	must(t, errOf(h.Register(t.Context(), other)))
	ended := make(chan error, 1)
	h.chains = func(context.Context) (template.Chains, error) {
		go func() { ended <- h.Fetch(t.Context(), "a", nil) }()
		<-began
		return template.Chains{}, nil
	}
	must(t, h.Collect(t.Context()))
	if !there(c.Path) {
		t.Error("the file went while it was read")
	}
	close(proceed)
	must(t, <-ended)
}

// noted calls out before it writes.
type noted struct {
	template.Store
	put func()
}

func (n *noted) Put(bucket, key string, value []byte) error {
	n.put()
	return n.Store.Put(bucket, key, value)
}

// Whoever got a ref has a file to put a volume on, wherever in a pass of
// collecting they came; and what was on its way out is promised to nobody.
func TestRefsRaceWithCollecting(t *testing.T) {
	h, content := newCollected(t), raw(1, 4096)
	h.keep.UnusedAge = time.Nanosecond
	var adding sync.WaitGroup
	var added error
	add := func() { adding.Go(func() { added = h.AddRef(t.Context(), "a", ref("/pool/x")) }) }
	puts := &noted{Store: h.store}
	h.store = puts
	h.reopen()
	site := serveBytes(t, content)
	puts.put = func() {}
	_, c := h.ready(spec("a", site.URL, content))
	for _, point := range []struct {
		name  string
		put   int  // at which write of the pass it comes; 0: while the chains are read
		loses bool // it is too late by then
	}{
		{"it is found unused", 0, false},
		{"the note that it goes is written", 1, true},
		{"the file is gone", 2, true},
	} {
		for range 5 {
			h.now, added = h.now.Add(48*time.Hour), errors.New("nobody asked")
			h.chains = func(context.Context) (template.Chains, error) {
				if point.put == 0 {
					add()
				}
				return template.Chains{}, nil
			}
			written := 0
			puts.put = func() {
				// Those of the adding itself come later, or in point 0.
				if written++; written == point.put {
					add()
				}
			}
			must(t, h.Collect(t.Context()))
			adding.Wait()
			puts.put = func() {}
			switch {
			case added == nil && (point.loses || !there(c.Path)):
				t.Fatalf("%s: a volume was promised a file that is gone", point.name)
			case added == nil:
				must(t, h.RemoveRef(t.Context(), "/pool/x"))
			case !errors.Is(added, template.ErrNotReady):
				t.Fatalf("%s: %v", point.name, added)
			case there(c.Path):
				t.Fatalf("%s: there is a file, and a volume may not stand on it", point.name)
			default:
				must(t, h.Fetch(t.Context(), "a", nil))
			}
		}
	}
}

// Two copies go in one pass, and a volume comes to stand on the second while
// the first is deleted.
func TestRefAfterTheDecision(t *testing.T) {
	h := newCollected(t)
	h.keep.UnusedAge = time.Hour
	before := h.change
	h.change = func(o *template.Options) {
		before(o)
		o.Tending.Collected = func(string) { must(t, h.AddRef(t.Context(), "b", ref("/pool/x"))) }
	}
	h.reopen()
	paths := map[string]string{}
	for i, id := range []string{"a", "b"} {
		content := raw(uint64(i), 4096)
		_, c := h.ready(spec(id, serveBytes(t, content).URL, content))
		paths[id] = c.Path
	}
	h.now = h.now.Add(48 * time.Hour)
	must(t, h.Collect(t.Context()))
	if there(paths["a"]) || !there(paths["b"]) {
		t.Errorf("a is there: %t, b: %t", there(paths["a"]), there(paths["b"]))
	}
}

// The agent stops between the note that a copy goes and its unlink: the file is
// whole, and is deleted or used, whichever comes first.
func TestCrashWhileCollecting(t *testing.T) {
	for name, then := range map[string]func(t *testing.T, h *collected, path string){
		"deleted": func(t *testing.T, h *collected, path string) {
			must(t, h.Collect(t.Context()))
			if there(path) {
				t.Error("it stays")
			}
		},
		"used": func(t *testing.T, h *collected, _ string) { must(t, h.Fetch(t.Context(), "a", nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			h, content := newCollected(t), raw(1, 4096)
			h.keep.UnusedAge = time.Hour
			h.reopen()
			site := serveBytes(t, content)
			_, c := h.ready(spec("a", site.URL, content))
			h.now = h.now.Add(48 * time.Hour)
			h.rewrite(func(c *template.Copy) { c.State, c.Collected = template.StatePending, true })
			if _, now := h.copyOf("a"); now.State != template.StatePending || now.Path != c.Path || now.RetryAt != nil || !there(c.Path) {
				t.Fatalf("copy %+v", now)
			}
			then(t, h, c.Path)
			if site.requests.Load() != 1 {
				t.Error("it was fetched although it was there")
			}
		})
	}
}

// Where the folder lets nothing go, the copy stays what it is.
func TestCollectInAnImmutableFolder(t *testing.T) {
	h, content := newCollected(t), raw(1, 4096)
	h.keep.UnusedAge = time.Hour
	h.reopen()
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	h.now = h.now.Add(48 * time.Hour)
	thaw := frozen(t, h.pool)
	wantFault(t, h.Collect(t.Context()), fault.ReadOnly, fault.Local, "immutable")
	if _, now := h.copyOf("a"); now.State != template.StateReady {
		t.Errorf("copy %+v", now)
	}
	must(t, errOf(h.Remove(t.Context(), "a")))
	if _, now := h.copyOf("a"); !strings.Contains(now.Message, "immutable") {
		t.Errorf("copy %+v", now)
	}
	thaw()
	must(t, h.Collect(t.Context()))
	if there(c.Path) {
		t.Error("it stays")
	}
}

// Who looks into the file while its template is removed, as whoever reads the
// chains does, is done in a moment. Who stays keeps it, and is named.
func TestRemoveWhileSomebodyLooks(t *testing.T) {
	for name, tt := range map[string]struct {
		looks int
		stays bool
	}{"briefly": {1, false}, "for long": {1000, true}} {
		t.Run(name, func(t *testing.T) {
			h, content, looks := newCollected(t), raw(1, 4096), tt.looks
			change := h.change
			var file *os.File
			h.change = func(o *template.Options) {
				change(o)
				// The clock only goes on while somebody waits.
				o.After = func(time.Duration) <-chan time.Time {
					if looks--; looks == 0 {
						file.Close()
					}
					now := make(chan time.Time, 1)
					now <- h.now
					return now
				}
			}
			h.reopen()
			_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
			var err error
			file, err = os.Open(c.Path)
			must(t, err)
			defer file.Close()
			must(t, errOf(h.Remove(t.Context(), "a")))
			if there(c.Path) != tt.stays {
				t.Errorf("the file is there: %t; want %t", there(c.Path), tt.stays)
			}
			if got, err := h.Get("a"); err != nil || tt.stays && !strings.Contains(got.Copies[0].Message, "open somewhere") {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// Files with names of ours that belong to no copy are listed, and stay.
func TestUnowned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTended(t)
		h.serve(raw(1, 4096))
		stray := filepath.Join(h.pool, "wherry-template-"+strings.Repeat("0", 64)+".qcow2")
		must(t, os.WriteFile(stray, make([]byte, 8192), 0o600))
		must(t, os.Rename(stray, stray+".foreign-X"))
		must(t, os.WriteFile(stray, make([]byte, 8192), 0o600))
		half := filepath.Join(h.other, ".wherry-template-X.partial")
		must(t, os.Mkdir(half, 0o700))
		must(t, os.WriteFile(filepath.Join(half, "image"), make([]byte, 4096), 0o600))
		must(t, os.WriteFile(filepath.Join(h.pool, "vm.qcow2"), nil, 0o600))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.Tend(ctx)
		synctest.Wait()
		got := map[string]string{}
		for _, u := range h.Unowned() {
			if u.Bytes < 4096 || u.ModifiedAt.IsZero() || !there(u.Path) {
				t.Errorf("unowned %+v", u)
			}
			got[u.Path] = u.Kind + " " + u.Pool
		}
		want := map[string]string{stray: "template default", stray + ".foreign-X": "foreign default", half: "partial other"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("unowned (-want +got): %s", d)
		}
		must(t, os.Remove(stray))
		pass(template.DefaultCollectInterval)
		if got := h.Unowned(); len(got) != 2 {
			t.Errorf("unowned %+v", got)
		}
	})
}

// On storage that other hosts have, what is not ours may well be theirs.
func TestUnownedOnSharedStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newCollected(t)
		h.shared = true
		must(t, os.WriteFile(filepath.Join(h.pool, "wherry-template-X.raw"), nil, 0o600))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.Tend(ctx)
		synctest.Wait()
		if got := h.Unowned(); len(got) != 0 {
			t.Errorf("unowned %+v", got)
		}
	})
}

// Two ids have one file, which goes with the second of them.
func TestOneFileOfTwoIsCollected(t *testing.T) {
	h, content := newCollected(t), raw(1, 4096)
	h.keep.UnusedAge = time.Hour
	h.reopen()
	url := serveBytes(t, content).URL
	h.ready(spec("a", url, content))
	_, c := h.ready(spec("b", url, content))
	must(t, h.AddRef(t.Context(), "b", ref("/pool/x")))
	h.now = h.now.Add(48 * time.Hour)
	must(t, h.Collect(t.Context()))
	if _, a := h.copyOf("a"); a.State != template.StateReady || !there(c.Path) {
		t.Errorf("a volume stands on the file: %+v", a)
	}
	must(t, h.RemoveRef(t.Context(), "/pool/x"))
	h.now = h.now.Add(48 * time.Hour)
	must(t, h.Collect(t.Context()))
	for _, id := range []string{"a", "b"} {
		if _, c := h.copyOf(id); c.State != template.StatePending || !c.Collected {
			t.Errorf("%s: %+v", id, c)
		}
	}
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("pool: %v", left)
	}
}
