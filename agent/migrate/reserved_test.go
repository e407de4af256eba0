package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// What the destination did not make libvirt would make by itself, empty.
func TestNothingMovesOntoWhatWasNotMade(t *testing.T) {
	for name, c := range map[string]struct {
		phase  string
		answer func(in api.Incoming) api.Incoming
	}{
		"no volume":      {"prepare", func(in api.Incoming) api.Incoming { in.Disks = nil; return in }},
		"no path":        {"prepare", func(in api.Incoming) api.Incoming { in.Disks[0].Path = ""; return in }},
		"another format": {"prepare", func(in api.Incoming) api.Incoming { in.Disks[0].Format = "raw"; return in }},
		"given up since": {"perform", func(in api.Incoming) api.Incoming { return in }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) { return c.answer(in), nil }
			w.peer.renew = func(in api.Incoming) (api.Incoming, error) { in.State = "failed"; return in, nil }
			w.fails(api.MigrateRequest{}, api.StatusFailed, "peer-failed", c.phase)
			if len(w.mover.params) != 0 {
				t.Error("it was moved")
			}
		})
	}
}

func TestNothingMovesThatWasNotPlanned(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"a disk was plugged in": func(w *world) {
			w.libvirt.xml["vm"] = domainXML("vm", fileDisk("vda", w.disk)+fileDisk("vdb", w.disk+"2"))
		},
		"another instance has the name": func(w *world) {
			w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: "22222222-2222-4333-8444-555555555555", State: hypervisor.Running})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) { change(w); return in, nil }
			w.fails(api.MigrateRequest{}, api.StatusFailed, "conflict", "perform")
			if len(w.mover.params) != 0 {
				t.Error("it was moved")
			}
		})
	}
}

// A drive that the guest has emptied is no other disk.
func TestEmptiedDriveMoves(t *testing.T) {
	w := newWorld(t)
	cdrom := "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"
	w.libvirt.xml["vm"] = domainXML("vm", fileDisk("vda", w.disk)+cdrom)
	var err error
	w.instance.Parsed, err = domainxml.Parse(w.libvirt.xml["vm"])
	must(t, err)
	w.succeeds(api.MigrateRequest{})
}

// full is a store on a disk that takes nothing once it is full.
type full struct {
	store.Store
	now atomic.Bool
}

func (f *full) Put(bucket, key string, value []byte) error {
	if f.now.Load() {
		return fmt.Errorf("put: %w", unix.ENOSPC)
	}
	return f.Store.Put(bucket, key, value)
}

func (f *full) Update(fn func(store.Tx) error) error {
	if f.now.Load() {
		return fmt.Errorf("update: %w", unix.ENOSPC)
	}
	return f.Store.Update(fn)
}

// The source's disk fills up while the instance moves: it has moved all the
// same, and its destination has to hear so.
func TestMovedWhileTheJournalTakesNothing(t *testing.T) {
	w := newWorld(t)
	disk := &full{Store: w.store}
	w.store = disk
	w.start()
	moves := w.mover.migrate
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		disk.now.Store(true)
		return moves(ctx, p)
	}
	op := w.begin(api.MigrateRequest{})
	w.result(w.ended(op.ID))
	if w.peer.commits != 1 || w.peer.removed != 0 || w.exists(w.disk) {
		t.Errorf("%d commits, removed %d times, source volume there: %v", w.peer.commits, w.peer.removed, w.exists(w.disk))
	}
	disk.now.Store(false)
}

// A libvirt that does not say whether it is still moving the instance has not
// said that it is not.
func TestJobUnknownIsNoVerdict(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.mover.jobErr = func() error {
		if asked++; asked < 3 {
			return errors.New("timed out")
		}
		return nil
	}
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		return fmt.Errorf("migrate: %w", hypervisor.ErrUnknownOutcome)
	}
	p := w.fails(api.MigrateRequest{}, api.StatusFailed, "migration-failed", "perform")
	if asked < 3 || !strings.Contains(p.Detail, "outcome") {
		t.Errorf("asked %d times: %+v", asked, p)
	}
}

// A guest that shuts down while it is moved runs on nowhere, and nobody says so.
func TestGuestShutsDownWhileItMoves(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: w.instance.Domain.UUID, State: hypervisor.Shutoff, Persistent: true})
		return errors.New("operation failed: domain is not running")
	}
	p := w.fails(api.MigrateRequest{}, api.StatusFailed, "instance-ended", "perform")
	if strings.Contains(p.Hint, "runs on") || !strings.Contains(p.Detail, "shut down") {
		t.Errorf("detail %q, hint %q", p.Detail, p.Hint)
	}
}
