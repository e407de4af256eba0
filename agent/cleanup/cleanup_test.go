package cleanup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a host with instances' records, targets and processes.
type host struct {
	cleanup.Cleaner
	state string
	runs  map[string]bool         // by UUID
	did   []string                // targets disconnected, by their LUN
	fails map[int]error           // disconnecting a LUN
	hangs map[int]bool            // until its deadline
	onRun func(name string) error // instead of the answer
}

func (h *host) Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	for _, t := range r.Targets {
		h.did = append(h.did, fmt.Sprint(t.LUN))
		if r.Add {
			return api.TargetsResponse{}, errors.New("it was to be disconnected")
		}
		if h.hangs[t.LUN] {
			<-ctx.Done()
			return api.TargetsResponse{}, ctx.Err()
		}
		if err := h.fails[t.LUN]; err != nil {
			return api.TargetsResponse{}, err
		}
	}
	return api.TargetsResponse{}, nil
}

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newHost(t interface{ TempDir() string }) *host {
	h := &host{state: t.TempDir(), runs: map[string]bool{}, fails: map[int]error{}, hangs: map[int]bool{}}
	h.Cleaner = cleanup.Cleaner{Dir: filepath.Join(h.state, "cleanup"), Records: record.Dir(filepath.Join(h.state, "records")), Targets: h,
		Runs: func(name, uuid string) (bool, error) {
			if h.onRun != nil {
				return false, h.onRun(name)
			}
			return h.runs[uuid], nil
		}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	return h
}

func lun(n int) api.Target {
	return api.Target{Type: "iscsi", Portal: "san", IQN: "iqn.x", LUN: n, CHAP: &api.CHAP{User: "u", Secret: "s"}}
}

// has gives the host an instance of that name; its UUID is "u-" and the name.
func (h *host) has(t testing.TB, name, power string, targets ...api.Target) cleanup.Note {
	t.Helper()
	must(t, h.Records.Write(api.Record{Project: "blue", Name: name, UUID: "u-" + name, PowerState: power, Targets: targets}))
	return cleanup.Note{Project: "blue", Name: name, UUID: "u-" + name, PowerState: "stopped", Since: now}
}

func (h *host) power(t testing.TB, name string) string {
	t.Helper()
	r, err := h.Records.Read(api.Ref{Project: "blue", Name: name})
	must(t, err)
	return r.PowerState
}

func (h *host) pending(t testing.TB) (out []cleanup.Note) {
	t.Helper()
	out, err := h.Pending()
	must(t, err)
	return out
}

func TestClean(t *testing.T) {
	h := newHost(t)
	n := h.has(t, "vm", "running", lun(1), lun(2))
	other := h.has(t, "other", "running")
	must(t, h.Owe(n))
	if got := h.pending(t); len(got) != 1 || got[0] != n {
		t.Fatalf("notes %+v", got)
	}
	must(t, h.Clean(t.Context(), n))
	if !slices.Equal(h.did, []string{"1", "2"}) || h.power(t, "vm") != "stopped" || len(h.pending(t)) != 0 {
		t.Errorf("disconnected %v, power %q, notes %+v", h.did, h.power(t, "vm"), h.pending(t))
	}
	if got := h.power(t, other.Name); got != "running" {
		t.Errorf("the other's power is %q", got)
	}
	must(t, h.Clean(t.Context(), n)) // again, without a note
	if len(h.pending(t)) != 0 {
		t.Error("a note has appeared")
	}
}

// A note without a power state leaves it as it is: what the host's shutdown
// stops is to run again.
func TestPowerStateStays(t *testing.T) {
	h := newHost(t)
	n := h.has(t, "vm", "running", lun(1))
	n.PowerState = ""
	must(t, h.Clean(t.Context(), n))
	if h.power(t, "vm") != "running" || len(h.did) != 1 {
		t.Errorf("power %q, disconnected %v", h.power(t, "vm"), h.did)
	}
}

// Every step is tried, all failures are told, and it is done again.
func TestCleanGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		n := h.has(t, "vm", "running", lun(1), lun(2), lun(3))
		h.fails[1], h.hangs[2] = errors.New("session is in use"), true
		err := h.Clean(t.Context(), n)
		if err == nil || !strings.Contains(err.Error(), "session is in use") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v; want both", err)
		}
		if !slices.Equal(h.did, []string{"1", "2", "3"}) || h.power(t, "vm") != "stopped" {
			t.Errorf("disconnected %v, power %q; want all tried", h.did, h.power(t, "vm"))
		}
		got := h.pending(t)
		if len(got) != 1 || !strings.Contains(got[0].Failure, "session is in use") {
			t.Fatalf("notes %+v; want one that says why", got)
		}
		h.fails, h.hangs, h.did = nil, nil, nil
		must(t, h.Resume(t.Context(), nil))
		if len(h.pending(t)) != 0 || len(h.did) != 3 {
			t.Errorf("notes %+v, disconnected %v", h.pending(t), h.did)
		}
	})
}

