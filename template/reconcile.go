package template

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
)

// reconcile brings what the store says in line with the disk, at start.
func (r *Registry) reconcile() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(r.templates)) {
		t := r.templates[id].clone()
		changed := false
		for i := range t.Copies {
			did, err := r.reconcileCopy(id, &t.Copies[i], t.Size)
			if err != nil {
				// The file stays journalled and is tried again at the next start.
				r.log.Warn("partial template not removed", "template", id, "error", err)
			}
			changed = changed || did
		}
		if changed {
			_, err := r.changeLocked(id, func(into *Template) error { *into = t; return nil })
			errs = append(errs, err)
		}
		if err := r.collect(id); err != nil {
			r.log.Warn("copies of a removed template not deleted", "template", id, "error", err)
		}
	}
	return errors.Join(errs...)
}

func (r *Registry) reconcileCopy(id string, c *Copy, size int64) (changed bool, err error) {
	switch c.State {
	case StateReady:
		why := intact(*c, size)
		if why == nil {
			return false, nil
		}
		r.log.Warn("template copy missing", "template", id, "path", c.Path, "error", why)
		c.State, c.Message, c.Progress = StateMissing, why.Error(), 0
	case StateDownloading, StateSyncing, StateVerifying:
		c.State, c.Message, c.Progress = StatePending, "interrupted: the agent stopped", 0
	default:
		if c.Partial == "" {
			return false, nil
		}
	}
	c.UpdatedAt = r.now().UTC()
	err = deleteOwn(c.Partial, c.PartialInode, true)
	c.forgetAbsent()
	return true, err
}

// forgetAbsent drops the marks of files that are not there. An inode number is
// soon used again, and must not make somebody else's file ours.
func (c *Copy) forgetAbsent() {
	if inode, err := inodeOf(c.Partial); errors.Is(err, fs.ErrNotExist) || err == nil && inode != c.PartialInode {
		c.Partial, c.PartialInode = "", 0
	}
	if inode, err := inodeOf(c.Path); errors.Is(err, fs.ErrNotExist) || err == nil && inode != c.Inode {
		c.Path, c.Inode, c.Owned = "", 0, false
	}
}

// intact tells whether the published file still lies there.
func intact(c Copy, size int64) error {
	info, err := os.Lstat(c.Path)
	if err != nil {
		return err
	}
	if !isCopy(info, c, size) {
		return fmt.Errorf("%q was replaced by another file", c.Path)
	}
	return nil
}

func isCopy(info fs.FileInfo, c Copy, size int64) bool {
	return info.Mode().IsRegular() && infoInode(info) == c.Inode && info.Size() == size
}

// missing notes that the file of a ready copy is gone.
func (r *Registry) missing(id string, c Copy) error {
	return r.changeCopy(id, c.Pool, func(_ *Template, now *Copy) {
		if now.State == StateReady && now.Inode == c.Inode {
			now.State, now.Progress = StateMissing, 0
			now.Message = fmt.Sprintf("the file %q is gone or another one", c.Path)
		}
	})
}
