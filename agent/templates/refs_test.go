package templates_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

// host is what a test says that the disks of this host stand on.
type host struct {
	mu     sync.Mutex
	chains template.Chains
	err    error
	reads  int
	asked  []string
}

func (h *host) Read(_ context.Context, volumes ...string) (template.Chains, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	h.asked = volumes
	out := h.chains
	out.Uses = slices.Clone(out.Uses)
	return out, h.err
}

// refWorld is a host whose one template has refs.
type refWorld struct {
	*world
	host
	copy   string
	log    bytes.Buffer
	events []api.Event
	now    time.Time
	dir    record.Dir
}

func newRefWorld(t *testing.T) *refWorld {
	w := &refWorld{world: newWorld(t), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), dir: record.Dir(t.TempDir())}
	w.copy = w.ready("rocky9", []byte("content")).Copies[0].Path
	w.Refs = templates.NewRefs(templates.RefsOptions{Registry: w.Registry, Chains: &w.host, Records: w.dir,
		Publish: func(e api.Event) { w.events = append(w.events, e) }, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Now: func() time.Time { return w.now }})
	return w
}

// record notes a ref as creating an instance does.
func (w *refWorld) record(volume, instance string) {
	w.t.Helper()
	must(w.t, w.PutRef(w.t.Context(), "rocky9", w.copy, api.TemplateRef{Project: "default", Instance: instance, Disk: "vda", Volume: volume}))
}

func (w *refWorld) found(volume, instance string) {
	w.chains.Uses = append(w.chains.Uses, template.Use{Project: "default", Instance: instance, Disk: "vda", Volume: volume,
		Layers: []template.File{template.FileAt(volume), template.FileAt(w.copy)}})
}

func (w *refWorld) refs() string {
	w.t.Helper()
	got, err := w.Get(w.t.Context(), "rocky9")
	must(w.t, err)
	var out []string
	for _, r := range got.Refs {
		out = append(out, strings.TrimSpace(strings.Join([]string{filepath.Base(r.Volume), r.Instance, r.Known, r.Pool}, " ")))
	}
	return strings.Join(out, ", ")
}

// later lets time go by and looks anew.
func (w *refWorld) later(d time.Duration) {
	w.t.Helper()
	w.now = w.now.Add(d)
	must(w.t, w.Refs.Refresh(w.t.Context()))
}

// Refs are told with who knows of them: the store, the chains, or both.
func TestRefsOfBothWitnesses(t *testing.T) {
	w := newRefWorld(t)
	w.record("/images/a.qcow2", "a")
	w.found("/images/a.qcow2", "a")
	w.record("/images/b.qcow2", "b")
	w.found("/images/c.qcow2", "c")
	w.chains.Uses = append(w.chains.Uses, template.Use{Instance: "d", Volume: "/images/d.qcow2", Layers: []template.File{{Path: "/images/d.qcow2"}, {Path: "/elsewhere"}}})
	if got, want := w.refs(), "a.qcow2 a both default, b.qcow2 b recorded default, c.qcow2 c found default"; got != want {
		t.Errorf("refs %q; want %q", got, want)
	}
	list, err := w.List(t.Context())
	if must(t, err); len(list.Templates[0].Refs) != 3 {
		t.Errorf("listed %+v", list.Templates[0].Refs)
	}
	if !slices.Equal(w.asked, []string{"/images/a.qcow2", "/images/b.qcow2"}) {
		t.Errorf("asked for volumes %q", w.asked)
	}
}

// A volume that the definition names through a link is the recorded one.
func TestRefsThroughALink(t *testing.T) {
	w := newRefWorld(t)
	dir := t.TempDir()
	volume, link := filepath.Join(dir, "vm.qcow2"), filepath.Join(dir, "link.qcow2")
	must(t, os.WriteFile(volume, nil, 0o600))
	must(t, os.Symlink(volume, link))
	w.record(volume, "vm")
	w.found(link, "vm")
	if got := w.refs(); got != "vm.qcow2 vm both default" {
		t.Errorf("refs %q", got)
	}
}

