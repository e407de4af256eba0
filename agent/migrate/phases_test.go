package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestMigrate(t *testing.T) {
	w := newWorld(t)
	w.instance.Record = &api.Record{Project: api.DefaultProject, Name: "vm", UUID: uuid, DomainXML: "<domain/>",
		Disks: []api.RecordDisk{{Target: "vda", Path: w.disk, Pool: "default", Format: "qcow2", DirectDownload: true}}}
	must(t, w.Records.Write(*w.instance.Record))
	r := w.succeeds(api.MigrateRequest{Bandwidth: 3<<20 + 1})
	if r.Mode != "full" || r.Destination != "https://b:8470" || r.Downtime.Std() != 100*time.Millisecond || r.Bytes.Disk != mib || len(r.Warnings) != 0 {
		t.Errorf("result %+v", r)
	}
	for _, phase := range []string{"inspect", "offer", "decide", "connect", "prepare", "perform", "commit"} {
		if _, ok := r.Phases[phase]; !ok {
			t.Errorf("phase %s was not measured: %v", phase, r.Phases)
		}
	}
	p := w.mover.params[0]
	want := "/dest/vda.qcow2"
	if !strings.Contains(p.DestXML, want) || !strings.Contains(p.PersistXML, want) || strings.Contains(p.DestXML+p.PersistXML, w.disk) {
		t.Errorf("live XML %s\ndefinition %s\nwant the destination's path in both", p.DestXML, p.PersistXML)
	}
	if !p.Incremental || !slices.Equal(p.Disks, []string{"vda"}) || p.BandwidthMiB != 4 || p.DestURI != "qemu+tls://b/system" {
		t.Errorf("parameters %+v", p)
	}
	res := w.peer.requests[0]
	if res.Operation == "" || res.UUID != uuid || res.Source != "a" || res.Disks[0].VirtualSize != 4*mib {
		t.Errorf("reservation %+v", res)
	}
	if d := res.Record.Disks[0]; d.Path != want || !d.Owned || d.DirectDownload {
		t.Errorf("recorded disk %+v; want it as it is at the destination", d)
	}
	if w.exists(w.disk) || !slices.Equal(w.reg.dropped, []string{w.disk}) || !slices.Equal(w.libvirt.refreshed, []string{"default"}) {
		t.Errorf("dropped %v, refreshed %v", w.reg.dropped, w.libvirt.refreshed)
	}
	if _, err := w.Records.Read(vm); err == nil {
		t.Error("the record remains")
	}
	if !slices.Equal(w.observer.results, []string{api.StatusSucceeded}) {
		t.Errorf("observed %v", w.observer.results)
	}
}

// The places of the answer count, not those of the plan.
func TestRewritesToWhereTheVolumesAre(t *testing.T) {
	w := newWorld(t)
	facts := w.peer.facts
	w.peer.facts = func(r api.FactsRequest) (api.Facts, error) {
		f, err := facts(r)
		f.Address, f.GraphicsListen = "2001:db8::2", "2001:db8::2"
		return f, err
	}
	w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) {
		in.Disks[0].Path = "/dest/vda-abcdef.qcow2"
		return in, nil
	}
	w.succeeds(api.MigrateRequest{})
	if p := w.mover.params[0]; !strings.Contains(p.DestXML, "/dest/vda-abcdef.qcow2") || p.MigrateURI != "tcp://[2001:db8::2]" {
		t.Errorf("parameters %+v", p)
	}
}

// A domain without a definition gets none there either.
func TestTransientInstance(t *testing.T) {
	w := newWorld(t)
	d := w.instance.Domain
	d.Persistent = false
	w.libvirt.set(d)
	w.succeeds(api.MigrateRequest{})
	if p := w.mover.params[0]; p.PersistXML != "" {
		t.Errorf("parameters %+v", p)
	}
}

// A definition that names other disks than the running instance would break
// its next start: nothing moves.
func TestDefinitionOfOtherDisks(t *testing.T) {
	w := newWorld(t)
	w.libvirt.next = map[string]string{"vm": domainXML("vm", fileDisk("vda", "/other"))}
	w.fails(api.MigrateRequest{}, api.StatusFailed, "internal", "perform")
	if len(w.mover.params) != 0 {
		t.Error("it was moved")
	}
}

