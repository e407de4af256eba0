package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/durable"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
)

// Entry is one start that is owed.
type Entry struct {
	Again
	// BootID is the run of the kernel in which it was noted, and Noted when, as
	// the time since that began: what ends later has been started since.
	BootID string        `json:"boot_id"`
	Noted  time.Duration `json:"noted_ns"`
	Since  time.Time     `json:"since"` // the same, by the clock
	// Attempts are those that were begun and did not have to wait.
	Attempts int `json:"attempts"`
	// Failure is why the last one failed.
	Failure string `json:"failure,omitempty"`
}

const (
	ledgerName = "starts-owed.json"
	maxLedger  = 16 << 20
)

// Ledger is what has yet to be started again. It is on disk before the first
// start: neither a restart of the agent nor the record, which a start that
// failed leaves as "stopped", takes from it. Its methods may be called at the
// same time.
type Ledger struct {
	path string

	mu      sync.Mutex
	entries []Entry // the lowest priority first
}

// OpenLedger reads what is owed. With a ledger that cannot be read it gives an
// empty one, and the error.
func OpenLedger(p shutdown.Place) (*Ledger, error) {
	l := &Ledger{path: filepath.Join(p.Dir, ledgerName)}
	var err error
	l.entries, err = readLedger(l.path)
	return l, err
}

func readLedger(path string) (out []Entry, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxLedger {
		err = fmt.Errorf("%d bytes, more than %d", info.Size(), maxLedger)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("what is to be started again, %s: %w", path, err)
	}
	return out, nil
}

// Owes tells, from the disk, whether an instance that ended at that time since
// the host's boot has yet to be started again; 0 = at some time. One that ended
// after it was noted did so when it had been started.
func Owes(p shutdown.Place, uuid string, at time.Duration) bool {
	entries, _ := readLedger(filepath.Join(p.Dir, ledgerName)) // damaged: the marker may know
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.UUID == uuid && (at == 0 || at < e.Noted) }) {
		return true
	}
	m, taken, err := p.Taken()
	return err == nil && taken && slices.ContainsFunc(m.Ran, func(r shutdown.Ran) bool { return r.UUID == uuid && !r.Stopping })
}

// All gives what is owed, the lowest priority first.
func (l *Ledger) All() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Drop forgets an instance: the operator wants something else.
func (l *Ledger) Drop(ref api.Ref) error {
	return l.change(func(all []Entry) []Entry {
		return slices.DeleteFunc(all, func(e Entry) bool { return e.Ref() == ref })
	})
}

// done forgets one that was dealt with.
func (l *Ledger) done(uuid string) error {
	return l.change(func(all []Entry) []Entry {
		return slices.DeleteFunc(all, func(e Entry) bool { return e.UUID == uuid })
	})
}

// edit changes an entry; false where it is owed no more.
func (l *Ledger) edit(uuid string, f func(*Entry)) (e Entry, ok bool, err error) {
	err = l.change(func(all []Entry) []Entry {
		if i := slices.IndexFunc(all, func(e Entry) bool { return e.UUID == uuid }); i >= 0 {
			f(&all[i])
			e, ok = all[i], true
		}
		return all
	})
	return e, ok, err
}

// change writes what has changed, durably. Where that fails the change holds
// for this run of the agent.
func (l *Ledger) change(f func([]Entry) []Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.entries
	l.entries = f(slices.Clone(was))
	if slices.Equal(was, l.entries) {
		return nil
	}
	if len(l.entries) == 0 {
		return durable.Remove(l.path)
	}
	data, err := json.Marshal(l.entries)
	if err == nil {
		err = durable.WriteFile(l.path, data)
	}
	if err != nil {
		return fmt.Errorf("noting what is to be started again: %w", err)
	}
	return nil
}