// Of two templates with the same bytes one file exists, and a volume on it is
// told once: at the one that it is recorded for, else at the first.
func TestRefsOfASharedFile(t *testing.T) {
	w := newRefWorld(t)
	w.ready("another", []byte("content"))
	w.record("/images/a.qcow2", "a")
	w.found("/images/a.qcow2", "a")
	w.found("/images/c.qcow2", "c")
	other, err := w.Get(t.Context(), "another")
	must(t, err)
	if got := w.refs(); got != "a.qcow2 a both default" || len(other.Refs) != 1 || other.Refs[0].Volume != "/images/c.qcow2" {
		t.Errorf("refs %q and %+v", got, other.Refs)
	}
}

// Nothing is read again while nothing happens, and what happens is seen at once.
func TestRefsAreReadWhenSomethingHappens(t *testing.T) {
	w := newRefWorld(t)
	w.refs()
	w.refs()
	if w.reads != 1 {
		t.Errorf("read %d times", w.reads)
	}
	w.record("/images/a.qcow2", "a")
	w.found("/images/a.qcow2", "a")
	if got := w.refs(); got != "a.qcow2 a both default" {
		t.Errorf("refs %q", got)
	}
	w.chains = template.Chains{}
	must(t, w.DropRef(t.Context(), "/images/a.qcow2"))
	if got := w.refs(); got != "" {
		t.Errorf("refs %q", got)
	}
	w.found("/images/b.qcow2", "b")
	w.Refs.Changed()
	if got := w.refs(); got != "b.qcow2 b found default" {
		t.Errorf("refs %q", got)
	}
}

// While libvirt is away what was known stays, readers do not wait for it again
// and again, and it is said once.
func TestRefsWithoutLibvirt(t *testing.T) {
	w := newRefWorld(t)
	w.found("/images/c.qcow2", "c")
	w.refs()
	w.err = errors.New("libvirt is away")
	for range 3 {
		w.Refs.Changed()
		if got := w.refs(); got != "c.qcow2 c found default" {
			t.Errorf("refs %q", got)
		}
	}
	if w.reads != 2 {
		t.Errorf("read %d times", w.reads)
	}
	if err := w.Refs.Refresh(t.Context()); !errors.Is(err, w.err) {
		t.Errorf("error %v", err)
	}
	if _, unread := w.Refs.Counts(); unread != 1 || strings.Count(w.log.String(), "libvirt is away") != 1 {
		t.Errorf("%d unread; log:\n%s", unread, &w.log)
	}
	w.err = nil
	w.chains.Unread = []string{"instance \"x\": one", "instance \"y\": two"}
	w.later(time.Minute)
	w.later(time.Minute)
	if _, unread := w.Refs.Counts(); unread != 2 || strings.Count(w.log.String(), "not every disk") != 1 {
		t.Errorf("%d unread; log:\n%s", unread, &w.log)
	}
}

// A disagreement is told once, when it has lasted, and again if it comes back.
func TestDisagreements(t *testing.T) {
	w := newRefWorld(t)
	w.record("/images/b.qcow2", "b")
	w.found("/images/c.qcow2", "c")
	count := func(want int) {
		t.Helper()
		if n, _ := w.Refs.Counts(); n != want {
			t.Errorf("%d disagreements; want %d", n, want)
		}
	}
	w.later(0)
	w.later(59 * time.Second)
	if count(0); len(w.events) != 0 {
		t.Errorf("told at once: %+v", w.events)
	}
	w.later(time.Second)
	w.later(time.Hour / 2)
	count(2)
	told := map[string]string{}
	for _, e := range w.events {
		if e.Kind != "template" || e.Template == nil || e.Template.ID != "rocky9" || e.Template.Pool != "default" || e.Detail == "" || !e.At.Equal(w.now.Add(-time.Hour/2)) {
			t.Errorf("event %+v, %+v", e, e.Template)
		}
		told[e.Template.Volume] = e.Template.State + " " + e.Instance
	}
	if len(w.events) != 2 || told["/images/b.qcow2"] != "recorded b" || told["/images/c.qcow2"] != "found c" {
		t.Errorf("told %v in %d events", told, len(w.events))
	}
	if n := strings.Count(w.log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings:\n%s", n, &w.log)
	}
	w.chains.Uses = nil
	must(t, w.DropRef(t.Context(), "/images/b.qcow2"))
	w.later(time.Minute)
	count(0)
	w.found("/images/c.qcow2", "c")
	w.later(time.Minute)
	w.later(time.Minute)
	if count(1); len(w.events) != 3 {
		t.Errorf("%d events; one came back", len(w.events))
	}
}

