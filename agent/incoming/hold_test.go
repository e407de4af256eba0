package incoming_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func (l *libvirt) state() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.domains) == 0 {
		return ""
	}
	return string(l.domains[0].State)
}

func (l *libvirt) Resume(context.Context, string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.domains[0].State = hypervisor.Running
	return nil
}

func (l *libvirt) Destroy(context.Context, string) error {
	if l.onDestroy != nil {
		l.onDestroy()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.domains[0].State = hypervisor.Shutoff
	if !l.domains[0].Persistent {
		l.domains = nil
	}
	return nil
}

func (l *libvirt) Undefine(context.Context, string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.domains = nil
	return nil
}

func (w *world) settle(act string) {
	w.t.Helper()
	_, err := w.Settle(w.t.Context(), opID, api.SettleRequest{Act: act, Why: "for a test"})
	must(w.t, err)
}

func (w *world) overdue() {
	w.t.Helper()
	w.Sweep(w.t.Context()) // in time: what is here is seen
	w.pass(lease + time.Second)
	w.Sweep(w.t.Context())
}

func persistent(s hypervisor.State) hypervisor.Domain {
	return hypervisor.Domain{State: s, Persistent: true}
}

// While its source needs a decision, the lease's end removes nothing, whatever
// the instance does here, and a restart changes nothing about that.
func TestHeldForADecision(t *testing.T) {
	for name, domains := range map[string][]hypervisor.Domain{
		"on neither host": nil,
		"running":         {{Name: "vm", UUID: uuid, State: hypervisor.Running}},
		"paused":          {{Name: "vm", UUID: uuid, State: hypervisor.Paused}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ready(w.request())
			w.libvirt.set(domains...)
			w.settle(api.SettleHold)
			w.settle(api.SettleHold)
			w.overdue()
			w.start()
			w.overdue()
			w.wantFiles("vm.qcow2")
			in, err := w.Get(t.Context(), opID)
			must(t, err)
			if in.State != "ready" || in.Held != "for a test" {
				t.Errorf("reservation %+v; want it held", in)
			}
			ops := w.Undecided(t.Context())
			if len(ops) != 1 || ops[0].ID != opID || ops[0].Status != api.StatusNeedsDecision {
				t.Fatalf("listed %+v", ops)
			}
			// The source decides after all.
			w.libvirt.set()
			must(t, w.Remove(t.Context(), opID))
			w.wantFiles()
		})
	}
}

// A transient guest has run here and is gone, and its source with it: nobody
// else has what it wrote last.
func TestLastWritesAreHeld(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Running})
	w.Sweep(t.Context())
	w.libvirt.set()
	w.overdue()
	w.wantFiles("vm.qcow2")
	op := w.Undecided(t.Context())
	if len(op) != 1 || !strings.Contains(op[0].Error.Detail, "has run here") || len(op[0].Error.Commands) != 2 || len(op[0].Error.Sides) != 2 {
		t.Fatalf("listed %+v", op)
	}
	at := op[0].Error.Sides[1]
	if at.Side != api.SideDestination || at.State != "absent" || at.SeenAt == nil || len(at.Volumes) != 1 || !at.Volumes[0].Present || at.Volumes[0].Allocated == 0 {
		t.Errorf("facts %+v", at)
	}
	// Its source comes back, and says what becomes of it.
	_, err := w.Renew(t.Context(), opID)
	must(t, err)
	if left := w.Undecided(t.Context()); len(left) != 0 {
		t.Errorf("still held: %+v", left)
	}
	must(t, w.Remove(t.Context(), opID))
}

// What the source has decided is done here, and may be said twice.
func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name, act string
		before    hypervisor.Domain
		after     string
	}{
		{"a paused copy runs on", api.SettleResume, persistent(hypervisor.Paused), "running"},
		{"one that runs already", api.SettleResume, persistent(hypervisor.Running), "running"},
		{"one that has shut down", api.SettleResume, persistent(hypervisor.Shutoff), "shutoff"},
		{"a paused copy ends", api.SettleEnd, persistent(hypervisor.Paused), ""},
		{"a running copy ends", api.SettleEnd, persistent(hypervisor.Running), ""},
		{"a transient copy ends", api.SettleEnd, hypervisor.Domain{State: hypervisor.Running}, ""},
		{"an arriving copy ends", api.SettleEnd, hypervisor.Domain{State: hypervisor.Paused, Incoming: true}, ""},
		{"a definition goes", api.SettleEnd, persistent(hypervisor.Shutoff), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.ready(w.request())
			w.arrive(c.before)
			w.settle(c.act)
			w.settle(c.act)
			if got := w.libvirt.state(); got != c.after {
				t.Errorf("it is %q; want %q", got, c.after)
			}
			w.wantFiles("vm.qcow2") // whatever was decided
			w.wantJournal(1)
		})
	}
}

