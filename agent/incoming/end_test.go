package incoming_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func (w *world) managed() api.IncomingRequest {
	r := w.request()
	base := qcow2(w.t, filepath.Join(w.other, "base.qcow2"), "", "1")
	base.Template = "rocky9"
	r.Disks[0].Place.Backing, r.Disks[0].Place.Chain = &base, []api.Layer{base}
	r.Targets = []api.Target{{Type: "iscsi", IQN: "iqn.x"}}
	r.Record = api.Record{Name: "vm", UUID: uuid, DomainXML: "<domain>of the source</domain>", PowerState: "running",
		Targets: []api.Target{{Type: "iscsi", IQN: "iqn.source"}},
		Disks:   []api.RecordDisk{{Target: "vda", Path: "/at/the/source", Format: "raw", Owned: true}}}
	return r
}

// The record came with the reservation: committing only writes it down, as it
// is here.
func TestCommit(t *testing.T) {
	for _, c := range []struct {
		state hypervisor.State
		power string
	}{{hypervisor.Running, "running"}, {hypervisor.Paused, "running"}, {hypervisor.Shutoff, "stopped"}} {
		t.Run(string(c.state), func(t *testing.T) {
			w := newWorld(t)
			in := w.ready(w.managed())
			w.arrive(hypervisor.Domain{State: c.state})
			got, err := w.Commit(t.Context(), opID, api.CommitRequest{})
			must(t, err)
			if got.State != "committed" || got.Downtime.Std() != 120*time.Millisecond || got.MemoryBytes != 7*mib {
				t.Errorf("reservation %+v", got)
			}
			rec, err := w.Records.Read(api.Ref{Name: "vm"})
			must(t, err)
			if rec.UUID != uuid || rec.PowerState != c.power || rec.DomainXML != "<domain>of the destination</domain>" || rec.Targets[0].IQN != "iqn.x" {
				t.Errorf("record %+v", rec)
			}
			if d := rec.Disks[0]; d.Path != in.Disks[0].Path || d.Format != "qcow2" || d.Volume != "vm.qcow2" || !d.Owned {
				t.Errorf("recorded disk %+v", d)
			}
			if w.reg.refs[in.Disks[0].Path] != "rocky9" || len(w.libvirt.refreshed) != 1 {
				t.Errorf("refs %v, refreshed %v", w.reg.refs, w.libvirt.refreshed)
			}
			if again, err := w.Commit(t.Context(), opID, api.CommitRequest{}); err != nil || again.State != "committed" {
				t.Errorf("twice: %+v, %v", again, err)
			}
			wantProblem(t, w.Remove(t.Context(), opID), "conflict", "belongs to this host")
			w.wantFiles("vm.qcow2")
		})
	}
}

// An instance that nobody registered stays so.
func TestCommitUnmanaged(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Running})
	_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
	must(t, err)
	if _, err := w.Records.Read(api.Ref{Name: "vm"}); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("record: %v", err)
	}
}

func TestCommitTooEarly(t *testing.T) {
	for name, d := range map[string][]hypervisor.Domain{
		"arriving": {{Name: "vm", UUID: uuid, State: hypervisor.Paused, Incoming: true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ready(w.request())
			w.libvirt.set(d...)
			_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
			if p := wantProblem(t, err, "conflict", "does not run at the destination"); p.Phase != "commit" {
				t.Errorf("phase %q", p.Phase)
			}
			w.wantFiles("vm.qcow2")
		})
	}
}

// A transient instance may arrive and shut down before the source has said so:
// then its volumes are the only ones with its last writes.
func TestCommitOfWhatHasEndedSince(t *testing.T) {
	for name, d := range map[string][]hypervisor.Domain{
		"nothing":          nil,
		"another instance": {{Name: "vm", UUID: "other", State: hypervisor.Running}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			in := w.ready(w.managed())
			w.libvirt.set(d...)
			_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
			must(t, err)
			w.pass(2 * lease)
			w.Sweep(t.Context())
			w.wantFiles("vm.qcow2")
			rec, err := w.Records.Read(api.Ref{Name: "vm"})
			must(t, err)
			if rec.PowerState != "stopped" || rec.DomainXML != "" || rec.Disks[0].Path != in.Disks[0].Path {
				t.Errorf("record %+v; want where the volumes are, and no XML of another host", rec)
			}
		})
	}
}

// What was never made whole cannot have run here.
func TestCommitOfWhatFailed(t *testing.T) {
	w := newWorld(t)
	w.runner.before = func(int) error { return errors.New("no qemu-img") }
	w.settled(w.request())
	_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
	wantProblem(t, err, "conflict", "does not run at the destination")
}