// A ref whose volume and instance are both gone goes after a while; one that
// has either, or of which not everything could be read, stays.
func TestStaleRefs(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(w *refWorld)
		goes bool
	}{
		{"both are gone", func(*refWorld) {}, true},
		{"the instance is there", func(w *refWorld) {
			w.chains.Uses = []template.Use{{Project: "default", Instance: "vm", Disk: "vdb", Volume: "/images/other"}}
		}, false},
		{"an instance of another project is there", func(w *refWorld) {
			w.chains.Uses = []template.Use{{Project: "blue", Instance: "vm", Disk: "vdb", Volume: "/images/other"}}
		}, true},
		{"the record is there", func(w *refWorld) { must(t, w.dir.Write(api.Record{Project: "default", Name: "vm", UUID: "u"})) }, false},
		{"the record cannot be read", func(w *refWorld) {
			must(t, os.MkdirAll(filepath.Join(string(w.dir), "default", "vm.yaml"), 0o700))
		}, false},
		{"the volume may only not be mounted", func(w *refWorld) { w.chains.Gone = nil }, false},
		{"not everything was read", func(w *refWorld) { w.chains.Unread = []string{"something"} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRefWorld(t)
			w.record("/images/vm.qcow2", "vm")
			w.chains.Gone = []string{"/images/vm.qcow2"}
			c.make(w)
			w.later(0)
			w.later(59 * time.Minute)
			if w.refs() != "vm.qcow2 vm recorded default" {
				t.Errorf("refs %q; it has not been gone for long", w.refs())
			}
			w.events = nil
			w.later(time.Minute)
			if gone := w.refs() == ""; gone != c.goes {
				t.Errorf("gone: %v", gone)
			}
			if dropped := len(w.events) == 1 && w.events[0].Template.State == "" && w.events[0].Template.Volume == "/images/vm.qcow2"; dropped != c.goes {
				t.Errorf("events %+v", w.events)
			}
		})
	}
	t.Run("it comes back", func(t *testing.T) {
		w := newRefWorld(t)
		w.record("/images/vm.qcow2", "vm")
		w.chains.Gone = []string{"/images/vm.qcow2"}
		w.later(0)
		gone := w.chains.Gone
		w.chains.Gone = nil
		w.later(30 * time.Minute)
		w.chains.Gone = gone
		w.later(30 * time.Minute)
		if w.refs() == "" {
			t.Error("it was gone for no time at all")
		}
	})
}

func TestRefsRun(t *testing.T) {
	w := newRefWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	ticks, done := make(chan time.Time), make(chan struct{})
	go func() { defer close(done); w.Refs.Run(ctx, ticks, time.Minute) }()
	tick := func(want int) {
		t.Helper()
		ticks <- time.Time{}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.reads != want {
			t.Errorf("read %d times; want %d", w.reads, want)
		}
	}
	ticks <- time.Time{} // the first look
	tick(1)              // this one finds nothing to do
	tick(1)
	w.Refs.Changed()
	ticks <- time.Time{}
	tick(2)
	cancel()
	<-done
}
