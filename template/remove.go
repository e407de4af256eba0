package template

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wherry-kvm/wherry/template/partial"
)

// removeTimeout bounds the wait for a fetch that was told to end.
const removeTimeout = 30 * time.Second

// Remove turns a template into a tombstone, which keeps id, checksum and
// flags. A fetch of it is called off first, and Remove waits for its end:
// ErrBusy where that does not come. Copies that nothing stands on are deleted
// (see [Registry.Collect]); others go with their last ref, and are brought again
// until then where they are lost: by their digest, or from the URL without its
// headers. Removing again is no error.
func (r *Registry) Remove(ctx context.Context, id string) (Template, error) {
	// What is fetched after the removal is for those that stand on it.
	if t, _ := r.Lookup(id); !t.Removed() {
		if err := r.ground(ctx, id); err != nil {
			return Template{}, err
		}
	}
	r.mu.Lock()
	t, err := r.remove(id)
	delete(r.removing, id)
	r.mu.Unlock()
	if err != nil {
		return t, err
	}
	r.notify(t)
	r.collectNow(ctx)
	return r.Get(id)
}

// ground ends the flights of a template, and lets no new one begin. Whoever
// waits for the same bytes under another id begins anew.
func (r *Registry) ground(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	r.mu.Lock()
	r.removing[id] = true
	var ended []chan struct{}
	for _, f := range r.flights {
		if f.id == id {
			f.cancel(errRemoved)
			ended = append(ended, f.ended)
		}
	}
	r.mu.Unlock()
	for _, ch := range ended {
		select {
		case <-ch:
		case <-ctx.Done():
			r.mu.Lock()
			delete(r.removing, id)
			r.mu.Unlock()
			return fmt.Errorf("template %q: %w: %w", id, ErrBusy, context.Cause(ctx))
		}
	}
	return nil
}

func (r *Registry) remove(id string) (Template, error) {
	if _, known := r.templates[id]; !known {
		return Template{}, fmt.Errorf("template %q: %w", id, ErrNotFound)
	}
	return r.changeLocked(id, func(t *Template) error {
		if t.RemovedAt != nil {
			return nil
		}
		now := r.now().UTC()
		t.RemovedAt = &now
		// What may be secret is not kept for ever.
		t.Headers = nil
		for i := range t.Copies {
			// Its fetch was called off; for those that stand on it, it goes on.
			if c := &t.Copies[i]; c.State == StateDownloading || c.State == StateSyncing || c.State == StatePending {
				c.State, c.RetryAt = StatePending, &now
			}
		}
		return nil
	})
}

// deleteCopy deletes the file of a copy, if it is ours and no other template's.
func (r *Registry) deleteCopy(id string, c Copy) error {
	if err := partial.Remove(c.Partial, c.PartialInode); err != nil {
		return err
	}
	if !c.Owned || c.Path == "" || r.otherUses(id, c.Path) {
		return nil
	}
	if err := deleteOwn(c.Path, c.Inode); err != nil {
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
// one that somebody else put in its place stays.
func deleteOwn(path string, inode uint64) error {
	if path == "" || inode == 0 {
		return nil
	}
	found, err := inodeOf(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found != inode:
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
