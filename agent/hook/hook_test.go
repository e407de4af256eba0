package hook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

const (
	uuid   = "5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001"
	domain = `<domain type='kvm'><name>vm</name><uuid>` + uuid + `</uuid></domain>`
)

var quiet = slog.New(slog.DiscardHandler)

func TestReleased(t *testing.T) {
	for words, want := range map[string]bool{
		"vm release end -":              true,
		"vm release end shutdown":       true,
		"vm release end":                true,
		"vm release end migrated":       false, // its operation's business
		"vm stopped end -":              false, // libvirt takes its labels off the disks yet
		"vm prepare begin -":            false,
		"vm start begin -":              false,
		"vm started begin -":            false,
		"vm migrate begin -":            false,
		"vm restore begin -":            false,
		"vm reconnect begin -":          false,
		"vm attach begin -":             false,
		"vm something new that is long": false,
		"vm":                            false,
		"":                              false,
	} {
		if got := ParseArgs(strings.Fields(words)).Released(); got != want {
			t.Errorf("%q: %v; want %v", words, got, want)
		}
	}
}

// world is a host with one record.
type world struct {
	records  record.Dir
	told     []api.HookRequest
	detached []api.Ref
	tell     error
	targets  []api.Target
	runs     atomic.Bool
	draining bool
	cleaner  cleanup.Cleaner
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	w := &world{records: record.Dir(filepath.Join(dir, "records"))}
	r := api.Record{Project: "blue", Name: "vm", UUID: uuid, PowerState: "running", Targets: []api.Target{{Type: "file", Path: "/x"}}}
	if err := w.records.Write(r); err != nil {
		t.Fatal(err)
	}
	w.cleaner = cleanup.Cleaner{Dir: filepath.Join(dir, "cleanup"), Records: w.records, Targets: w, Log: quiet, Now: time.Now,
		Runs: func(string, string) (bool, error) { return w.runs.Load(), nil }}
	return w
}

func (w *world) Modify(_ context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	w.targets = append(w.targets, r.Targets...)
	return api.TargetsResponse{}, nil
}

func (w *world) hook() Hook {
	return Hook{Records: w.records, Log: quiet,
		Tell:   func(_ context.Context, r api.HookRequest) error { w.told = append(w.told, r); return w.tell },
		Detach: func(ref api.Ref, _ string) error { w.detached = append(w.detached, ref); return nil }}
}

func (w *world) ending() Ending {
	return Ending{Cleaner: w.cleaner, Draining: func() bool { return w.draining }}
}

func (w *world) power(t *testing.T) string {
	t.Helper()
	r, err := w.records.Read(api.Ref{Project: "blue", Name: "vm"})
	if err != nil {
		t.Fatal(err)
	}
	return r.PowerState
}

// The agent is told; where it does not answer another process does the work.
func TestRun(t *testing.T) {
	gone := errors.New("no such file or directory")
	for _, c := range []struct {
		name, words, domain string
		tell                error
		told, detached      int
	}{
		{"the agent answers", "vm release end -", domain, nil, 1, 0},
		{"there is no agent", "vm release end -", domain, gone, 1, 1},
		{"the XML is empty", "vm release end -", "", gone, 1, 1},
		{"the XML is damaged", "vm release end -", "<domain><uu", nil, 1, 0},
		{"another instance had the name", "vm release end -", strings.ReplaceAll(domain, uuid, strings.ReplaceAll(uuid, "5", "6")), gone, 0, 0},
		{"nothing is known of it", "stranger release end -", strings.ReplaceAll(domain, "vm", "stranger"), gone, 0, 0},
		{"it moved", "vm release end migrated", domain, gone, 0, 0},
		{"a migration begins", "vm migrate begin -", domain, gone, 0, 0},
	} {
		w := newWorld(t)
		w.tell = c.tell
		if err := w.hook().Run(t.Context(), ParseArgs(strings.Fields(c.words)), strings.NewReader(c.domain)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(w.told) != c.told || len(w.detached) != c.detached {
			t.Errorf("%s: told %v, detached %v", c.name, w.told, w.detached)
		}
		if want := (api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}); c.told == 1 && w.told[0] != want {
			t.Errorf("%s: %s", c.name, cmp.Diff(want, w.told[0]))
		}
	}
}

// Libvirt waits for an agent that hangs no longer than this.
func TestRunDoesNotWaitForAnAgentThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, began := newWorld(t), time.Now()
		h := w.hook()
		h.Tell = func(ctx context.Context, _ api.HookRequest) error { <-ctx.Done(); return context.Cause(ctx) }
		if err := h.Run(t.Context(), ParseArgs([]string{"vm", "release", "end", "-"}), strings.NewReader(domain)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 2*time.Second || len(w.detached) != 1 {
			t.Errorf("it took %s, detached %v", took, w.detached)
		}
	})
}

