package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bolt is a [Store] in one file of the local disk.
type Bolt struct {
	db   *bbolt.DB
	path string
}

var _ Store = (*Bolt)(nil)

// Open opens the store at path, creating it (mode 0600) where it is not; its
// folder must exist. It waits up to timeout for another process to let go of
// the file. It returns ErrLocked after that, ErrCorrupt for a file that is not
// a store; both name the path.
func Open(path string, timeout time.Duration) (b *Bolt, err error) {
	// A damaged freelist or page makes bbolt panic: the operator shall get
	// the path and an error, not a stack.
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("store %q: %w: %v", path, ErrCorrupt, r)
		}
	}()
	// Zero would wait for ever.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      max(timeout, time.Nanosecond),
		FreelistType: bbolt.FreelistMapType,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	// A new file is durable only when its name is.
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("store %q: %w", path, err), db.Close())
	}
	return &Bolt{db: db, path: path}, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("store %q: %w", path, ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("store %q: %w: %w", path, ErrCorrupt, err)
	}
	return fmt.Errorf("store %q: %w", path, err)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close closes the file and lets go of its lock.
func (b *Bolt) Close() error { return b.wrap(b.db.Close()) }

// Put sets a key in a transaction of its own.
func (b *Bolt) Put(bucket, key string, value []byte) error {
	return b.Update(func(tx Tx) error { return tx.Put(bucket, key, value) })
}

// Get gives a copy of the value, or ErrNotFound.
func (b *Bolt) Get(bucket, key string) (value []byte, err error) {
	err = b.wrap(b.db.View(func(tx *bbolt.Tx) error {
		value, err = boltTx{tx}.Get(bucket, key)
		return err
	}))
	return value, err
}

// Delete removes a key in a transaction of its own.
func (b *Bolt) Delete(bucket, key string) error {
	return b.Update(func(tx Tx) error { return tx.Delete(bucket, key) })
}

// List calls fn for every key in byte order, outside of any transaction: a
// reader that stays inside one would keep a writer from growing the file.
func (b *Bolt) List(bucket string, fn func(key string, value []byte) error) error {
	var all []pair
	err := b.wrap(b.db.View(func(tx *bbolt.Tx) error {
		all = boltTx{tx}.pairs(bucket)
		return nil
	}))
	if err != nil {
		return err
	}
	return each(all, fn)
}

// Update runs fn in one transaction.
func (b *Bolt) Update(fn func(Tx) error) error {
	return b.wrap(b.db.Update(func(tx *bbolt.Tx) error { return fn(boltTx{tx}) }))
}

// NextID gives the bucket's next number.
func (b *Bolt) NextID(bucket string) (id uint64, err error) {
	if err := check(bucket, "-"); err != nil {
		return 0, err
	}
	err = b.wrap(b.db.Update(func(tx *bbolt.Tx) error {
		bk, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		id, err = bk.NextSequence()
		return err
	}))
	return id, err
}

func (b *Bolt) wrap(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("store %q: %w", b.path, ErrClosed)
	}
	return err
}

// boltTx is one transaction. It stays a value: nothing outlives the callback.
type boltTx struct{ tx *bbolt.Tx }

func (t boltTx) Put(bucket, key string, value []byte) error {
	if err := check(bucket, key); err != nil {
		return err
	}
	bk, err := t.tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return fmt.Errorf("bucket %q: %w", bucket, err)
	}
	// bbolt keeps the slice until the commit; the caller may reuse its own.
	if err := bk.Put([]byte(key), bytes.Clone(value)); err != nil {
		return fmt.Errorf("key %q of bucket %q: %w", key, bucket, err)
	}
	return nil
}

func (t boltTx) Get(bucket, key string) ([]byte, error) {
	if err := check(bucket, key); err != nil {
		return nil, err
	}
	if bk := t.tx.Bucket([]byte(bucket)); bk != nil {
		if v := bk.Get([]byte(key)); v != nil {
			return append([]byte{}, v...), nil
		}
	}
	return nil, notFound(bucket, key)
}

func (t boltTx) Delete(bucket, key string) error {
	if err := check(bucket, key); err != nil {
		return err
	}
	if bk := t.tx.Bucket([]byte(bucket)); bk != nil {
		return bk.Delete([]byte(key))
	}
	return nil
}

func (t boltTx) List(bucket string, fn func(key string, value []byte) error) error {
	return each(t.pairs(bucket), fn)
}

func (t boltTx) pairs(bucket string) (all []pair) {
	if bk := t.tx.Bucket([]byte(bucket)); bk != nil {
		c := bk.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			all = append(all, pair{string(k), append([]byte{}, v...)})
		}
	}
	return all
}
