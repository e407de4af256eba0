package rebuild_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/rebuild"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

func withForce(r api.RebuildRequest) api.RebuildRequest { r.Force = true; return r }
func withStart(r api.RebuildRequest) api.RebuildRequest { r.Start = true; return r }

// layers reads the root disk as the definition names it.
func (h *host) layers() volume.Chain {
	h.t.Helper()
	d, err := domainxml.Parse(h.xml)
	must(h.t, err)
	x, _ := d.Disk("vda")
	chain, err := volume.Walk(x.Source, volume.Format(x.Format), []string{h.pool})
	must(h.t, err)
	return chain
}

func TestRebuild(t *testing.T) {
	for _, row := range []struct {
		name     string
		r        api.RebuildRequest
		host     []func(*host)
		size     int64
		template string
		base     bool
		direct   bool
		runs     bool
		rung     string
	}{
		{name: "original", r: original(), size: 6 * mib, template: "one", base: true},
		{name: "another template", r: withStart(from("two")), size: 6 * mib, template: "two", base: true, direct: true, runs: true},
		{name: "a larger one", r: from("large"), size: 8 * mib, template: "large", base: true},
		{name: "empty and larger", r: api.RebuildRequest{Source: empty().Source, DiskSize: 16 * mib}, size: 16 * mib},
		{name: "a full clone", r: from("two"), host: []func(*host){alone}, size: 6 * mib, template: "two"},
		{name: "forced", r: withForce(from("two")), host: []func(*host){running}, size: 6 * mib, template: "two", base: true, direct: true, runs: true, rung: "acpi"},
		{name: "force, and it does not run", r: withForce(original()), size: 6 * mib, template: "one", base: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t, row.host...)
			before := h.xml
			must(t, os.Chmod(h.old(), 0o640))
			a := h.agent()
			defer a.close()
			result := a.succeeds(row.r)
			if h.sound() {
				t.Error("the disk is the old one")
			}
			if info, err := os.Stat(h.root()); err != nil || info.Mode() != 0o640 {
				t.Errorf("the new volume is %v, %v; want the old one's permissions", info.Mode(), err)
			}
			chain := h.layers()
			if chain[0].VirtualSize != row.size || (len(chain) == 2) != row.base {
				t.Errorf("chain %+v", chain)
			}
			rec, err := h.records().Read(ref)
			must(t, err)
			want := api.RecordDisk{Target: "vda", Pool: "default", Volume: filepath.Base(h.root()), Path: h.root(), Format: "qcow2", Template: row.template, DirectDownload: row.direct, Owned: true}
			if d := cmp.Diff(want, rec.Disks[len(rec.Disks)-2]); d != "" || rec.Template != row.template || rec.DomainXML != h.xml || rec.UUID != uuid {
				t.Errorf("record of template %q: (-want +got) %s", rec.Template, d)
			}
			if h.domain.Active() != row.runs || result.Started != row.runs || result.Rung != row.rung {
				t.Errorf("runs %t; result %+v", h.domain.Active(), result)
			}
			if !result.Removed || len(result.Warnings) > 0 || result.Disk != "vda" || result.Old.Path != h.old() || result.New.Path != h.root() || result.New.Size != row.size {
				t.Errorf("result %+v", result)
			}
			// Nothing but the root disk's source, format and chain has changed.
			back, err := domainxml.SetDisk(h.xml, "vda", h.old(), "qcow2")
			must(t, err)
			if d := cmp.Diff(strings.ReplaceAll(before, "<source file='"+h.old()+"'/>", "<source file='"+h.old()+"'/><backingStore/>"), back); d != "" {
				t.Errorf("definition (-was +is): %s", d)
			}
			if h.defined != 1 {
				t.Errorf("defined %d times", h.defined)
			}
		})
	}
}

