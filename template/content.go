package template

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
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
	file, err := r.open(t)
	return file, t, err
}

// OpenDigest is OpenContent for whoever knows the bytes ("sha256:..."): any
// ready copy with them will do, also one that a tombstone keeps for volumes
// that stand on it.
func (r *Registry) OpenDigest(digest string) (*os.File, Template, error) {
	err := fmt.Errorf("no template with the digest %s: %w", digest, ErrNotFound)
	for _, t := range r.List() {
		if digest == "" || t.Digest != digest {
			continue
		}
		file, openErr := r.open(t)
		if openErr == nil {
			return file, t, nil
		}
		if errors.Is(openErr, ErrNotReady) {
			err = openErr // it may be, later
		}
	}
	return nil, Template{}, err
}

// open opens one of a template's ready copies, after a look whether it is
// still what was published.
func (r *Registry) open(t Template) (*os.File, error) {
	for _, c := range t.Copies {
		if c.State != StateReady {
			continue
		}
		if !r.looksUsable(t, c) {
			continue
		}
		file, err := os.OpenFile(c.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			r.usable(t.ID, c, unchanged, err)
			continue
		}
		// Another one may have come between the two looks.
		if info, err := file.Stat(); err == nil && r.opened(t, c, info) {
			return file, nil
		}
		file.Close()
	}
	return nil, fmt.Errorf("template %q: %w", t.ID, ErrNotReady)
}