func TestRemove(t *testing.T) {
	w := newWorld(t)
	w.ready(w.managed())
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles()
	w.wantJournal(0)
	if len(w.targets) != 1 || len(w.libvirt.refreshed) != 1 || len(w.reg.refs) != 0 {
		t.Errorf("targets %v, refreshed %v, refs %v", w.targets, w.libvirt.refreshed, w.reg.refs)
	}
	must(t, w.Remove(t.Context(), opID))
}

// Never the volumes of an instance that is here.
func TestRemoveIsRefused(t *testing.T) {
	for _, state := range []hypervisor.State{hypervisor.Running, hypervisor.Shutoff} {
		w := newWorld(t)
		w.ready(w.request())
		w.arrive(hypervisor.Domain{State: state})
		wantProblem(t, w.Remove(t.Context(), opID), "conflict", "its volumes stay")
		w.wantFiles("vm.qcow2")
		w.wantJournal(1)
	}
}

// Libvirt takes a moment to take down what was arriving.
func TestRemoveWaits(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Paused, Incoming: true})
	w.libvirt.looks = 0
	w.libvirt.onDomain = func(n int) {
		if n == 2 {
			w.libvirt.set()
		}
	}
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles()

	w.libvirt.onDomain = nil
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Paused, Incoming: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Remove(ctx, opID); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want the caller's own", err)
	}
	w.wantFiles("vm.qcow2")
}

// Only the very file that was made is ever deleted.
func TestRemoveGoesByIdentity(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	path := filepath.Join(w.pool, "vm.qcow2")
	must(t, os.Rename(path, filepath.Join(w.pool, "kept")))
	must(t, os.WriteFile(path, []byte("another"), 0o600))
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles("kept", "vm.qcow2")
}

// A preparation ends with its reservation.
func TestRemoveWhilePreparing(t *testing.T) {
	w := newWorld(t)
	staging := make(chan struct{})
	w.reg.stage = func(ctx context.Context, _ api.StageLayer) (string, error) {
		close(staging)
		<-ctx.Done()
		return "", ctx.Err()
	}
	r := w.request()
	r.Stage = []api.StageLayer{{Template: "rocky9"}}
	reserved := make(chan error, 1)
	go func() { _, err := w.Reserve(t.Context(), r); reserved <- err }()
	<-staging
	must(t, w.Remove(t.Context(), opID))
	if err := <-reserved; err == nil {
		t.Error("the reservation was given")
	}
	w.wantFiles()
	w.wantJournal(0)
}

// A source that is gone costs its destination nothing.
func TestLeaseRunsOut(t *testing.T) {
	for _, c := range []struct {
		name    string
		domain  []hypervisor.Domain
		down    error
		files   []string
		journal int
		state   string // of the reservation, where it is still there
		held    bool
	}{
		{"the instance is not here", nil, nil, nil, 0, "", false},
		{"it runs here", []hypervisor.Domain{{Name: "vm", UUID: uuid, State: hypervisor.Running}}, nil, []string{"vm.qcow2"}, 1, "committed", false},
		{"it has shut down here", []hypervisor.Domain{{Name: "vm", UUID: uuid, State: hypervisor.Shutoff}}, nil, []string{"vm.qcow2"}, 1, "committed", false},
		{"it is arriving", []hypervisor.Domain{{Name: "vm", UUID: uuid, State: hypervisor.Paused, Incoming: true}}, nil, []string{"vm.qcow2"}, 1, "ready", false},
		{"it is paused", []hypervisor.Domain{{Name: "vm", UUID: uuid, State: hypervisor.Paused}}, nil, []string{"vm.qcow2"}, 1, "ready", true},
		{"libvirt does not answer", []hypervisor.Domain{{Name: "vm", UUID: uuid}}, hypervisor.ErrDown, []string{"vm.qcow2"}, 1, "ready", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.ready(w.request())
			w.libvirt.set(c.domain...)
			w.libvirt.down = c.down
			w.pass(lease - time.Second)
			w.Sweep(t.Context())
			if in, err := w.Get(t.Context(), opID); err != nil || in.State != "ready" {
				t.Fatalf("within the lease: %+v, %v", in, err)
			}
			w.pass(2 * time.Second)
			w.Sweep(t.Context())
			w.wantFiles(c.files...)
			w.wantJournal(c.journal)
			in, err := w.Get(t.Context(), opID)
			if c.state == "" {
				wantProblem(t, err, "not-found")
				return
			}
			if err != nil || in.State != c.state {
				t.Fatalf("reservation %+v, %v; want %s", in, err, c.state)
			}
			if (in.Held != "") != c.held {
				t.Errorf("held: %q", in.Held)
			}
			if c.state == "ready" && !c.held && !in.Lease.Equal(w.clock().Add(lease)) {
				t.Errorf("lease %s; want another term", in.Lease)
			}
		})
	}
}