func TestATemplateThatIsNotReadyIsFetchedFirst(t *testing.T) {
	h := newHost(t, running)
	h.known["distant"] = api.Template{ID: "distant", Format: "qcow2"}
	a := h.agent(func(a *agent) {
		a.after["bring"] = func() {
			if !h.domain.Active() {
				t.Error("it was stopped before the template was here")
			}
		}
	})
	defer a.close()
	p, err := a.Plan(t.Context(), ref, withForce(from("distant")))
	if err != nil || !p.Fetch {
		t.Errorf("plan %+v, %v", p, err)
	}
	result := a.succeeds(withForce(from("distant")))
	if h.sound() || result.New.Template != "distant" || result.New.Size != 8*mib {
		t.Errorf("result %+v", result)
	}
}

// What is only known once the template is here is refused then, and nothing
// was stopped for it.
func TestAFetchedTemplateThatDoesNotFit(t *testing.T) {
	h := newHost(t, running)
	h.known["distant"] = api.Template{ID: "distant", Format: "qcow2"}
	a := h.agent()
	defer a.close()
	r := withForce(from("distant"))
	r.DiskSize = 7 * mib
	op, _ := a.run(r)
	if op.Error == nil || op.Error.Code != "precondition" || op.Error.Phase != "fetch" || op.Error.Reasons[0].Code != rebuild.DiskTooSmall {
		t.Errorf("%s, %v", op.Status, op.Error)
	}
	if !h.sound() || a.acts("down") > 0 {
		t.Error("it was touched")
	}
}

