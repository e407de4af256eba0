package volume

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockNotSharedWrite is the byte of an image that says, once somebody holds a
// shared lock on it, that others may not write: QEMU's RAW_LOCK_SHARED_BASE (200)
// and the bit of BLK_PERM_WRITE (1), see block/file-posix.c there. QEMU looks at
// it when it opens an image, and when it takes one back after a migration; what
// it has open and active already it keeps.
const lockNotSharedWrite = 201

// Bar keeps every QEMU from taking images for writing that it does not have by
// now. It lasts until Lift, or until this process ends.
type Bar struct{ files []*os.File }

// NewBar bars those of the files that are still the ones that were identified.
// It fails where none could be: one is enough, since QEMU takes all images of a
// guest or none.
func NewBar(files []Owned) (*Bar, error) {
	var b Bar
	var errs []error
	for _, o := range files {
		f, err := o.open(unix.O_RDONLY)
		if err == nil {
			err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: lockNotSharedWrite, Len: 1})
			if err != nil {
				err = errors.Join(fmt.Errorf("lock %q: %w", o.Path, err), f.Close())
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.files = append(b.files, f)
	}
	if len(b.files) == 0 {
		return nil, errors.Join(errs...)
	}
	return &b, nil
}

// Lift ends it. A second time, or with nil, it does nothing.
func (b *Bar) Lift() {
	if b == nil {
		return
	}
	for _, f := range b.files {
		_ = f.Close() // which lets go of the lock; it was opened for reading
	}
	b.files = nil
}