func TestRenew(t *testing.T) {
	w := newWorld(t)
	r := w.request()
	r.Lease = api.Duration(10 * time.Second)
	w.ready(r)
	for range 5 {
		w.pass(9 * time.Second)
		_, err := w.Renew(t.Context(), opID)
		must(t, err)
		w.Sweep(t.Context())
	}
	w.wantFiles("vm.qcow2")
}

// A committed reservation answers on, for a source that lost the answer, and
// is forgotten in the end.
func TestCommittedIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Running})
	_, err := w.Commit(t.Context(), opID, api.CommitRequest{})
	must(t, err)
	w.pass(23 * time.Hour)
	w.Sweep(t.Context())
	w.wantJournal(1)
	w.pass(2 * time.Hour)
	w.Sweep(t.Context())
	w.wantJournal(0)
	w.wantFiles("vm.qcow2")
}

// One that was committed without its source answers until that has heard of it,
// however long its host was down: to be not known would say that it never came.
func TestCommittedAloneIsKeptForItsSource(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.arrive(hypervisor.Domain{State: hypervisor.Running})
	w.pass(2 * lease)
	w.Sweep(t.Context())
	w.pass(30 * 24 * time.Hour)
	w.Close()
	w.start()
	w.Sweep(t.Context())
	in, err := w.Renew(t.Context(), opID)
	if err != nil || in.State != "committed" {
		t.Fatalf("its source finds %+v, %v", in, err)
	}
	_, err = w.Commit(t.Context(), opID, api.CommitRequest{})
	must(t, err)
	w.pass(23 * time.Hour) // whose answer may be lost
	w.Sweep(t.Context())
	w.wantJournal(1)
	w.pass(2 * time.Hour)
	w.Sweep(t.Context())
	w.wantJournal(0)
}

// A restart of the agent costs nobody his lease.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	w.pass(lease - time.Second)
	w.Close()
	w.start()
	w.pass(lease - time.Second)
	w.Sweep(t.Context())
	if in, err := w.Get(t.Context(), opID); err != nil || in.State != "ready" || len(in.Disks) != 1 {
		t.Fatalf("reservation %+v, %v", in, err)
	}
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles()
	must(t, w.store.Put("incoming", "x", []byte("{")))
	if _, err := newService(w); err == nil {
		t.Error("a damaged journal was taken for an empty one")
	}
}

// A preparation dies with the agent: its source is told, and what was made, and
// what was being made, goes.
func TestRestartWhilePreparing(t *testing.T) {
	for n, name := range []string{"the first volume", "the second volume"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.request()
			second := r.Disks[0]
			second.Target, second.Place.Path = "vdb", filepath.Join(w.pool, "vm-b.qcow2")
			r.Disks = append(r.Disks, second)
			after := w.store
			// The crash comes when the file exists and is journalled; the old
			// process may even have gone on a little.
			w.runner.before = func(run int) error {
				if run == n+1 {
					after = w.crashed()
				}
				return nil
			}
			w.ready(r)
			w.Close()
			w.store, w.options.Store = after, after
			w.start()
			in, err := w.Get(t.Context(), opID)
			if err != nil || in.State != "failed" {
				t.Fatalf("reservation %+v, %v", in, err)
			}
			_, err = w.Reserve(t.Context(), r)
			wantProblem(t, err, "interrupted")
			if n == 0 {
				// Of the second the old journal knew nothing: it is not touched.
				must(t, os.Remove(second.Place.Path))
			}
			w.pass(2 * lease)
			w.Sweep(t.Context())
			w.wantFiles()
			w.wantJournal(0)
		})
	}
}

// An orderly stop takes its unfinished preparations back itself.
func TestCloseStopsPreparing(t *testing.T) {
	w := newWorld(t)
	staging := make(chan struct{})
	w.reg.stage = func(ctx context.Context, _ api.StageLayer) (string, error) {
		close(staging)
		<-ctx.Done()
		return "", ctx.Err()
	}
	r := w.request()
	r.Stage = []api.StageLayer{{Template: "rocky9"}}
	done := make(chan struct{})
	go func() { defer close(done); _, _ = w.Reserve(t.Context(), r) }()
	<-staging
	w.Close()
	<-done
	w.wantFiles()
}
