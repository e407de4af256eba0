package template

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Remove turns a template into a tombstone, which keeps id, checksum and
// flags. Copies that nothing stands on are deleted; others go with their last
// ref. Removing again is no error. ErrBusy while it is being fetched: cancel
// that first.
func (r *Registry) Remove(_ context.Context, id string) (Template, error) {
	r.mu.Lock()
	t, err := r.remove(id)
	r.mu.Unlock()
	if err == nil {
		r.notify(t)
	}
	return t, err
}

func (r *Registry) remove(id string) (Template, error) {
	if _, known := r.templates[id]; !known {
		return Template{}, fmt.Errorf("template %q: %w", id, ErrNotFound)
	}
	for _, f := range r.flights {
		if f.template == id {
			return Template{}, fmt.Errorf("template %q: %w", id, ErrBusy)
		}
	}
	_, err := r.changeLocked(id, func(t *Template) error {
		if t.RemovedAt == nil {
			now := r.now().UTC()
			t.RemovedAt = &now
		}
		// What may be secret is not kept for ever.
		t.Headers = nil
		return nil
	})
	if err != nil {
		return Template{}, err
	}
	if err := r.collect(id); err != nil {
		return Template{}, err
	}
	return r.shown(r.templates[id]), nil
}

// collect deletes the copies of a removed template that nothing stands on.
// Needs mu, which AddRef takes too: no volume can come to stand on a copy
// while it goes.
func (r *Registry) collect(id string) error {
	t := r.templates[id]
	if !t.Removed() || len(t.Copies) == 0 {
		return nil
	}
	used := map[string]bool{}
	for _, ref := range r.refsOf(id) {
		used[ref.Pool] = true
	}
	var errs []error
	kept := []Copy{}
	for _, c := range t.Copies {
		if used[c.Pool] {
			kept = append(kept, c)
			continue
		}
		if err := r.deleteCopy(id, c); err != nil {
			errs = append(errs, err)
			kept = append(kept, c)
		}
	}
	_, err := r.changeLocked(id, func(t *Template) error { t.Copies = kept; return nil })
	return errors.Join(append(errs, err)...)
}

// deleteCopy deletes the file of a copy, if it is ours and no other template's.
func (r *Registry) deleteCopy(id string, c Copy) error {
	if err := deleteOwn(c.Partial, c.PartialInode, true); err != nil {
		return err
	}
	if !c.Owned || c.Path == "" || r.otherUses(id, c.Path) {
		return nil
	}
	if err := deleteOwn(c.Path, c.Inode, false); err != nil {
		return err
	}
	r.log.Info("template copy deleted", "template", id, "pool", c.Pool, "path", c.Path)
	return nil
}

// otherUses tells whether another template has its copy in the same file.
func (r *Registry) otherUses(id, path string) bool {
	for other, t := range r.templates {
		for _, c := range t.Copies {
			if other != id && c.Path == path {
				return true
			}
		}
	}
	return false
}

// deleteOwn deletes a file that this registry made, known by path and inode:
// one that somebody else put in its place stays. A partial file with no inode
// yet was created under a random name with O_EXCL, so the name is proof.
func deleteOwn(path string, inode uint64, partial bool) error {
	if path == "" || inode == 0 && !partial {
		return nil
	}
	found, err := inodeOf(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case inode != 0 && found != inode:
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// inodeOf gives the inode of the path itself, never of what a link points to.
func inodeOf(path string) (uint64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return infoInode(info), nil
}

func infoInode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
