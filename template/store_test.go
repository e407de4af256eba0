package template_test

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/template"
)

// folder is a store with one file per key: durable enough for a process that
// dies, and nothing of the agent.
type folder string

var _ template.Store = folder("")

func newStore(t testing.TB) folder { return folder(t.TempDir()) }

func (f folder) path(bucket, key string) string {
	return filepath.Join(string(f), bucket, "k"+url.PathEscape(key))
}

func (f folder) Put(bucket, key string, value []byte) error {
	path := f.path(bucket, key)
	fresh := filepath.Join(string(f), "fresh")
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(fresh, value, 0o600), os.Rename(fresh, path))
}

func (f folder) Delete(bucket, key string) error {
	if err := os.Remove(f.path(bucket, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f folder) List(bucket string, fn func(key string, value []byte) error) error {
	entries, err := os.ReadDir(filepath.Join(string(f), bucket))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		key, err := url.PathUnescape(e.Name()[1:])
		if err != nil {
			return err
		}
		value, err := os.ReadFile(f.path(bucket, key))
		if err != nil {
			return err
		}
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return err
}