func TestConnect(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(api.TargetsRequest) (api.TargetsResponse, error)
		code   string
		detail string
	}{
		{"no path", func(api.TargetsRequest) (api.TargetsResponse, error) { return api.TargetsResponse{}, nil }, "no-connected-path", "0 paths for 1 targets"},
		{"an empty path", func(api.TargetsRequest) (api.TargetsResponse, error) {
			return api.TargetsResponse{Connected: []api.ConnectedTarget{{Index: 0}}}, nil
		}, "no-connected-path", "no connected path"},
		{"of another target", func(api.TargetsRequest) (api.TargetsResponse, error) {
			return api.TargetsResponse{Connected: []api.ConnectedTarget{{Index: 1, Path: "/dev/x"}}}, nil
		}, "no-connected-path", "no connected path"},
		{"the peer's own words", func(api.TargetsRequest) (api.TargetsResponse, error) {
			return api.TargetsResponse{}, api.NewProblem("target-failed", "initiator name not allowed").WithField("targets[0]", "initiator name not allowed")
		}, "target-failed", "initiator name not allowed"},
		{"another size", func(api.TargetsRequest) (api.TargetsResponse, error) {
			return api.TargetsResponse{Connected: []api.ConnectedTarget{{Index: 0, Path: "/dev/x", Size: 7}}}, nil
		}, "target-failed", "7 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.peer.modify = c.answer
			p := w.fails(onTarget(), api.StatusFailed, c.code, "connect")
			if p.Disk != "vda" || !strings.Contains(p.Detail, c.detail) || p.Hint == "" {
				t.Errorf("problem %+v", p)
			}
			if len(w.peer.requests) != 0 {
				t.Error("room was made before there was a path")
			}
			w.peer.modify = nil
			w.succeeds(onTarget())
		})
	}
}

// Two disks onto two targets; the second gets no path, and is the one named.
func TestConnectNamesTheDisk(t *testing.T) {
	w := newWorld(t)
	second := w.instance.Disks[0]
	second.Target = "vdb"
	w.instance.Disks = append(w.instance.Disks, second)
	r := onTarget()
	r.Disks = append(r.Disks, api.DiskRequest{Target: "vdb", Connect: &api.Target{Type: "iscsi", IQN: "iqn.y"}})
	w.peer.modify = func(api.TargetsRequest) (api.TargetsResponse, error) {
		return api.TargetsResponse{Connected: []api.ConnectedTarget{{Index: 0, Path: "/dev/x"}}}, nil
	}
	if p := w.fails(r, api.StatusFailed, "no-connected-path", "connect"); p.Disk != "vdb" {
		t.Errorf("disk %q", p.Disk)
	}
	w.peer.modify = func(api.TargetsRequest) (api.TargetsResponse, error) {
		return api.TargetsResponse{}, api.NewProblem("target-failed", "no such LUN").WithField("targets[1]", "no such LUN")
	}
	if p := w.fails(r, api.StatusFailed, "target-failed", "connect"); p.Disk != "vdb" {
		t.Errorf("disk %q", p.Disk)
	}
}

// The login that the record keeps goes with the target.
func TestConnectWithTheRecordsLogin(t *testing.T) {
	w := newWorld(t)
	login := &api.CHAP{User: "u", Secret: "s"}
	w.instance.Record = &api.Record{Targets: []api.Target{{Type: "iscsi", Portal: "192.0.2.1:3260", IQN: "iqn.x", LUN: 1, CHAP: login}, {Type: "iscsi", IQN: "iqn.y"}}}
	w.succeeds(onTarget())
	if got := w.peer.requests[0].Targets; len(got) != 1 || got[0].CHAP == nil || *got[0].CHAP != *login {
		t.Errorf("targets %+v", got)
	}
	// The source lets go of its own.
	if len(w.targets) != 1 || w.targets[0].Add || len(w.targets[0].Targets) != 2 {
		t.Errorf("targets of the source: %+v", w.targets)
	}
}

