package incoming_test

import (
	"os"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Whoever removes or replaces a volume under a migration is noticed: at the
// next renewal, and at the latest when the instance has arrived.
func TestVolumeLost(t *testing.T) {
	for what, act := range map[string]func(path string) error{
		"has been removed": os.Remove,
		"has been replaced": func(path string) error {
			other := path + ".other"
			if err := os.WriteFile(other, []byte("other bytes"), 0o600); err != nil {
				return err
			}
			return os.Rename(other, path)
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			in := w.ready(w.request())
			path := in.Disks[0].Path
			if got, err := w.Renew(t.Context(), opID); err != nil || len(got.Lost) != 0 {
				t.Fatalf("lost %v, error %v; want none yet", got.Lost, err)
			}
			must(t, act(path))
			lost := func(in api.Incoming, err error) {
				t.Helper()
				must(t, err)
				if len(in.Lost) != 1 || in.Lost[0].Disk != in.Disks[0].Target || !strings.Contains(in.Lost[0].Detail, path) || !strings.Contains(in.Lost[0].Detail, what) {
					t.Errorf("lost %+v; want %s of disk %s, and what became of it", in.Lost, path, in.Disks[0].Target)
				}
			}
			lost(w.Renew(t.Context(), opID))
			w.arrive(hypervisor.Domain{State: hypervisor.Running})
			lost(w.Commit(t.Context(), opID, api.CommitRequest{}))
			lost(w.Commit(t.Context(), opID, api.CommitRequest{})) // a source that lost the answer
		})
	}
}

// A pool that cannot be looked at is not one whose volumes are gone: what was
// made there is removed when it can be.
func TestVolumesOfAPoolThatFails(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	folder, aside := w.pool, w.pool+".aside"
	must(t, os.Rename(folder, aside))
	must(t, os.Symlink(folder, folder)) // every look ends with ELOOP
	if err := w.Remove(t.Context(), opID); err == nil {
		t.Fatal("it says that the volumes are removed; want the pool's error")
	}
	must(t, os.Remove(folder))
	must(t, os.Rename(aside, folder))
	w.wantFiles("vm.qcow2")
	w.wantJournal(1)
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles()
	w.wantJournal(0)
}
