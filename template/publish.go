package template

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/partial"
)

// Names of our files in a pool's folder.
const (
	filePrefix    = "wherry-template-"
	partialPrefix = ".wherry-template-"
	partialSuffix = ".partial"
	foreignMark   = ".foreign-"
)

// publishedPath is where a template's file lies: inside the pool, so that
// volumes of the pool may stand on it, and under its digest, so that a name
// never means two contents.
func publishedPath(dir, sum, format string) string {
	_, digits := digest.Split(sum)
	return filepath.Join(dir, filePrefix+digits+"."+format)
}

// publish looks into the verified bytes, and gives them their name.
func (a *attempt) publish() error {
	if err := a.change(func(c *Copy) { c.State = StateVerifying }); err != nil {
		return err
	}
	file := a.part.Image()
	if err := file.Sync(); err != nil {
		return a.ours(fault.IO, err)
	}
	image, err := a.intake.Check(a.ctx, file, a.t.Format)
	if err != nil {
		// The bytes are the right ones: no other origin has better ones.
		return hostFault{fault.Of(err)}
	}
	// Mode and bytes reach the disk before the name does: a name must never
	// lead to half an image after a crash.
	if err := errors.Join(file.Chmod(0o444), file.Sync()); err != nil {
		return a.ours(fault.IO, err)
	}
	info, err := file.Stat()
	if err != nil {
		return a.ours(fault.IO, err)
	}
	is := done{digest: a.part.Sums().Sum(digest.SHA256), inode: infoInode(info), owned: true, image: image}
	is.path = publishedPath(a.dir, is.digest, a.t.Format)
	// From here a crash finds path and inode, and knows the file as ours.
	if err := a.change(func(c *Copy) { c.Path, c.Inode, c.Owned = is.path, is.inode, true }); err != nil {
		return err
	}
	if err := a.putInPlace(&is); err != nil || is.adopted {
		return err
	}
	found, err := os.Lstat(is.path)
	if err == nil && infoInode(found) != is.inode {
		err = fmt.Errorf("%q was replaced by another file: %w", is.path, fs.ErrExist)
	}
	if err != nil {
		return a.ours(fault.Occupied, err)
	}
	// After the rename, which changes the ctime.
	is.stamp, is.allocated = StampOf(found), allocated(found)
	return a.ready(is)
}

// done is a copy that became ready.
type done struct {
	path    string
	inode   uint64
	owned   bool
	adopted bool // it lay there
	digest  string
	stamp   Stamp
	// allocated is what it takes on disk.
	allocated int64
	image     ImageInfo
	note      string // for people
}

// putInPlace renames the image to its name.
func (a *attempt) putInPlace(is *done) error {
	for range 3 {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		err := renameNoReplace(a.part.ImagePath(), is.path)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return a.ours(fault.Rename, err)
		}
		if placed, err := a.makeWay(is); placed || err != nil {
			return err
		}
	}
	return a.ours(fault.Occupied, fmt.Errorf("%q: %w", is.path, ErrOccupied))
}

// makeWay deals with what lies at the image's name. The right bytes are
// adopted: another host of a shared pool was faster. Wrong ones of ours are
// replaced. What is not ours is moved aside, and never deleted.
func (a *attempt) makeWay(is *done) (placed bool, err error) {
	inode, err := inodeOf(is.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, a.ours(fault.Occupied, err)
	}
	if inode != a.bad {
		if is.adopted, err = a.adopt(is.path, is.digest); is.adopted || err != nil {
			return true, err
		}
	}
	before := a.t.copyOn(a.pool)
	if before.Owned && before.Path == is.path && before.Inode == inode || a.owns(is.path, inode) {
		if err := os.Rename(a.part.ImagePath(), is.path); err != nil {
			return false, a.ours(fault.Rename, err)
		}
		a.log.Warn("a template copy with wrong bytes was replaced", "template", a.id, "pool", a.pool, "path", is.path)
		return true, nil
	}
	aside := is.path + foreignMark + rand.Text()
	if err := renameNoReplace(is.path, aside); err != nil {
		return false, a.ours(fault.Occupied, err)
	}
	is.note = fmt.Sprintf("another file lay at its place, and was moved to %q", aside)
	a.log.Warn("a foreign file was moved aside", "template", a.id, "pool", a.pool, "from", is.path, "to", aside)
	return false, nil
}

// ready is the last step: everything that it says is on the disk.
func (a *attempt) ready(is done) error {
	// The empty folder goes before, and with it the pool's folder is synced:
	// the rename has reached the disk when the copy is ready.
	left := a.drop()
	if err := syncFolder(a.dir); err != nil {
		return a.ours(fault.IO, err)
	}
	if left != nil {
		a.log.Warn("partial template not removed", "template", a.id, "error", left)
	}
	mounted := a.mounted(a.dir)
	return a.changeCopy(a.id, a.pool, func(t *Template, c *Copy) {
		now := a.now().UTC()
		t.Digest, t.Size, t.VirtualSize, t.Allocated = is.digest, is.stamp.Size, is.image.VirtualSize, is.allocated
		c.clearFault()
		c.State, c.Progress, c.Message, c.FailedSince, c.RetryAt = StateReady, 100, is.note, nil, nil
		c.Lost, c.Mounted = false, mounted
		c.Path, c.Inode, c.Owned, c.Stamp, c.Allocated, c.LastUsed = is.path, is.inode, is.owned, is.stamp, is.allocated, &now
		if left == nil {
			c.Partial, c.PartialInode = "", 0
		}
	})
}

// drop removes the partial file, be it of this attempt or of an earlier one.
func (a *attempt) drop() error {
	if a.part != nil {
		a.part.Close()
		return partial.Remove(a.part.Path(), a.part.Inode())
	}
	t, _ := a.Lookup(a.id)
	if c := t.copyOn(a.pool); c.Partial != "" {
		return partial.Remove(c.Partial, c.PartialInode)
	}
	return nil
}

func renameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// NFS knows no such rename. A link never replaces either.
		if err = os.Link(from, to); err == nil {
			err = os.Remove(from)
		}
		return err
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