// What ended it, if somebody did, has said what is to become of it.
func TestEnding(t *testing.T) {
	for _, c := range []struct {
		name     string
		noted    string // power state of a note that is there; "-" = none
		draining bool
		want     string
	}{
		{"by itself", "-", false, "stopped"},
		{"by a stop", "stopped", false, "stopped"},
		{"by the host's shutdown", "running", true, "running"},
		{"in the middle of the host's shutdown, by itself", "-", true, "running"},
	} {
		w := newWorld(t)
		w.draining = c.draining
		ref := api.Ref{Project: "blue", Name: "vm"}
		if c.noted != "-" {
			if err := w.cleaner.Owe(cleanup.Note{Project: "blue", Name: "vm", UUID: uuid, PowerState: c.noted}); err != nil {
				t.Fatal(err)
			}
		}
		e := w.ending()
		for range 2 { // the agent and the hook may both do it
			n, err := e.Owe(ref, uuid)
			if err == nil {
				err = e.Clean(t.Context(), n)
			}
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.noted == "running" {
				break // what is noted is gone with the first
			}
		}
		if got := w.power(t); got != c.want {
			t.Errorf("%s: it is %s; want %s", c.name, got, c.want)
		}
		if notes, err := w.cleaner.Pending(); len(notes) != 0 || err != nil {
			t.Errorf("%s: owed still %v, %v", c.name, notes, err)
		}
		if len(w.targets) == 0 {
			t.Errorf("%s: its target stays", c.name)
		}
	}
}

// Libvirt takes it for ended before its process is; and one that was started
// again is left alone.
func TestEndingWaitsForTheProcess(t *testing.T) {
	for name, ends := range map[string]bool{"it ends": true, "it was started again": false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.runs.Store(true)
			if ends {
				time.AfterFunc(3*time.Second, func() { w.runs.Store(false) })
			}
			n, err := w.ending().Owe(api.Ref{Project: "blue", Name: "vm"}, uuid)
			if err == nil {
				err = w.ending().Clean(t.Context(), n)
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if disconnected := len(w.targets) > 0; disconnected != ends {
				t.Errorf("%s: disconnected %v", name, w.targets)
			}
			if notes, _ := w.cleaner.Pending(); len(notes) != 0 {
				t.Errorf("%s: owed still %v", name, notes)
			}
		})
	}
}

// The agent's ear: an operation that holds the instance does it itself.
func TestListener(t *testing.T) {
	for _, c := range []struct {
		name   string
		r      api.HookRequest
		holder string
		busy   bool
		want   string
		owed   int
	}{
		{"free", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "", false, "stopped", 0},
		{"only stopped", api.HookRequest{Name: "vm", UUID: uuid, Operation: "stopped"}, "", false, "running", 0},
		{"moved", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Reason: "migrated"}, "", false, "running", 0},
		{"held by a stop", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "stop", false, "running", 0},
		{"held by a migration", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "migrate", false, "running", 1},
		{"held by short work", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "", true, "running", 0},
		{"not ours", api.HookRequest{Name: "vm", UUID: "other", Operation: "release"}, "", false, "running", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			locked := 0
			l := &Listener{Ending: w.ending(), Records: w.records, Log: quiet, Work: t.Context(), Operation: func(api.Ref) string { return c.holder }, Migration: "migrate",
				Lock: func(context.Context, api.Ref, string) (func(), error) {
					if c.busy {
						return nil, errors.New("busy")
					}
					locked++
					return func() { locked-- }, nil
				}}
			if err := l.Ended(t.Context(), c.r); err != nil {
				t.Error(err)
			}
			l.Wait()
			if notes, err := w.cleaner.Pending(); len(notes) != c.owed || err != nil {
				t.Errorf("owed %v, %v", notes, err)
			}
			if got := w.power(t); got != c.want || locked != 0 {
				t.Errorf("it is %s, %d locks; want %s", got, locked, c.want)
			}
		})
	}
}

// A login that libvirt keeps stays owed, other targets do not wait for it.
func TestWithoutLibvirt(t *testing.T) {
	w := newWorld(t)
	_, err := WithoutLibvirt{w}.Modify(t.Context(), api.TargetsRequest{Targets: []api.Target{
		{Type: "iscsi", IQN: "iqn.2024-01.org:a", CHAP: &api.CHAP{User: "u", Secret: "top-secret"}},
		{Type: "iscsi", IQN: "iqn.2024-01.org:b"}, {Type: "powerflex", VolumeID: "1"},
	}})
	if err == nil || !strings.Contains(err.Error(), "iqn.2024-01.org:a") || strings.Contains(err.Error(), "top-secret") {
		t.Errorf("error %v", err)
	}
	if len(w.targets) != 1 || w.targets[0].Type != "powerflex" {
		t.Errorf("disconnected %+v", w.targets)
	}
}

// Whatever libvirt sends: a UUID or an error, soon, and no more is read than
// has to be.
func FuzzUUIDOf(f *testing.F) {
	f.Add([]byte(domain))
	f.Add([]byte(strings.Repeat("<a>", 1000)))
	f.Add([]byte("<domain><uuid> X </uuid>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := uuidOf(strings.NewReader(string(b)))
		if err == nil && (got != strings.ToLower(got) || strings.TrimSpace(got) != got) {
			t.Errorf("%q", got)
		}
	})
}

func TestUUIDOfIsBounded(t *testing.T) {
	endless := io.MultiReader(strings.NewReader("<domain>"), zeros{})
	if _, err := uuidOf(endless); err == nil {
		t.Error("an endless document was read to its end")
	}
}

// zeros is a text without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestRunReadsNothingItNeedNot(t *testing.T) {
	r, w, err := os.Pipe() // never written to, never closed
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	if err := newWorld(t).hook().Run(t.Context(), ParseArgs([]string{"vm", "start", "begin", "-"}), r); err != nil {
		t.Error(err)
	}
}