// Whatever fails before the switchover, the destination is as it was, the
// instance runs on, and the same request then succeeds.
func TestFailingPhases(t *testing.T) {
	for _, c := range []struct {
		name        string
		breakIt     func(w *world)
		code, phase string
		detail      string
	}{
		{"prepare refuses", func(w *world) {
			w.peer.reserve = func(context.Context, api.Incoming) (api.Incoming, error) {
				return api.Incoming{}, api.NewProblem("no-space", "no space left on device").WithDisk("vda")
			}
		}, "no-space", "prepare", "no space left"},
		{"prepare fails later", func(w *world) {
			w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) { in.State = "preparing"; return in, nil }
			w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
				in.State, in.Error = "failed", api.NewProblem("template-failed", "digest differs").WithDisk("vda")
				return in, nil
			}
		}, "template-failed", "prepare", "digest differs"},
		{"the reservation is gone before it moves", func(w *world) {
			w.peer.renew = func(api.Incoming) (api.Incoming, error) {
				return api.Incoming{}, api.NewProblem("not-found", "lease over")
			}
		}, "not-found", "perform", "lease over"},
		{"perform", func(w *world) {
			w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
				return errors.New("internal error: unable to execute 'drive-mirror' on migration-vda-storage")
			}
		}, "migration-failed", "perform", "drive-mirror"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			good := w.mover.migrate
			c.breakIt(w)
			p := w.fails(onTarget(), api.StatusFailed, c.code, c.phase)
			if !strings.Contains(p.Detail, c.detail) || p.Hint == "" {
				t.Errorf("problem %+v", p)
			}
			if c.code != "not-found" && p.Disk != "vda" {
				t.Errorf("disk %q", p.Disk)
			}
			if !slices.Equal(w.observer.results, []string{api.StatusFailed}) || len(w.reg.dropped) != 0 {
				t.Errorf("observed %v, refs dropped %v", w.observer.results, w.reg.dropped)
			}
			w.peer.reserve, w.peer.renew, w.mover.migrate = nil, nil, good
			w.succeeds(onTarget())
		})
	}
}

// A destination that does not answer takes back by itself what it made: nobody
// waits for it for long, and only once though there are two things to take back.
func TestUndoOfAnUnreachablePeer(t *testing.T) {
	w := newWorld(t)
	w.peer.reserve = func(context.Context, api.Incoming) (api.Incoming, error) {
		return api.Incoming{}, api.NewProblem("peer-unreachable", "no route to host")
	}
	asked := 0
	w.peer.renew = func(api.Incoming) (api.Incoming, error) {
		if asked++; asked > 20 { // more than the first wait has room for
			return api.Incoming{}, nil
		}
		return api.Incoming{}, api.NewProblem("peer-unreachable", "no route to host")
	}
	op := w.migrated(onTarget())
	if op.Status != api.StatusFailed || op.Error.Code != "peer-unreachable" || w.peer.removed != 0 {
		t.Errorf("operation %s, %+v; removed %d times, asked %d times", op.Status, op.Error, w.peer.removed, asked)
	}
	last := op.Steps[len(op.Steps)-1]
	if last.Status != "failed" || !strings.Contains(last.Detail, "by itself") {
		t.Errorf("steps %+v; want it said that the lease does it", op.Steps)
	}
}

// The destination's agent is restarted, which fails the migration: what it made is
// taken back as soon as it answers again.
func TestUndoOfAPeerThatIsRestarted(t *testing.T) {
	w := newWorld(t)
	renewed := 0
	w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
		if renewed++; renewed < 3 {
			return api.Incoming{}, api.NewProblem("peer-unreachable", "connection refused")
		}
		return in, nil
	}
	w.fails(api.MigrateRequest{}, api.StatusFailed, "peer-unreachable", "perform")
	if w.peer.removed != 1 {
		t.Errorf("removed %d times; want once", w.peer.removed)
	}
}

