// Package durable writes and removes small files so that what was done
// survives a power cut: whole, or not at all.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// WriteFile writes a file that only root may read, with its folder where that
// is missing. File and folders are synced when it returns; before that the old
// content is there, whole.
func WriteFile(path string, data []byte) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	// Beside the file, not in a common folder for such files: what a crash
	// leaves is found there (Tidy), and its content is nobody else's.
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(folder)); err != nil {
		return err
	}
	// renameio syncs the file only. The folder itself may be new too.
	return errors.Join(syncFolder(folder), syncFolder(filepath.Dir(folder)))
}

// Remove removes a file; none there is no error.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// Tidy removes what interrupted writes of the file have left beside it. What
// is younger than the given time may be a write that is under way, and stays.
func Tidy(path string, before time.Time) error {
	return tidy(filepath.Dir(path), before, func(name string) bool { return isLeft(name, filepath.Base(path)) })
}

// TidyBelow is Tidy for every file in a folder of that folder whose name has
// that end, be the file itself there or not.
func TidyBelow(root, suffix string, before time.Time) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, tidy(filepath.Join(root, e.Name()), before, func(name string) bool {
				base := strings.TrimPrefix(strings.TrimRight(name, "0123456789"), ".")
				return len(base) > len(suffix) && strings.HasSuffix(base, suffix) && isLeft(name, base)
			}))
		}
	}
	return errors.Join(errs...)
}

func tidy(folder string, before time.Time, left func(name string) bool) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !left(e.Name()) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // the write has come to its end
		}
		if err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) {
			err = Remove(filepath.Join(folder, e.Name()))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isLeft knows renameio's names: a dot, the file's own name, and digits.
func isLeft(name, base string) bool {
	digits, ok := strings.CutPrefix(name, "."+base)
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// syncFolder makes a rename or an unlink durable.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return nil
}
