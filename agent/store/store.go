// Package store keeps the agent's small durable facts (operations, the
// template registry, references) as named buckets of keys and values.
//
// The interface is deliberately poor: single puts, ordered listing and one
// all-or-nothing update, so that a clustered store can stand in for the
// embedded file later. It takes no context: a write is one local fsync, and
// nothing on the host's stop path may depend on a store that waits longer.
package store

import "errors"

// Errors of a store. They are wrapped with the path, bucket or key concerned.
var (
	// ErrNotFound: the key is not in the bucket.
	ErrNotFound = errors.New("not found")
	// ErrLocked: another process has the store's file open.
	ErrLocked = errors.New("locked by another process")
	// ErrCorrupt: the file is not a store, or is damaged.
	ErrCorrupt = errors.New("not a valid store")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrInvalid: an empty bucket or key name, or one that is too long.
	ErrInvalid = errors.New("invalid bucket or key")
)

// MaxKey is the longest bucket or key name, in bytes.
const MaxKey = 4096

// Tx is what can be done inside [Store.Update]. It is an alias of a plain
// interface, so that a consumer can declare the same one without importing
// this package.
type Tx = interface {
	// Put sets a key. The value is copied.
	Put(bucket, key string, value []byte) error
	// Get gives a copy of the value, or ErrNotFound.
	Get(bucket, key string) ([]byte, error)
	// Delete removes a key; one that is not there is no error.
	Delete(bucket, key string) error
	// List calls fn for every key in byte order, over a copy taken when it
	// was called: fn may use the store or Tx. An error of fn ends the listing
	// and is returned as it is. A bucket that does not exist is empty.
	List(bucket string, fn func(key string, value []byte) error) error
}

// Store is a durable set of buckets. Each write has reached the disk when it
// returns. All methods may be called at the same time; after Close they
// return ErrClosed.
type Store interface {
	Tx
	// Update runs fn in one transaction that is kept whole if fn returns nil,
	// and dropped whole if not. The Tx is valid until fn returns, for the
	// calling goroutine only; fn must not use the Store itself.
	Update(fn func(Tx) error) error
	// NextID gives 1, 2, 3 ... for a bucket, never the same number twice, not
	// even after a crash.
	NextID(bucket string) (uint64, error)
	// Close releases the store. Twice is no error.
	Close() error
}