func TestSettleIsRefused(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	resume := func() error {
		_, err := w.Settle(t.Context(), opID, api.SettleRequest{Act: api.SettleResume})
		return err
	}
	wantProblem(t, resume(), "conflict", "not there")
	w.arrive(hypervisor.Domain{State: hypervisor.Paused, Incoming: true})
	wantProblem(t, resume(), "conflict", "incoming")
	// Another instance has the name.
	w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: "another", State: hypervisor.Paused})
	wantProblem(t, resume(), "conflict", "not there")
	w.settle(api.SettleEnd)
	if w.libvirt.state() != "paused" {
		t.Error("another instance was ended")
	}
	w.arrive(persistent(hypervisor.Running))
	_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
	must(t, err)
	for _, act := range []string{api.SettleHold, api.SettleEnd, api.SettleRelease} {
		_, err := w.Settle(t.Context(), opID, api.SettleRequest{Act: act})
		wantProblem(t, err, "conflict", "belongs to this host")
	}
	if w.libvirt.state() != "running" {
		t.Error("a committed instance was ended")
	}
}

// A decision at the destination, whose source is lost for good.
func TestResolveWithoutTheSource(t *testing.T) {
	paused := persistent(hypervisor.Paused)
	for _, c := range []struct {
		name    string
		before  *hypervisor.Domain
		choice  api.ResolveRequest
		refused string
		after   string
		record  bool
	}{
		{"it may run at the source", &paused, api.ResolveRequest{Keep: api.SideDestination}, "two running copies", "paused", false},
		{"it is said to run at the source", &paused, api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherHasIt}, "two running copies", "paused", false},
		{"it does not run at the source", &paused, api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherDown}, "", "running", true},
		{"it may be the only one", &paused, api.ResolveRequest{Keep: api.SideSource}, "the only one", "paused", false},
		{"it is said to be the only one", &paused, api.ResolveRequest{Keep: api.SideSource, OtherHost: api.OtherDown}, "the only one", "paused", false},
		{"the source has it", &paused, api.ResolveRequest{Keep: api.SideSource, OtherHost: api.OtherHasIt}, "", "", false},
		{"its volumes are all that is left", nil, api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherDown}, "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.ready(w.managed())
			w.arrive(persistent(hypervisor.Paused))
			w.overdue()
			if c.before == nil {
				w.libvirt.set()
			}
			op, err := w.Resolve(t.Context(), opID, c.choice)
			if c.refused != "" {
				wantProblem(t, err, "conflict", c.refused)
				if ops := w.Undecided(t.Context()); len(ops) != 1 {
					t.Errorf("listed %+v; want it open to another decision", ops)
				}
			} else if err != nil || op.Status != api.StatusSucceeded {
				t.Fatalf("operation %+v, %v", op, err)
			}
			if got := w.libvirt.state(); got != c.after {
				t.Errorf("it is %q; want %q", got, c.after)
			}
			w.wantFiles("vm.qcow2") // nobody has seen the other copy
			if _, err := w.Records.Read(api.Ref{Name: "vm"}); (err == nil) != c.record {
				t.Errorf("record: %v", err)
			}
			if c.refused == "" && c.choice.Keep == api.SideDestination {
				again, err := w.Resolve(t.Context(), opID, c.choice)
				if err != nil || again.Status != api.StatusSucceeded {
					t.Errorf("twice: %+v, %v", again, err)
				}
			}
		})
	}
}

// The agent dies once the decision is written down: its next start goes on.
func TestResolveSurvivesACrash(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(persistent(hypervisor.Paused))
	w.overdue()
	left := w.crashed()
	looks := 0
	w.libvirt.onDomain = func(int) {
		if looks++; looks == 3 {
			left = w.crashed() // after the choice, before anything was done
		}
	}
	_, err := w.Resolve(t.Context(), opID, api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherDown})
	must(t, err)
	w.libvirt.onDomain = nil
	w.arrive(persistent(hypervisor.Paused))
	w.store, w.options.Store = left, left
	w.start()
	w.Sweep(t.Context())
	if in, err := w.Get(t.Context(), opID); err != nil || in.State != "committed" || w.libvirt.state() != "running" {
		t.Errorf("reservation %+v, %v, the instance is %q", in, err, w.libvirt.state())
	}
}

// One whose source is there is the source's business.
func TestResolveIsTheSources(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	_, err := w.Resolve(t.Context(), opID, api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherDown})
	wantProblem(t, err, "conflict", "not in doubt")
	_, err = w.Operation(t.Context(), opID)
	wantProblem(t, err, "not-found")
	_, err = w.Resolve(t.Context(), "01JZZZZZZZZZZZZZZZZZZZZZZZ", api.ResolveRequest{Keep: api.SideDestination})
	wantProblem(t, err, "not-found")
}

