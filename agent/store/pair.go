package store

import "fmt"

// pair is one entry of a listing, copied out of the store.
type pair struct {
	key   string
	value []byte
}

func each(all []pair, fn func(key string, value []byte) error) error {
	for _, p := range all {
		if err := fn(p.key, p.value); err != nil {
			return err
		}
	}
	return nil
}

func check(bucket, key string) error {
	if n := len(bucket); n == 0 || n > MaxKey {
		return fmt.Errorf("bucket name of %d bytes: %w", n, ErrInvalid)
	}
	if n := len(key); n == 0 || n > MaxKey {
		return fmt.Errorf("key of %d bytes in bucket %q: %w", n, bucket, ErrInvalid)
	}
	return nil
}

func notFound(bucket, key string) error {
	return fmt.Errorf("key %q of bucket %q: %w", key, bucket, ErrNotFound)
}