// A record that cannot be written is told, and the targets are gone all the same.
func TestRecordCannotBeWritten(t *testing.T) {
	h := newHost(t)
	n := h.has(t, "vm", "running", lun(1))
	ref := n.Ref()
	h.Targets = targetsFn(func() {
		// In the middle of it, what lies at its place becomes a folder.
		path := filepath.Join(string(h.Records), ref.Project, ref.Name+".yaml")
		must(t, os.Remove(path))
		must(t, os.MkdirAll(filepath.Join(path, "x"), 0o700))
		h.did = append(h.did, "1")
	})
	if err := h.Clean(t.Context(), n); err == nil || len(h.did) != 1 || len(h.pending(t)) != 1 {
		t.Errorf("error %v, disconnected %v, notes %+v", err, h.did, h.pending(t))
	}
}

type targetsFn func()

func (f targetsFn) Modify(context.Context, api.TargetsRequest) (api.TargetsResponse, error) {
	f()
	return api.TargetsResponse{}, nil
}

// While a process lives, or it is not known, nothing is touched.
func TestRunningIsNotTouched(t *testing.T) {
	h := newHost(t)
	n := h.has(t, "vm", "running", lun(1))
	must(t, h.Owe(n))
	h.runs["u-vm"] = true
	if err := h.Clean(t.Context(), n); !errors.Is(err, cleanup.ErrRuns) {
		t.Errorf("error %v", err)
	}
	why := errors.New("not permitted")
	h.onRun = func(string) error { return why }
	if err := h.Clean(t.Context(), n); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	if len(h.did) != 0 || h.power(t, "vm") != "running" || len(h.pending(t)) != 1 {
		t.Errorf("disconnected %v, power %q, notes %+v", h.did, h.power(t, "vm"), h.pending(t))
	}
	// At the next start one that runs is owed nothing.
	h.onRun = nil
	must(t, h.Resume(t.Context(), nil))
	if len(h.did) != 0 || len(h.pending(t)) != 0 || h.power(t, "vm") != "running" {
		t.Errorf("disconnected %v, power %q, notes %+v", h.did, h.power(t, "vm"), h.pending(t))
	}
}

// What another instance has a use for stays.
func TestSharedTargetStays(t *testing.T) {
	h := newHost(t)
	n := h.has(t, "vm", "running", lun(1), lun(2), lun(3), lun(4))
	byOther := lun(1)
	byOther.CHAP = &api.CHAP{User: "other", Secret: "other"}
	h.has(t, "starting", "running", byOther)
	h.has(t, "started", "stopped", lun(2)) // by virsh
	h.runs["u-started"] = true
	h.has(t, "off", "stopped", lun(3))
	h.has(t, "stranger", "stopped", lun(9))
	// To look for a process is to look at all of the host, once for each of its
	// instances, while all of them are cleaned up after.
	runs, looked := h.Runs, map[string]int{}
	h.Runs = func(name, uuid string) (bool, error) { looked[name]++; return runs(name, uuid) }
	must(t, h.Clean(t.Context(), n))
	if want := map[string]int{"vm": 1, "started": 1, "off": 1}; !maps.Equal(looked, want) {
		t.Errorf("looked for the processes of %v; want %v", looked, want)
	}
	if !slices.Equal(h.did, []string{"3", "4"}) {
		t.Errorf("disconnected %v; want those that nobody else uses", h.did)
	}
}

// An instance that has the name now is not the one that the note is about.
func TestOtherInstanceOfTheName(t *testing.T) {
	h := newHost(t)
	n := h.has(t, "vm", "running", lun(1))
	n.UUID = "earlier"
	must(t, h.Owe(n))
	must(t, h.Resume(t.Context(), nil))
	if len(h.did) != 0 || h.power(t, "vm") != "running" || len(h.pending(t)) != 0 {
		t.Errorf("disconnected %v, power %q, notes %+v", h.did, h.power(t, "vm"), h.pending(t))
	}
}

// What interrupted writes have left goes; it holds secrets.
func TestLeftFilesGo(t *testing.T) {
	h := newHost(t)
	n := h.has(t, "vm", "running")
	left := filepath.Join(string(h.Records), "blue", ".vm.yaml123")
	must(t, os.WriteFile(left, []byte("secret"), 0o600))
	must(t, os.Chtimes(left, now.Add(-time.Hour), now.Add(-time.Hour)))
	must(t, h.Clean(t.Context(), n))
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v; want it gone", err)
	}
}

