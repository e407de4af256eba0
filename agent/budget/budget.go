package budget

import (
	"maps"
	"slices"
	"sync"
)

// Budget is what a host may send for migrations, in bytes per second, and who
// takes part. The zero value has no limit.
type Budget struct {
	mu    sync.Mutex
	total int64
	caps  map[string]int64
}

// New makes a budget; 0 = no limit.
func New(total int64) *Budget { return &Budget{total: max(total, 0)} }

// Set changes the total; 0 = no limit.
func (b *Budget) Set(total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total = max(total, 0)
}

// Total is what there is to share; 0 = no limit.
func (b *Budget) Total() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}

// Join takes part, with a cap of its own (0 = none), until leave is called.
func (b *Budget) Join(id string, most int64) (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.caps == nil {
		b.caps = map[string]int64{}
	}
	b.caps[id] = max(most, 0)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.caps, id)
	}
}

// Shares gives each one's share; 0 = no limit.
func (b *Budget) Shares() map[string]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := slices.Sorted(maps.Keys(b.caps))
	caps := make([]int64, len(ids))
	for i, id := range ids {
		caps[i] = b.caps[id]
	}
	out := map[string]int64{}
	for i, s := range Share(b.total, caps) {
		out[ids[i]] = s
	}
	return out
}

// Streams splits a migration's share among what it sends at the same time: so
// many disk copies that are not in step with the guest yet, so many that are,
// and memory, where that has begun. It gives the limit of each copy of either
// kind, and of memory. A copy in step only follows what the guest writes: all
// of those have a fifth, and the rest is for what has to get to its end.
func Streams(share int64, copying, inStep int, memory bool) (copies, following, mem int64) {
	if share <= 0 {
		return 0, 0, 0
	}
	left := share
	busy := int64(copying)
	if memory {
		busy++
	}
	if inStep > 0 {
		part := share
		if busy > 0 {
			part = share / 5
		}
		following = max(part/int64(inStep), 1)
		left -= part
	}
	if busy > 0 {
		each := max(left/busy, 1)
		copies, mem = each, each
	}
	if !memory {
		mem = 0
	}
	if copying == 0 {
		copies = 0
	}
	return copies, following, mem
}
