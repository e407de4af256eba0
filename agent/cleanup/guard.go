package cleanup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
)

// guardLook is how often is looked whether a guard is free.
const guardLook = 20 * time.Millisecond

// Guard keeps a start of an instance and a clean-up after it apart, where they
// are of two processes: the agent starts it, and what libvirt's hook left
// running cleans up after its last run. Otherwise the one disconnects what the
// other has just connected. It waits until ctx ends; a crash leaves no guard.
func (c Cleaner) Guard(ctx context.Context, ref api.Ref) (release func(), err error) {
	note, err := c.path(ref)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(filepath.Dir(note), "."+ref.Name+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	tick := time.NewTicker(guardLook)
	defer tick.Stop()
	for {
		f, err := tryGuard(path)
		if err != nil {
			return nil, fmt.Errorf("guarding %q: %w", ref, err)
		}
		if f != nil {
			return func() {
				// While it is held: whoever waits finds that his file is no longer
				// the one of that name, and opens another.
				_ = os.Remove(path)
				_ = f.Close()
			}, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("guarding %q: somebody starts it, or cleans up after it: %w", ref, context.Cause(ctx))
		}
	}
}

// tryGuard gives the locked file; nil while somebody else has it.
func tryGuard(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		var same bool
		if same, err = isStill(f, path); same {
			return f, nil
		}
	}
	closed := f.Close()
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, err
	}
	return nil, closed
}

// isStill: the file that was locked is the one of that name, and was not
// removed between its opening and its locking.
func isStill(f *os.File, path string) (bool, error) {
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, named), err
}