// So do those of instances to which nothing is owed any more: the agent was
// lost in the middle of a write, and what it was to write is written since.
func TestResumeTidiesUp(t *testing.T) {
	h := newHost(t)
	h.has(t, "vm", "running")
	must(t, os.MkdirAll(filepath.Join(h.Dir, "blue"), 0o700))
	for path, age := range map[string]time.Duration{
		filepath.Join(string(h.Records), "blue", ".vm.yaml123"): time.Hour, filepath.Join(h.Dir, "blue", ".gone.json4"): time.Hour,
		filepath.Join(string(h.Records), "blue", ".vm.yaml5"): time.Second,
	} {
		must(t, os.WriteFile(path, []byte("secret"), 0o600))
		must(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
	}
	must(t, h.Resume(t.Context(), nil))
	left, err := filepath.Glob(filepath.Join(h.state, "*", "blue", ".*"))
	must(t, err)
	if want := []string{filepath.Join(string(h.Records), "blue", ".vm.yaml5")}; !slices.Equal(left, want) {
		t.Errorf("left %q; want %q", left, want)
	}
}

// An operation on the instance does what is owed itself.
func TestResumeLeavesOperationsAlone(t *testing.T) {
	h := newHost(t)
	must(t, h.Owe(h.has(t, "busy", "running", lun(1))))
	must(t, h.Owe(h.has(t, "free", "running", lun(2))))
	var unlocked []string
	lock := func(_ context.Context, ref api.Ref, _ string) (func(), error) {
		if ref.Name == "busy" {
			return nil, api.NewProblem("busy", "held")
		}
		return func() { unlocked = append(unlocked, ref.Name) }, nil
	}
	must(t, h.Resume(t.Context(), lock))
	if !slices.Equal(h.did, []string{"2"}) || !slices.Equal(unlocked, []string{"free"}) || len(h.pending(t)) != 1 {
		t.Errorf("disconnected %v, unlocked %v, notes %+v", h.did, unlocked, h.pending(t))
	}
}

// One damaged note hides no other.
func TestDamagedNotes(t *testing.T) {
	h := newHost(t)
	must(t, h.Owe(h.has(t, "vm", "running", lun(1))))
	for name, content := range map[string]string{"a": "{", "b": `{"project":"blue","name":"vm","uuid":"u-vm"}`, "c": "null", "d": strings.Repeat(" ", 1<<20)} {
		must(t, os.WriteFile(filepath.Join(h.Dir, "blue", name+".json"), []byte(content), 0o600))
	}
	err := h.Resume(t.Context(), nil)
	for _, name := range []string{"a", "b", "c", "d"} {
		if err == nil || !strings.Contains(err.Error(), name+".json") {
			t.Errorf("error %v does not name %s", err, name)
		}
	}
	if len(h.did) != 1 {
		t.Errorf("disconnected %v", h.did)
	}
	for _, ref := range []api.Ref{{Project: "blue", Name: "../x"}, {Project: "", Name: "x"}, {Project: ".", Name: "x"}} {
		if h.Owe(cleanup.Note{Project: ref.Project, Name: ref.Name, UUID: "u"}) == nil || h.Forget(ref) == nil {
			t.Errorf("%q left the folder", ref)
		}
	}
}

func TestRun(t *testing.T) {
	h := newHost(t)
	must(t, h.Owe(h.has(t, "vm", "running", lun(1))))
	h.fails[1] = errors.New("not now")
	ctx, cancel := context.WithCancel(t.Context())
	ticks, done := make(chan time.Time), make(chan struct{})
	go func() { defer close(done); h.Run(ctx, nil, ticks) }()
	ticks <- now // the first try is over
	ticks <- now // so is the second
	cancel()
	<-done
	if len(h.did) < 2 || len(h.pending(t)) != 1 {
		t.Errorf("tried %v, notes %+v", h.did, h.pending(t))
	}
}

// Whatever fails, and whenever the agent is lost: what is owed is done once all
// goes well, the power state is the note's, and a target is left connected
// only as long as there is a note that says so.
func TestCleanUpIsDoneInTheEnd(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newHost(dir{t})
		targets := rapid.SliceOfNDistinct(rapid.IntRange(1, 9), 0, 4, rapid.ID[int]).Draw(r, "luns")
		var all []api.Target
		connected := map[int]bool{}
		for _, n := range targets {
			all = append(all, lun(n))
			connected[n] = true
		}
		n := h.has(t, "vm", "running", all...)
		must(t, h.Owe(n))
		for range rapid.IntRange(0, 4).Draw(r, "tries") {
			h.did, h.fails = nil, map[int]error{}
			for _, l := range targets {
				if rapid.Bool().Draw(r, "fails") {
					h.fails[l] = errors.New("not now")
				}
			}
			err := h.Resume(t.Context(), nil)
			for _, l := range targets {
				if h.fails[l] == nil {
					connected[l] = false
				}
			}
			if len(h.did) != 0 && (err == nil) != (len(h.fails) == 0) {
				r.Errorf("error %v for %v", err, h.fails)
			}
			left := slices.ContainsFunc(targets, func(l int) bool { return connected[l] })
			if left && len(h.pending(t)) == 0 {
				r.Errorf("connected %v, and nothing is owed", connected)
			}
		}
		h.fails = nil
		must(t, h.Resume(t.Context(), nil))
		if len(h.pending(t)) != 0 || h.power(t, "vm") != "stopped" {
			r.Errorf("notes %+v, power %q", h.pending(t), h.power(t, "vm"))
		}
	})
}

// dir gives each check a folder of its own.
type dir struct{ *testing.T }

func (d dir) TempDir() string {
	path, err := os.MkdirTemp(d.T.TempDir(), "")
	must(d.T, err)
	return path
}
