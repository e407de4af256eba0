package budget_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/budget"
	"github.com/wherry-kvm/wherry/agent/store"
)

func open(t *testing.T, s budget.Store, configured int64) *budget.Kept {
	t.Helper()
	k, err := budget.Open(s, configured)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func wantTotal(t *testing.T, k *budget.Kept, total int64, set *budget.Setting) {
	t.Helper()
	got, _ := k.Origin()
	if diff := cmp.Diff(set, got); diff != "" || k.Total() != total {
		t.Errorf("total %d; want %d; set (-want +got):\n%s", k.Total(), total, diff)
	}
}

// What was set holds after a restart, whatever the configuration says by then,
// until it is taken back.
func TestWhatWasSetIsKept(t *testing.T) {
	s := store.Memory()
	set := budget.Setting{Bandwidth: 7, By: "somebody", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	k := open(t, s, 100)
	wantTotal(t, k, 100, nil)
	if err := k.Change(set); err != nil {
		t.Fatal(err)
	}
	wantTotal(t, k, 7, &set)
	k = open(t, s, 200)
	wantTotal(t, k, 7, &set)
	none := budget.Setting{By: "another"}
	if err := k.Change(none); err != nil {
		t.Fatal(err)
	}
	k = open(t, s, 200)
	wantTotal(t, k, 0, &none) // set to no limit is set, too
	for range 2 {
		if err := k.Reset(); err != nil {
			t.Fatal(err)
		}
		wantTotal(t, k, 200, nil)
	}
	wantTotal(t, open(t, s, 200), 200, nil)
}

// full is a disk that takes nothing.
type full struct{ store.Store }

var errFull = errors.New("no space left on device")

func (full) Put(string, string, []byte) error { return errFull }
func (full) Delete(string, string) error      { return errFull }

// What cannot be kept is not done either: it would be gone with the next start.
func TestWhatIsNotKeptIsNotDone(t *testing.T) {
	k := open(t, full{store.Memory()}, 100)
	if err := k.Change(budget.Setting{Bandwidth: 7}); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
	wantTotal(t, k, 100, nil)
	if err := k.Reset(); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
}

// A damaged value is told, and keeps no agent from starting.
func TestDamagedSetting(t *testing.T) {
	s := store.Memory()
	if err := s.Put("host-bandwidth", "set", []byte("{")); err != nil {
		t.Fatal(err)
	}
	k, err := budget.Open(s, 100)
	if err == nil {
		t.Error("no error")
	}
	wantTotal(t, k, 100, nil)
}