// Libvirt's call failed, but the instance has moved: both hosts say so.
func TestMovedAllTheSame(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.here(false, "running")
		return fmt.Errorf("migrate: %w", hypervisor.ErrUnknownOutcome)
	}
	if r := w.succeeds(api.MigrateRequest{}); len(r.Warnings) != 1 || w.exists(w.disk) {
		t.Errorf("result %+v", r)
	}
}

func TestNotPersisted(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.gone("vm")
		return fmt.Errorf("migrate: %w", hypervisor.ErrNotPersisted)
	}
	if r := w.succeeds(api.MigrateRequest{}); len(r.Warnings) != 1 {
		t.Errorf("result %+v; want a warning", r)
	}
}

// Two running copies: a person decides, and nothing is destroyed.
func TestNeedsDecision(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.here(true, "running")
		return errors.New("connection reset")
	}
	op := w.migrated(api.MigrateRequest{})
	if op.Status != api.StatusNeedsDecision || op.Error.Code != "needs-decision" || !strings.Contains(op.Error.Detail, "connection reset") {
		t.Errorf("operation %s, %+v", op.Status, op.Error)
	}
	if n, _ := w.peer.left(); n != 1 || !w.exists(w.disk) || w.peer.removed != 0 {
		t.Errorf("%d reservations, removed %d times", n, w.peer.removed)
	}
	if got := w.libvirt.state("vm"); got != hypervisor.Paused {
		t.Errorf("the copy at the source is %q; want it paused", got)
	}
}

// The instance runs there already: commit is said until it is heard.
func TestCommitIsRepeated(t *testing.T) {
	w := newWorld(t)
	w.peer.commit = func(n int, in api.Incoming) (api.Incoming, error) {
		if !w.exists(w.disk) {
			t.Error("the source's volume went before the destination confirmed")
		}
		if n < 3 {
			return api.Incoming{}, api.NewProblem("peer-unreachable", "connection refused")
		}
		return in, nil
	}
	w.succeeds(api.MigrateRequest{})
	if w.peer.commits != 3 || w.exists(w.disk) || w.peer.removed != 0 {
		t.Errorf("committed %d times, removed %d", w.peer.commits, w.peer.removed)
	}
}

// untilStopped is a migration that lasts until it is aborted.
func untilStopped(ctx context.Context, _ hypervisor.MigrateParams) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", hypervisor.ErrAborted, context.Cause(ctx))
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	moving := make(chan struct{})
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		close(moving)
		return untilStopped(ctx, p)
	}
	op := w.begin(onTarget())
	<-moving
	_, err := w.engine.Cancel(t.Context(), op.ID)
	must(t, err)
	w.failed(w.ended(op.ID), api.StatusCancelled, "cancelled", "perform")
	if !slices.Equal(w.observer.results, []string{api.StatusCancelled}) {
		t.Errorf("observed %v", w.observer.results)
	}
}

// A guest that ends on its way is not the migration's failure: that is said, and
// the destination is as it was.
func TestInstanceEndsOnItsWay(t *testing.T) {
	for name, end := range map[string]func(context.Context) error{
		"libvirt says so": func(context.Context) error { return errors.New("domain is not running") },
		"it takes libvirt long": func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", hypervisor.ErrAborted, context.Cause(ctx))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.mover.migrate = func(ctx context.Context, _ hypervisor.MigrateParams) error {
				d := w.instance.Domain
				d.State = "shutoff"
				w.libvirt.set(d)
				return end(ctx)
			}
			p := w.fails(api.MigrateRequest{Timeout: api.Duration(100 * time.Millisecond)}, api.StatusFailed, "instance-ended", "perform")
			if !strings.Contains(p.Detail, "has shut down at the source") || !strings.Contains(p.Hint, "start it") {
				t.Errorf("problem %+v", p)
			}
		})
	}
}

