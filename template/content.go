package template

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/fault"
)

// OpenContent opens a ready copy for reading, and gives its template. The
// caller closes the file. ErrNotFound, also for a tombstone; ErrNotReady.
func (r *Registry) OpenContent(id string) (*os.File, Template, error) {
	t, err := r.Get(id)
	if err != nil {
		return nil, t, err
	}
	if t.Removed() {
		return nil, t, fmt.Errorf("template %q was removed: %w", id, ErrNotFound)
	}
	for _, c := range t.Copies {
		if c.State != StateReady {
			continue
		}
		if file, err := os.OpenFile(c.Path, os.O_RDONLY|unix.O_NOFOLLOW, 0); err == nil {
			if info, err := file.Stat(); err == nil && isCopy(info, c, t.Size) {
				return file, t, nil
			}
			file.Close()
		}
		gone := fault.New(fault.Changed, "the file %q is gone or another one", c.Path)
		if err := r.lost(id, c, StateMissing, gone); err != nil {
			return nil, t, err
		}
	}
	return nil, t, fmt.Errorf("template %q: %w", id, ErrNotReady)
}
