package template

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// adopt makes a file ready that already lies at the template's place: it was
// published just before a crash, under another id, or by another host. Its
// name proves nothing, so it is hashed and looked into like any other.
func (r *Registry) adopt(ctx context.Context, t Template, pool, path string) error {
	err := r.changeCopy(t.ID, pool, func(_ *Template, c *Copy) { c.State, c.Message = StateVerifying, "" })
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOccupied, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q: %w", path, ErrOccupied)
	}
	s := newSums(t.Checksum)
	if err := hashFile(ctx, file, s); err != nil {
		return err
	}
	if err := s.match(t.Checksum, t.Digest); err != nil {
		return fmt.Errorf("%q: %w: %w", path, ErrOccupied, err)
	}
	image, err := r.intake.Check(ctx, file, t.Format)
	if err != nil {
		return err
	}
	inode := infoInode(info)
	owned := r.owns(path, inode)
	if owned {
		// A crash may have come between the rename and the folder's fsync.
		if err := syncFolder(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return r.ready(t.ID, pool, path, inode, owned, s, info.Size(), image)
}

// owns tells whether this registry published the file at path.
func (r *Registry) owns(path string, inode uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.templates {
		for _, c := range t.Copies {
			if c.Owned && c.Path == path && c.Inode == inode {
				return true
			}
		}
	}
	return false
}

// hashFile adds all of a file to s.
func hashFile(ctx context.Context, file io.Reader, s sums) error {
	buf := make([]byte, copyBuffer)
	for {
		n, end, err := fill(ctx, file, buf)
		s.write(buf[:n])
		if end || err != nil {
			return err
		}
	}
}