// Libvirt had moved the instance when it was told to abort: the migration goes on
// to its end, tells that the cancel came too late, and is neither shown as being
// cancelled nor counted as that, even where its end fails.
func TestCancelThatComesTooLate(t *testing.T) {
	for _, c := range []struct{ status, phase string }{
		{api.StatusSucceeded, "clean"},
		{api.StatusFailed, "commit"},
	} {
		t.Run(c.status, func(t *testing.T) {
			w := newWorld(t)
			moving, committing, confirm := make(chan struct{}), make(chan struct{}), make(chan struct{})
			w.mover.migrate = func(ctx context.Context, _ hypervisor.MigrateParams) error {
				close(moving)
				<-ctx.Done()
				w.libvirt.gone("vm")
				return nil
			}
			w.peer.commit = func(_ int, in api.Incoming) (api.Incoming, error) {
				close(committing)
				<-confirm
				if c.status == api.StatusFailed {
					in.Lost = []api.Reason{{Code: "volume-lost", Disk: "vda", Detail: "removed"}}
				}
				return in, nil
			}
			op := w.begin(api.MigrateRequest{})
			<-moving
			_, err := w.engine.Cancel(t.Context(), op.ID)
			must(t, err)
			<-committing
			seen, err := w.engine.Cancel(t.Context(), op.ID)
			if err != nil || seen.Phase != "commit" || seen.Cancellable {
				t.Errorf("while it commits: phase %q, cancellable %t, %v", seen.Phase, seen.Cancellable, err)
			}
			close(confirm)
			if op = w.ended(op.ID); op.Status != c.status || op.Phase != c.phase {
				t.Errorf("%s in phase %q: %+v; want %s in %q", op.Status, op.Phase, op.Error, c.status, c.phase)
			}
			if !slices.Equal(w.observer.results, []string{c.status}) {
				t.Errorf("observed %v", w.observer.results)
			}
			if c.status == api.StatusSucceeded {
				if r := w.result(op); len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "too late") {
					t.Errorf("warnings %q", r.Warnings)
				}
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	for code, r := range map[string]api.MigrateRequest{
		"timeout": {Timeout: api.Duration(time.Millisecond)},
		"stalled": {StallTimeout: api.Duration(time.Millisecond)},
	} {
		t.Run(code, func(t *testing.T) {
			w := newWorld(t)
			w.mover.migrate = untilStopped
			w.fails(r, api.StatusFailed, code, "perform")
		})
	}
}

// Before the first byte a destination that answers is given more time than the
// stall timeout, and one that does not is not.
func TestSlowStartIsNoStall(t *testing.T) {
	w := newWorld(t)
	var later, looks atomic.Int64 // hours
	w.options.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load()) * time.Hour) }
	w.restart()
	renewals := func(fn func(api.Incoming) (api.Incoming, error)) {
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = fn
	}
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		defer renewals(nil) // the destination is back when it is to clean up
		return untilStopped(ctx, p)
	}
	w.mover.job = func() hypervisor.Job { looks.Add(1); return hypervisor.Job{Kind: hypervisor.JobNone} }
	op := w.begin(api.MigrateRequest{StallTimeout: api.Duration(time.Hour), Timeout: api.Duration(100 * time.Hour)})
	looked := func() {
		for seen := looks.Load(); looks.Load() < seen+3; {
			if t.Context().Err() != nil {
				t.Fatal("nobody looks any more")
			}
			runtime.Gosched()
		}
	}
	looked()
	later.Store(2)
	looked()
	if now, err := w.engine.Get(t.Context(), op.ID); err != nil || now.Ended() {
		t.Fatalf("after twice the stall timeout it is %s, %v; want it to go on", now.Status, err)
	}
	renewals(func(api.Incoming) (api.Incoming, error) {
		return api.Incoming{}, api.NewProblem("peer-unreachable", "no route to host")
	})
	w.failed(w.ended(op.ID), api.StatusFailed, "stalled", "perform")
}

// The limit of the downtime is set as soon as QEMU takes it, once.
func TestMaxDowntime(t *testing.T) {
	w := newWorld(t)
	w.mover.job = func() hypervisor.Job {
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseDisk, DiskDone: mib}
	}
	tuned := make(chan struct{})
	go func() {
		defer close(tuned)
		for {
			w.mover.mu.Lock()
			n := len(w.mover.downs)
			w.mover.mu.Unlock()
			if n > 0 || t.Context().Err() != nil {
				return
			}
		}
	}()
	good := w.mover.migrate
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error { <-tuned; return good(ctx, p) }
	w.succeeds(api.MigrateRequest{MaxDowntime: api.Duration(40 * time.Millisecond)})
	if !slices.Equal(w.mover.downs, []time.Duration{40 * time.Millisecond}) {
		t.Errorf("downtimes %v", w.mover.downs)
	}
}

