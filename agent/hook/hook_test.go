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
	"github.com/wherry-kvm/wherry/agent/durable/durabletest"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

const (
	uuid = "5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001"
	// called is when libvirt called, as a time since the boot.
	called = time.Hour
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
	detached []End
	tell     error
	targets  []api.Target
	runs     atomic.Bool
	since    atomic.Int64 // when its process was started, as a time since the boot
	draining bool
	cleaner  cleanup.Cleaner
}

func newWorld(t *testing.T) *world {
	dir := durabletest.Dir(t)
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
		Called: called, Detach: func(end End) error { w.detached = append(w.detached, end); return nil }}
}

func (w *world) ending() Ending {
	return Ending{Cleaner: w.cleaner, ToRun: func(End) bool { return w.draining },
		Since: func(string, string) (time.Duration, bool, error) {
			return time.Duration(w.since.Load()), w.runs.Load(), nil
		}}
}

// runsSince starts it at that time since the boot.
func (w *world) runsSince(at time.Duration) {
	w.since.Store(int64(at))
	w.runs.Store(true)
}

var end = End{Ref: api.Ref{Project: "blue", Name: "vm"}, UUID: uuid, At: called}

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
		if want := (api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Called: api.Duration(called)}); c.told == 1 && w.told[0] != want {
			t.Errorf("%s: %s", c.name, cmp.Diff(want, w.told[0]))
		}
		if c.detached == 1 && w.detached[0] != end {
			t.Errorf("%s: %s", c.name, cmp.Diff(end, w.detached[0]))
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
		if c.noted != "-" {
			if err := w.cleaner.Owe(cleanup.Note{Project: "blue", Name: "vm", UUID: uuid, PowerState: c.noted}); err != nil {
				t.Fatal(err)
			}
		}
		e := w.ending()
		for range 2 { // the agent and the hook may both do it
			if err := e.Clean(t.Context(), end); err != nil {
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
// again is left alone, however that is found out.
func TestEndingWaitsForTheProcess(t *testing.T) {
	for _, c := range []struct {
		name  string
		since time.Duration // of the process that is there
		ends  bool
		took  time.Duration
	}{
		{"it ends", called / 2, true, 3 * time.Second},
		{"it does not end", called / 2, false, goneWait},
		{"it was started again", called + 1, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, began := newWorld(t), time.Now()
				w.runsSince(c.since)
				if c.ends {
					time.AfterFunc(c.took, func() { w.runs.Store(false) })
				}
				if err := w.ending().Clean(t.Context(), end); err != nil {
					t.Error(err)
				}
				if disconnected := len(w.targets) > 0; disconnected != c.ends {
					t.Errorf("disconnected %v", w.targets)
				}
				if notes, _ := w.cleaner.Pending(); len(notes) != 0 {
					t.Errorf("owed still %v", notes)
				}
				if got, want := w.power(t), map[bool]string{true: "stopped", false: "running"}[c.ends]; got != want {
					t.Errorf("it is %s; want %s", got, want)
				}
				if took := time.Since(began); took < c.took || took > c.took+time.Second {
					t.Errorf("it took %s; want %s", took, c.took)
				}
			})
		})
	}
}

// It is started again while its first process is waited for: the note of the
// hook is taken back, and one that others have made since is not.
func TestStartedAgainMeanwhile(t *testing.T) {
	for _, others := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.runsSince(called / 2)
			time.AfterFunc(time.Second, func() {
				if n := (cleanup.Note{Project: "blue", Name: "vm", UUID: uuid, PowerState: "stopped", Since: time.Now().UTC()}); others {
					if err := w.cleaner.Owe(n); err != nil {
						t.Error(err)
					}
				}
				w.runsSince(called + time.Second)
			})
			if err := w.ending().Clean(t.Context(), end); err != nil {
				t.Error(err)
			}
			if notes, err := w.cleaner.Pending(); len(notes) > 0 != others || err != nil {
				t.Errorf("owed %v, %v; want what others noted: %t", notes, err, others)
			}
			if len(w.targets) > 0 || w.power(t) != "running" {
				t.Errorf("disconnected %v, it is %s", w.targets, w.power(t))
			}
		})
	}
}

// A start that is under way has connected what would be disconnected, and has
// no process yet.
func TestStartUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, ends := range []time.Duration{2 * time.Second, 2 * goneWait} {
			w := newWorld(t)
			release, err := w.cleaner.Guard(t.Context(), end.Ref)
			if err != nil {
				t.Fatal(err)
			}
			starts := cleanup.Note{Project: "blue", Name: "vm", UUID: uuid, Since: time.Now().UTC()}
			if err := w.cleaner.Owe(starts); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(ends, func() {
				w.runsSince(called + time.Second)
				if err := w.cleaner.Forget(end.Ref); err != nil {
					t.Error(err)
				}
				release()
			})
			err = w.ending().Clean(t.Context(), end)
			if hangs := ends > goneWait; hangs != errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a start of %s: %v", ends, err)
			}
			if timer.Stop() {
				release()
			}
			if len(w.targets) > 0 || w.power(t) != "running" {
				t.Errorf("a start of %s: disconnected %v, it is %s", ends, w.targets, w.power(t))
			}
		}
	})
}

