package budget

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Store keeps what was set across restarts. A write has reached the disk when it
// returns.
type Store interface {
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	List(bucket string, fn func(key string, value []byte) error) error
}

const (
	bucket = "host-bandwidth"
	key    = "set"
)

// Setting is a total that somebody has set, in bytes per second, in place of the
// configured one.
type Setting struct {
	Bandwidth int64     `json:"bandwidth"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
}

// Kept is a budget whose total outlives the agent once it was set.
type Kept struct {
	*Budget
	store      Store
	configured int64
	mu         sync.Mutex
	set        *Setting // nil = as configured; guarded by mu
}

// Open makes the budget of the host: what was set last, or else as configured, in
// bytes per second; 0 = no limit. With an error, which says that what was set is
// not known, the budget is as configured, and good.
func Open(s Store, configured int64) (*Kept, error) {
	k := &Kept{Budget: New(configured), store: s, configured: max(configured, 0)}
	err := s.List(bucket, func(_ string, value []byte) error {
		var set Setting
		if err := json.Unmarshal(value, &set); err != nil {
			return fmt.Errorf("the bandwidth that was set is damaged in the store: %w", err)
		}
		k.set = &set
		return nil
	})
	if err == nil && k.set != nil {
		k.Set(k.set.Bandwidth)
	}
	return k, err
}

// Change sets the total, for good. Nothing has changed when it fails: what holds
// now and what holds after a restart are the same.
func (k *Kept) Change(s Setting) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding the bandwidth: %w", err)
	}
	if err := k.store.Put(bucket, key, data); err != nil {
		return fmt.Errorf("keeping the bandwidth: %w", err)
	}
	k.set = &s
	k.Set(s.Bandwidth)
	return nil
}

// Reset goes back to the configured total.
func (k *Kept) Reset() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.store.Delete(bucket, key); err != nil {
		return fmt.Errorf("forgetting the bandwidth that was set: %w", err)
	}
	k.set = nil
	k.Set(k.configured)
	return nil
}

// Origin says where the total comes from: set by somebody, or nil as configured;
// and what is configured.
func (k *Kept) Origin() (set *Setting, configured int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set, k.configured
}