// The same request again gives the same operation.
func TestMigrateAgain(t *testing.T) {
	w := newWorld(t)
	key := api.Idempotency{Key: "k", Fingerprint: "f"}
	r := api.MigrateRequest{Destination: "https://b:8470"}
	first, err := w.Migrate(t.Context(), vm, r, key)
	must(t, err)
	w.ended(first.ID)
	again, err := w.Migrate(t.Context(), vm, r, key)
	if err != nil || again.ID != first.ID || len(w.mover.params) != 1 {
		t.Errorf("again: %+v, %v", again, err)
	}
}

// Only the very files that were noted before anything moved are removed.
func TestCleanGoesByIdentity(t *testing.T) {
	other := func(disk string) func(w *world) {
		return func(w *world) {
			w.libvirt.set(hypervisor.Domain{Name: "other", UUID: "other", State: hypervisor.Running, Persistent: true})
			w.libvirt.xml["other"] = domainXML("other", disk)
		}
	}
	for _, c := range []struct {
		name     string
		change   func(w *world)
		r        api.MigrateRequest
		kept     bool
		warnings int
	}{
		{name: "its own"},
		{name: "kept on request", r: api.MigrateRequest{KeepSourceVolumes: true}, kept: true},
		{name: "replaced while it moved", change: func(w *world) {
			good := w.mover.migrate
			w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
				w.replace(w.disk)
				return good(ctx, p)
			}
		}, kept: true, warnings: 1},
		{name: "another instance stands on it", change: func(w *world) { other(fileDisk("vda", "/x", w.disk))(w) }, kept: true, warnings: 1},
		{name: "another instance has it", change: func(w *world) { other(fileDisk("vda", w.disk))(w) }, kept: true, warnings: 1},
		{name: "another instance has it by a hard link", change: func(w *world) {
			link := filepath.Join(w.t.TempDir(), "link")
			must(w.t, os.Link(w.disk, link))
			other(fileDisk("vda", link))(w)
		}, kept: true, warnings: 1},
		{name: "another instance stands on it by a symbolic link", change: func(w *world) {
			link := filepath.Join(w.t.TempDir(), "link")
			must(w.t, os.Symlink(w.dir, link))
			other(fileDisk("vda", "/x", filepath.Join(link, filepath.Base(w.disk))))(w)
		}, kept: true, warnings: 1},
		{name: "whether another instance has it is not known", change: func(w *world) {
			other("")(w)
			w.libvirt.unread = map[string]error{"other": errors.New("it has no answer")}
		}, kept: true, warnings: 1},
		{name: "another instance has gone since", change: func(w *world) {
			other(fileDisk("vda", w.disk))(w)
			w.libvirt.unread = map[string]error{"other": hypervisor.ErrNoDomain}
		}},
		{name: "another instance has one that begins with its path", change: func(w *world) { other(fileDisk("vda", w.disk+".old"))(w) }},
		{name: "another instance has one whose path it begins with", change: func(w *world) { other(fileDisk("vda", strings.TrimSuffix(w.disk, ".qcow2")))(w) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			neighbours := []string{w.disk + ".old", strings.TrimSuffix(w.disk, ".qcow2"), filepath.Join(w.dir, "a"+filepath.Base(w.disk))}
			for _, n := range neighbours {
				w.write(n)
			}
			if c.change != nil {
				c.change(w)
			}
			r := w.succeeds(c.r)
			if w.exists(w.disk) != c.kept || len(r.Warnings) != c.warnings || (len(w.reg.dropped) == 0) != c.kept {
				t.Errorf("volume there: %v; warnings %q; refs dropped %v", w.exists(w.disk), r.Warnings, w.reg.dropped)
			}
			for _, n := range neighbours {
				if !w.exists(n) {
					t.Errorf("%s is gone", n)
				}
			}
		})
	}
}