// No volume goes that anything of this host stands on, whatever it is called.
func TestRemoveLooksForUsers(t *testing.T) {
	for name, c := range map[string]struct {
		domain hypervisor.Domain
		runs   bool
		err    error
		want   string
	}{
		"the instance under another name": {domain: hypervisor.Domain{Name: "renamed", UUID: uuid, State: hypervisor.Shutoff}, want: `"renamed" is at the destination`},
		"another instance has the disk":   {domain: hypervisor.Domain{Name: "other", UUID: "other", State: hypervisor.Shutoff, Persistent: true}, want: `instance "other" uses`},
		"a process that libvirt lost":     {runs: true, want: "still runs"},
		"processes cannot be listed":      {err: errors.New("no /proc"), want: "no /proc"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.options.Runs = func(name, id string) (bool, error) { return c.runs && name == "vm" && id == uuid, c.err }
			w.start()
			w.ready(w.request())
			link := filepath.Join(w.other, "link.qcow2")
			must(t, os.Symlink(filepath.Join(w.pool, "vm.qcow2"), link))
			w.libvirt.disks = map[string]string{"other": "<disk type='file' device='disk'><driver type='qcow2'/><source file='" + link + "'/><target dev='vda'/></disk>"}
			if c.domain.Name != "" {
				w.libvirt.set(c.domain)
			}
			// It waits for a process that may be ending just now.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := w.Remove(ctx, opID)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want %q", err, c.want)
			}
			w.wantFiles("vm.qcow2")
			w.wantJournal(1)
		})
	}
}

// What a lease's end does is decided for every state.
func TestAtLeaseEndNeverGuesses(t *testing.T) {
	for _, state := range []string{"", "running", "paused", "shutoff", "incoming", "crashed", "pmsuspended", "unknown: no answer"} {
		for _, ran := range []bool{false, true} {
			for _, held := range []string{"", "lease", "source"} {
				end := incoming.AtLeaseEnd(state, "", ran, held)
				if end == "remove" && (state != "" || ran || held != "") {
					t.Errorf("state %q, ran %v, held by %q: its volumes go", state, ran, held)
				}
				if held == "source" && end != "stay" {
					t.Errorf("state %q, ran %v: %s; want the source's word to count", state, ran, end)
				}
				if end == "commit" && state != "running" && state != "shutoff" {
					t.Errorf("state %q: committed", state)
				}
			}
		}
	}
}

// What an arriving volume is to stand on, or to be filled from, is needed from
// the moment that it was promised: until the volume is made nothing else says so.
func TestFilesNamesTheLayers(t *testing.T) {
	w := newWorld(t)
	r := w.request()
	base := qcow2(t, filepath.Join(w.pool, "base.qcow2"), "", "1")
	r.Disks[0].Place.Backing, r.Disks[0].Place.Chain = &base, []api.Layer{base}
	seed := qcow2(t, filepath.Join(w.pool, "seed.qcow2"), "", "2")
	r.Disks = append(r.Disks, api.IncomingDisk{Target: "vdb", VirtualSize: 4 * mib, Seed: &api.Seed{From: "template", Chain: []api.Layer{seed}},
		Place: api.DiskPlace{Pool: "default", Kind: "file", Path: filepath.Join(w.pool, "vm-b.qcow2"), Format: "qcow2"}})
	named := func() (out []string) {
		must(t, w.Files(func(_ string, paths ...string) { out = append(out, paths...) }))
		return out
	}
	making := make(chan []string, 10)
	w.runner.before = func(int) error { making <- named(); return nil }
	w.ready(r)
	for _, got := range [][]string{<-making, named()} {
		for _, want := range []string{base.Path, seed.Path} {
			if !slices.Contains(got, want) {
				t.Errorf("named %q, without %s", got, want)
			}
		}
	}
}

// A decision that libvirt's absence keeps from being carried out still holds: it
// is carried out when libvirt is back, after a restart, too.
func TestDecisionOutlivesLibvirtsAbsence(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Paused})
	w.overdue()
	answers := w.libvirt.looks + 1
	w.libvirt.onDomain = func(n int) {
		w.libvirt.mu.Lock()
		defer w.libvirt.mu.Unlock()
		if n > answers {
			w.libvirt.down = hypervisor.ErrDown
		}
	}
	_, err := w.Resolve(t.Context(), opID, api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherDown})
	wantProblem(t, err, "libvirt-down", "does not answer")
	w.Close()
	w.start()
	w.Sweep(t.Context())
	w.libvirt.onDomain, w.libvirt.down = nil, nil
	w.Sweep(t.Context())
	if in, err := w.Get(t.Context(), opID); err != nil || in.State != "committed" || w.libvirt.state() != "running" {
		t.Errorf("%s, %s, %v; want what was decided", in.State, w.libvirt.state(), err)
	}
}

// Only what waits for a decision is not to be started.
func TestUnsettled(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	ref := api.Ref{Project: api.DefaultProject, Name: "vm"}
	w.arrive(persistent(hypervisor.Shutoff))
	must(t, w.Unsettled(ref))
	w.settle(api.SettleHold)
	if p := wantProblem(t, w.Unsettled(ref), "busy", "for a test"); p.Operation != opID {
		t.Errorf("operation %q", p.Operation)
	}
	must(t, w.Unsettled(api.Ref{Project: api.DefaultProject, Name: "other"}))
	_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
	must(t, err)
	must(t, w.Unsettled(ref))
}