// The agent's ear: an operation that holds the instance does it itself.
func TestListener(t *testing.T) {
	later := api.Duration(called)
	for _, c := range []struct {
		name   string
		r      api.HookRequest
		holder string
		busy   bool
		want   string
		owed   int
	}{
		{"runs again", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Called: later}, "", false, "running", 0},
		{"runs again under a migration", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Called: later}, "migrate", false, "running", 0},
		{"free", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "", false, "stopped", 0},
		{"only stopped", api.HookRequest{Name: "vm", UUID: uuid, Operation: "stopped"}, "", false, "running", 0},
		{"moved by hand", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Reason: "migrated"}, "", false, "stopped", 0},
		{"moved", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Reason: "migrated"}, "migrate", false, "running", 0},
		{"held by a stop", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "stop", false, "running", 0},
		{"held by a migration", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "migrate", false, "running", 1},
		{"held by short work", api.HookRequest{Name: "vm", UUID: uuid, Operation: "release"}, "", true, "running", 0},
		{"not ours", api.HookRequest{Name: "vm", UUID: "other", Operation: "release"}, "", false, "running", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.r.Called != 0 {
				w.runsSince(called + time.Second)
			}
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

// What was moved to another host by hand, while this one goes down, is not to
// run again here: it would run twice.
func TestListenerOfWhatMovedWhileDraining(t *testing.T) {
	for reason, want := range map[string]string{"": "running", "migrated": "stopped"} {
		w := newWorld(t)
		w.draining = true
		l := &Listener{Ending: w.ending(), Records: w.records, Log: quiet, Work: t.Context(), Operation: func(api.Ref) string { return "" },
			Lock: func(context.Context, api.Ref, string) (func(), error) { return func() {}, nil }}
		if err := l.Ended(t.Context(), api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Reason: reason}); err != nil {
			t.Error(err)
		}
		l.Wait()
		if got := w.power(t); got != want || len(w.targets) != 1 {
			t.Errorf("reason %q: it is %s, disconnected %v; want %s", reason, got, w.targets, want)
		}
	}
}

// One that was started by hand is known to run; an operation says itself what
// becomes of its instance.
func TestListenerOfWhatIsStarted(t *testing.T) {
	for _, c := range []struct {
		name, uuid, holder string
		runs, busy         bool
		want               string
	}{
		{"by hand", uuid, "", true, false, "running"},
		{"by an operation", uuid, "start", true, false, "stopped"},
		{"under short work", uuid, "", true, true, "stopped"},
		{"stopped again", uuid, "", false, false, "stopped"},
		{"another of the name", "other", "", true, false, "stopped"},
	} {
		w := newWorld(t)
		r, err := w.records.Read(end.Ref)
		if err != nil {
			t.Fatal(err)
		}
		r.PowerState = "stopped"
		if err := w.records.Write(r); err != nil {
			t.Fatal(err)
		}
		w.runs.Store(c.runs)
		locked := 0
		l := &Listener{Ending: w.ending(), Records: w.records, Log: quiet, Work: t.Context(), Operation: func(api.Ref) string { return c.holder },
			Lock: func(context.Context, api.Ref, string) (func(), error) {
				if c.busy {
					return nil, errors.New("busy")
				}
				locked++
				return func() { locked-- }, nil
			}}
		l.Began("vm", c.uuid)
		l.Wait()
		if got := w.power(t); got != c.want || locked != 0 {
			t.Errorf("%s: it is %s, %d locks; want %s", c.name, got, locked, c.want)
		}
	}
}

// Whoever had the lock may have started it again: by an operation, which has
// its process, or by hand, when nobody knows.
func TestListenerLooksUnderTheLock(t *testing.T) {
	for name, since := range map[string]time.Duration{"by an operation": called + time.Second, "at a time that is not known": 0} {
		w := newWorld(t)
		l := &Listener{Ending: w.ending(), Records: w.records, Log: quiet, Work: t.Context(), Operation: func(api.Ref) string { return "" },
			Lock: func(context.Context, api.Ref, string) (func(), error) { w.runsSince(since); return func() {}, nil }}
		if err := l.Ended(t.Context(), api.HookRequest{Name: "vm", UUID: uuid, Operation: "release", Called: api.Duration(called)}); err != nil {
			t.Error(err)
		}
		l.Wait()
		if notes, err := w.cleaner.Pending(); len(notes) > 0 || err != nil || len(w.targets) > 0 || w.power(t) != "running" {
			t.Errorf("%s: owed %v, %v, disconnected %v, it is %s", name, notes, err, w.targets, w.power(t))
		}
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
