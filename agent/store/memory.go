package store

import (
	"maps"
	"slices"
	"sync"
)

// Memory gives a store that lives in memory, for tests. It passes the same
// conformance suite as [Bolt]; its writes are durable until the process ends.
func Memory() Store { return &memory{buckets: buckets{}, ids: map[string]uint64{}} }

type memory struct {
	mu      sync.Mutex
	closed  bool
	buckets buckets
	ids     map[string]uint64
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *memory) Put(bucket, key string, value []byte) error {
	return m.Update(func(tx Tx) error { return tx.Put(bucket, key, value) })
}

func (m *memory) Get(bucket, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	return m.buckets.Get(bucket, key)
}

func (m *memory) Delete(bucket, key string) error {
	return m.Update(func(tx Tx) error { return tx.Delete(bucket, key) })
}

func (m *memory) List(bucket string, fn func(key string, value []byte) error) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	all := m.buckets.pairs(bucket)
	m.mu.Unlock()
	return each(all, fn)
}

func (m *memory) Update(fn func(Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	// A deep enough copy: values are never changed in place.
	draft := buckets{}
	for name, b := range m.buckets {
		draft[name] = maps.Clone(b)
	}
	if err := fn(draft); err != nil {
		return err
	}
	m.buckets = draft
	return nil
}

func (m *memory) NextID(bucket string) (uint64, error) {
	if err := check(bucket, "-"); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, ErrClosed
	}
	m.ids[bucket]++
	return m.ids[bucket], nil
}

type buckets map[string]map[string][]byte

func (b buckets) Put(bucket, key string, value []byte) error {
	if err := check(bucket, key); err != nil {
		return err
	}
	if b[bucket] == nil {
		b[bucket] = map[string][]byte{}
	}
	b[bucket][key] = append([]byte{}, value...)
	return nil
}

func (b buckets) Get(bucket, key string) ([]byte, error) {
	if err := check(bucket, key); err != nil {
		return nil, err
	}
	v, ok := b[bucket][key]
	if !ok {
		return nil, notFound(bucket, key)
	}
	return append([]byte{}, v...), nil
}

func (b buckets) Delete(bucket, key string) error {
	if err := check(bucket, key); err != nil {
		return err
	}
	delete(b[bucket], key)
	return nil
}

func (b buckets) List(bucket string, fn func(key string, value []byte) error) error {
	return each(b.pairs(bucket), fn)
}

func (b buckets) pairs(bucket string) (all []pair) {
	for _, k := range slices.Sorted(maps.Keys(b[bucket])) {
		all = append(all, pair{k, append([]byte{}, b[bucket][k]...)})
	}
	return all
}