func TestRefusedAtOnce(t *testing.T) {
	h := newHost(t, running)
	h.domain.Snapshots, h.room, h.marks = 2, unix.EROFS, []string{"monday"}
	a := h.agent()
	defer a.close()
	for range 2 {
		_, err := a.Rebuild(t.Context(), ref, original(), api.Idempotency{Key: "k", Fingerprint: "f"})
		p := api.AsProblem(err)
		var codes []string
		for _, r := range p.Reasons {
			codes = append(codes, r.Code)
		}
		if p.Status != 412 || !slices.Equal(codes, []string{"running", "snapshots-present", "checkpoints-present", "pool-not-writable"}) || !strings.Contains(p.Detail, "before-upgrade") {
			t.Errorf("%+v", p)
		}
	}
	if len(a.points) > 4 || !h.sound() { // opening the journal writes event ids
		t.Errorf("it was touched: %q", a.points)
	}
	_, err := a.Rebuild(t.Context(), api.Ref{Project: "other", Name: "vm"}, original(), api.Idempotency{})
	if api.CodeOf(err) != "not-found" {
		t.Errorf("in another project: %v", err)
	}
	_, err = a.Rebuild(t.Context(), api.Ref{Name: "nobody"}, original(), api.Idempotency{})
	if api.CodeOf(err) != "not-found" {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestBusyAndAskedAgain(t *testing.T) {
	h := newHost(t, running)
	reached, release := make(chan struct{}), make(chan struct{})
	a := h.agent(func(a *agent) { a.after["down"] = func() { close(reached); <-release } })
	defer a.close()
	key := api.Idempotency{Key: "k", Fingerprint: "f"}
	first, err := a.Rebuild(t.Context(), ref, withForce(original()), key)
	must(t, err)
	<-reached
	again, err := a.Rebuild(t.Context(), ref, withForce(original()), key)
	if err != nil || again.ID != first.ID {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	_, err = a.Rebuild(t.Context(), ref, original(), api.Idempotency{})
	if p := api.AsProblem(err); p.Code != "busy" || p.Operation != first.ID {
		t.Errorf("asked by another: %v", err)
	}
	if _, err := a.Plan(t.Context(), ref, original()); api.CodeOf(err) != "busy" {
		t.Errorf("plan: %v", err)
	}
	close(release)
	if op := a.ended(first.ID); op.Status != api.StatusSucceeded {
		t.Errorf("%s, %v", op.Status, op.Error)
	}
	// What the first has made of the instance is no ground to refuse the same.
	again, err = a.Rebuild(t.Context(), ref, withForce(original()), key)
	if err != nil || again.ID != first.ID {
		t.Errorf("asked again at last: %+v, %v", again, err)
	}
}

// Each act fails in turn. The instance has its old disk, runs on it if it ran,
// and the problem says what failed.
func TestFailuresKeepTheOldDisk(t *testing.T) {
	for _, row := range []struct {
		act  string
		err  error
		code string
		full bool
	}{
		{"down", api.NewProblem("timeout", "the guest does not stop"), "timeout", false},
		{"reserve", os.ErrExist, "conflict", false},
		{"put ref", api.NewProblem("not-ready", "no copy any more"), "not-ready", false},
		{"digest", errors.New("input/output error"), "internal", false},
		{"format", unix.ENOSPC, "no-space", false},
		{"fill", errors.New("qemu-img failed"), "internal", true},
		{"resemble", unix.EPERM, "internal", false},
		{"finish", volume.ErrSpec, "internal", false},
		{"define", errors.New("libvirt says no"), "libvirt-failed", false},
		{"record", unix.EROFS, "internal", false},
		{"up", api.NewProblem("libvirt-failed", "no such network"), "libvirt-failed", false},
	} {
		t.Run(row.act, func(t *testing.T) {
			h := newHost(t)
			if row.full {
				alone(h)
			}
			running(h)
			before := h.xml
			a := h.agent(func(a *agent) { a.fail[row.act], a.times = row.err, 1 })
			defer a.close()
			op, _ := a.run(withForce(from("two")))
			if op.Status != api.StatusFailed || op.Error.Code != row.code || !strings.Contains(op.Error.Detail, api.AsProblem(row.err).Detail) {
				t.Errorf("%s, %+v; want %s", op.Status, op.Error, row.code)
			}
			if !h.sound() || !h.domain.Active() || h.xml != before {
				t.Errorf("state %s, definition %s", h.domain.State, h.xml)
			}
		})
	}
}

// qemu-img tells of a full file system in words alone.
func TestAFullFileSystemIsKnownByItsSpace(t *testing.T) {
	h := newHost(t)
	a := h.agent(func(a *agent) {
		a.after["reserve"] = func() { h.free = 4096 }
		a.fail["format"] = errors.New("qemu-img: No space left on device")
	})
	defer a.close()
	op, _ := a.run(original())
	if op.Error == nil || op.Error.Code != "no-space" || op.Error.Disk != "vda" || !h.sound() {
		t.Errorf("%s, %v", op.Status, op.Error)
	}
}

// An act that was done, and of which an error came back.
func TestErrorsThatHideASuccess(t *testing.T) {
	for _, act := range []string{"define", "record", "up"} {
		t.Run(act, func(t *testing.T) {
			h := newHost(t, running)
			a := h.agent(func(a *agent) { a.lie[act] = errors.New("the connection broke") })
			defer a.close()
			op, result := a.run(withForce(from("two")))
			if act == "up" {
				// It runs on the new disk, and no failure takes that from it.
				if h.sound() || op.Status != api.StatusSucceeded || len(result.Warnings) != 1 {
					t.Errorf("%s, %v, %+v", op.Status, op.Error, result)
				}
				return
			}
			if h.root() == h.old() && !h.sound() || op.Status != api.StatusFailed || !h.domain.Active() {
				t.Errorf("%s, %v, state %s", op.Status, op.Error, h.domain.State)
			}
		})
	}
}

// The store fails once the guest runs on its new disk: that is a failure, and
// the disk is not taken from under the guest. The next agent goes on.
func TestAStoreThatFailsUnderARunningGuest(t *testing.T) {
	h := newHost(t, running)
	a := h.agent()
	a.after["up"] = func() {
		a.gate.Lock()
		defer a.gate.Unlock()
		a.fail["journal"] = errors.New("the store is full")
	}
	op, _ := a.run(withForce(from("two")))
	live, err := domainxml.Parse(h.live)
	must(t, err)
	if x, _ := live.Disk("vda"); op.Status != api.StatusFailed || h.root() == h.old() || x.Source != h.root() || len(h.volumes()) != 2 {
		t.Errorf("%s, %v: it runs on %s, is defined with %s, and there are %q", op.Status, op.Error, x.Source, h.root(), h.volumes())
	}
	if err := a.engine.Close(t.Context()); err == nil {
		t.Error("an end that is not journalled was not told")
	}
	next := h.agent()
	defer next.close()
	must(t, next.engine.Resume(t.Context()))
	if op = next.ended(op.ID); op.Status != api.StatusSucceeded || h.sound() {
		t.Errorf("%s, %v", op.Status, op.Error)
	}
}

// Somebody who is not held up by the lock does something at the worst moment.
func TestWhatOthersDoMeanwhile(t *testing.T) {
	for _, row := range []struct {
		name  string
		do    func(h *host)
		left  func(h *host) bool
		words string
	}{
		{"started", func(h *host) { running(h); h.domain.ID = 7 },
			func(h *host) bool { return h.sound() && h.domain.ID == 7 }, "started"},
		{"a snapshot", func(h *host) { h.domain.Snapshots = 1 }, (*host).sound, "snapshot"},
		{"its memory saved", func(h *host) { h.saved = true }, (*host).sound, "memory"},
		{"another root disk", func(h *host) { h.xml = h.definition(h.data(), "raw") },
			func(h *host) bool { return h.root() == h.data() && len(h.volumes()) == 1 }, "another root disk"},
		{"another instance", func(h *host) { h.domain.UUID = "another" },
			func(h *host) bool { return h.root() == h.old() && h.defined == 0 }, "another instance"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t)
			a := h.agent(func(a *agent) {
				a.after["finish"] = func() { h.mu.Lock(); defer h.mu.Unlock(); row.do(h) }
			})
			defer a.close()
			op, _ := a.run(from("two"))
			if op.Status != api.StatusFailed || op.Error.Code != "conflict" && op.Error.Code != "not-found" {
				t.Errorf("%s, %v", op.Status, op.Error)
			}
			if !row.left(h) || len(h.volumes()) != 1 {
				t.Errorf("volumes %q, definition %s", h.volumes(), h.xml)
			}
		})
	}
}

// The longest names that there may be, and a character of two bytes where they
// are cut.
func TestVolumeName(t *testing.T) {
	for _, row := range []struct {
		ref  api.Ref
		want string
	}{
		{api.Ref{Name: "vm"}, "vm-0123456789ab.qcow2"},
		{api.Ref{Project: "default", Name: "vm"}, "vm-0123456789ab.qcow2"},
		{api.Ref{Project: "p", Name: "vm"}, "p.vm-0123456789ab.qcow2"},
		{api.Ref{Project: strings.Repeat("p", 63), Name: strings.Repeat("v", 200)},
			strings.Repeat("p", 63) + "." + strings.Repeat("v", 172) + "-0123456789ab.qcow2"},
		{api.Ref{Project: strings.Repeat("p", 62), Name: strings.Repeat("é", 100)},
			strings.Repeat("p", 62) + "." + strings.Repeat("é", 86) + "-0123456789ab.qcow2"},
	} {
		if got := rebuild.VolumeName(row.ref, "01XYZ0123456789AB", "qcow2"); got != row.want {
			t.Errorf("%s: %q; want %q", row.ref, got, row.want)
		}
	}
}

// A guest that is stopped while the host goes down would not come up again.
func TestADrainingHostRebuildsNothing(t *testing.T) {
	h := newHost(t, running)
	h.draining = api.NewProblem("not-ready", "this host is draining")
	a := h.agent()
	defer a.close()
	if _, err := a.Rebuild(t.Context(), ref, withForce(original()), api.Idempotency{}); api.CodeOf(err) != "not-ready" {
		t.Errorf("rebuild: %v", err)
	}
	if _, err := a.Plan(t.Context(), ref, withForce(original())); api.CodeOf(err) != "not-ready" {
		t.Errorf("plan: %v", err)
	}
	if !h.sound() || a.acts("down") > 0 {
		t.Error("it was touched")
	}
}

// The old volume goes only where nothing leads to it.
func TestTheOldVolumeStays(t *testing.T) {
	disk := func(path, format string) string {
		return "<domain type='kvm'><name>other</name><devices><disk type='file' device='disk'><driver name='qemu' type='" + format +
			"'/><source file='" + path + "'/><target dev='vda'/></disk></devices></domain>"
	}
	for _, row := range []struct {
		name string
		host func(h *host)
		why  string
	}{
		{"not made by Wherry", func(h *host) { h.editRecord(func(r *api.Record) { r.Disks[0].Owned = false }) }, "did not make it"},
		{"no record", func(h *host) { must(h.t, h.records().Remove(ref)) }, "did not make it"},
		{"the disk of another instance", func(h *host) { h.others["other"] = disk(h.old(), "qcow2") }, `"other"`},
		{"below the disk of another instance", func(h *host) {
			h.others["other"] = disk(h.make("wherry-overlay", "6M", "-b", h.old(), "-F", "qcow2"), "qcow2")
		}, `"other"`},
		{"below a volume that no instance has", func(h *host) { h.make("wherry-stray", "6M", "-b", h.old(), "-F", "qcow2") }, "stray"},
		{"a disk that cannot be followed", func(h *host) {
			h.others["other"] = disk(h.make("wherry-lost", "6M", "-u", "-b", "/nowhere/base", "-F", "qcow2"), "qcow2")
		}, "not known"},
		{"held open", func(h *host) {
			f, err := os.Open(h.old())
			must(h.t, err)
			h.t.Cleanup(func() { f.Close() })
		}, "in use"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t, row.host)
			a := h.agent()
			defer a.close()
			result := a.succeeds(from("two"))
			if result.Removed || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], row.why) || !strings.Contains(result.Warnings[0], h.old()) {
				t.Errorf("result %+v; want a warning of %q", result, row.why)
			}
			if _, err := os.Stat(h.old()); err != nil || h.refs[h.old()] != "one" || h.refs[h.root()] != "two" {
				t.Errorf("%v, refs %v", err, h.refs)
			}
			rec, err := h.records().Of(ref, uuid)
			if err != nil || rec.Template != "two" || !slices.ContainsFunc(rec.Disks, func(d api.RecordDisk) bool { return d.Path == h.root() && d.Owned }) {
				t.Errorf("record %+v, %v", rec, err)
			}
		})
	}
}

