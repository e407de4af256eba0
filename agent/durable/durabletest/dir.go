// Package durabletest gives tests folders in which syncing costs nothing. That
// something was synced is seen by none of them, and on a disk that others use
// it takes most of their time.
package durabletest

import (
	"os"
	"testing"
)

// memory is where Linux keeps a file system in memory (shm_overview(7)).
const memory = "/dev/shm"

// Dir gives a folder in memory that goes with the test; an ordinary one where
// the host has no such place.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(memory, "wherry-test-") //nolint:usetesting // its folders are on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