// A root disk that is lost or damaged is what a rebuild is good for.
func TestALostDiskIsReplaced(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"lost":    os.Remove,
		"damaged": func(path string) error { return os.Truncate(path, 10) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			must(t, lose(h.old()))
			a := h.agent()
			defer a.close()
			if result := a.succeeds(original()); !result.Removed || len(result.Warnings) > 0 {
				t.Errorf("result %+v", result)
			}
			if len(h.refs) != 0 || len(h.volumes()) != 1 || h.layers()[0].VirtualSize != 4*mib {
				t.Errorf("refs %v, volumes %q", h.refs, h.volumes())
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	for _, act := range []string{"bring", "down", "format"} {
		t.Run(act, func(t *testing.T) {
			h := newHost(t, running)
			h.known["distant"] = api.Template{ID: "distant", Format: "qcow2"}
			reached, release := make(chan struct{}), make(chan struct{})
			a := h.agent(func(a *agent) { a.after[act] = func() { close(reached); <-release } })
			defer a.close()
			op := a.begun(withForce(from("distant")))
			<-reached
			_, err := a.engine.Cancel(t.Context(), op.ID)
			must(t, err)
			close(release)
			if op := a.ended(op.ID); op.Status != api.StatusCancelled {
				t.Errorf("%s, %v", op.Status, op.Error)
			}
			if !h.sound() || !h.domain.Active() {
				t.Errorf("state %s", h.domain.State)
			}
		})
	}
	t.Run("a guest that does not obey", func(t *testing.T) {
		h := newHost(t, running)
		h.deaf = &deaf{make(chan string, 2), make(chan struct{})}
		a := h.agent()
		defer a.close()
		op := a.begun(withForce(original()))
		<-h.deaf.asked
		_, err := a.engine.Cancel(t.Context(), op.ID)
		must(t, err)
		<-h.deaf.asked
		close(h.deaf.over)
		if op := a.ended(op.ID); op.Status != api.StatusCancelled || op.Error.Hint != "" {
			t.Errorf("%s, %+v; want it cancelled, and nothing left undone", op.Status, op.Error)
		}
		if !h.sound() || h.domain.ID != 1 {
			t.Errorf("domain %+v; want it as it was: nobody wants its power cut any more", h.domain)
		}
	})
	t.Run("too late", func(t *testing.T) {
		h := newHost(t)
		var op api.Operation
		reached, release := make(chan struct{}), make(chan struct{})
		a := h.agent(func(a *agent) { a.after["define"] = func() { close(reached); <-release } })
		defer a.close()
		op = a.begun(original())
		<-reached
		if _, err := a.engine.Cancel(t.Context(), op.ID); api.CodeOf(err) != "conflict" {
			t.Errorf("cancel: %v", err)
		}
		close(release)
		if op = a.ended(op.ID); op.Status != api.StatusSucceeded || h.sound() {
			t.Errorf("%s, %v", op.Status, op.Error)
		}
	})
}

// The agent stops in good order in the middle, and the next one goes on.
func TestShutDownInTheMiddle(t *testing.T) {
	for _, act := range []string{"down", "format", "define", "up", "remove old"} {
		t.Run(act, func(t *testing.T) {
			h := newHost(t, running)
			reached, release := make(chan struct{}), make(chan struct{})
			a := h.agent(func(a *agent) { a.after[act] = func() { close(reached); <-release } })
			op := a.begun(withForce(from("two")))
			<-reached
			closed := make(chan struct{})
			go func() { defer close(closed); a.close() }()
			time.AfterFunc(10*time.Millisecond, func() { close(release) })
			<-closed
			next := h.agent()
			defer next.close()
			must(t, next.engine.Resume(t.Context()))
			op = next.ended(op.ID)
			if old := h.sound(); old == (op.Status == api.StatusSucceeded) || !h.domain.Active() {
				t.Errorf("%s, %v, state %s", op.Status, op.Error, h.domain.State)
			}
		})
	}
}

// interrupted has the agent killed after an act, and gives the operation.
func (h *host) interrupted(act string, r api.RebuildRequest) string {
	h.t.Helper()
	a := h.agent(func(a *agent) {
		a.after[act] = func() { a.gate.Lock(); a.killAt = len(a.points); a.gate.Unlock() }
	})
	op := a.begun(r)
	a.await(op.ID)
	if !a.isDead() {
		h.t.Fatalf("not killed after %q", act)
	}
	return op.ID
}

// What a recovery finds is not always what the agent left.
func TestRecoveryOfWhatOthersHaveChanged(t *testing.T) {
	for _, row := range []struct {
		name, act string
		do        func(h *host)
		status    string
		left      func(h *host) bool
	}{
		{"undefined before the switch", "format", func(h *host) { h.absent = true }, api.StatusFailed,
			func(h *host) bool { return slices.Equal(h.volumes(), []string{h.old()}) && len(h.refs) == 1 }},
		{"undefined after the switch", "define", func(h *host) { h.absent = true }, api.StatusFailed,
			func(h *host) bool { return slices.Equal(h.volumes(), []string{h.old()}) && len(h.refs) == 1 }},
		{"another disk by hand", "define", func(h *host) { h.xml = h.definition(h.data(), "raw") }, api.StatusFailed,
			func(h *host) bool { return h.root() == h.data() && slices.Equal(h.volumes(), []string{h.old()}) }},
		{"a snapshot by hand on the new disk", "define", func(h *host) {
			h.xml = h.definition(h.make("wherry-snap", "6M", "-b", h.root(), "-F", "qcow2"), "qcow2")
		}, api.StatusFailed, func(h *host) bool { return len(h.volumes()) == 2 }},
		{"started on the new disk", "define", func(h *host) { h.domain.State, h.domain.ID, h.live = hypervisor.Running, 5, h.xml }, api.StatusSucceeded,
			func(h *host) bool { return h.root() != h.old() && h.domain.ID == 5 && len(h.volumes()) == 1 }},
		{"started on the old disk", "finish", func(h *host) { h.domain.State, h.domain.ID, h.live = hypervisor.Running, 5, h.xml }, api.StatusFailed,
			func(h *host) bool { return h.root() == h.old() && h.domain.ID == 5 && len(h.volumes()) == 1 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t)
			id := h.interrupted(row.act, from("two"))
			row.do(h)
			next := h.agent()
			defer next.close()
			must(t, next.engine.Resume(t.Context()))
			op := next.ended(id)
			if op.Status != row.status || !row.left(h) {
				t.Errorf("%s, %v; volumes %q, refs %v", op.Status, op.Error, h.volumes(), h.refs)
			}
		})
	}
}

// Without libvirt nobody knows which disk is in use.
func TestRecoveryWithoutLibvirtDecidesNothing(t *testing.T) {
	h := newHost(t)
	id := h.interrupted("define", from("two"))
	next := h.agent(func(a *agent) { a.fail["wait"] = fmt.Errorf("wait: %w", hypervisor.ErrDown) })
	defer next.close()
	must(t, next.engine.Resume(t.Context()))
	op := next.ended(id)
	if op.Status != api.StatusNeedsDecision || len(h.volumes()) != 2 || !strings.Contains(op.Error.Detail, h.old()) || !strings.Contains(op.Error.Detail, h.root()) {
		t.Errorf("%s, %v; volumes %q", op.Status, op.Error, h.volumes())
	}
}

// A file of the new volume's name that is not the operation's stays.
func TestAFileThatIsNotOursStays(t *testing.T) {
	theirs := func(path string) { must(t, os.WriteFile(path, []byte("theirs"), 0o600)) }
	var path string
	still := func() {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != "theirs" {
			t.Errorf("%q, %v", b, err)
		}
		must(t, os.Remove(path))
	}
	h := newHost(t)
	a := h.agent(func(a *agent) { a.reserving = func(p string) { path = p; theirs(p) } })
	op, _ := a.run(original())
	if op.Status != api.StatusFailed || op.Error.Code != "conflict" || !strings.Contains(op.Error.Detail, path) {
		t.Errorf("%s, %+v; want it to name %s", op.Status, op.Error, path)
	}
	still()
	h.sound()
	a.close()

	// After a crash only the name is known, and what has content is not ours.
	id := h.interrupted("reserve", original())
	path = h.volumes()[0]
	theirs(path)
	next := h.agent()
	defer next.close()
	must(t, next.engine.Resume(t.Context()))
	if op := next.ended(id); op.Status != api.StatusFailed || !strings.Contains(op.Error.Hint, path) {
		t.Errorf("%s, %+v; want it to name %s", op.Status, op.Error, path)
	}
	still()
	h.sound()
}
