package template

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
)

// adopt makes a file ready that already lies at the copy's place: it was
// published just before a crash, under another id, or by another host. Its
// name proves nothing, so it is hashed and looked into like any other. False
// where there is none, or not these bytes: the fetch decides what becomes of
// it.
func (a *attempt) adopt(path, want string) (bool, error) {
	found, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, a.ours(fault.IO, err)
	}
	a.bad = infoInode(found)
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil //nolint:nilerr // what cannot be read is no copy
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || infoInode(info) != a.bad {
		return false, nil //nolint:nilerr // the same
	}
	if err := a.change(func(c *Copy) { c.State = StateVerifying }); err != nil {
		return false, err
	}
	sums := digest.For()
	if err := hashFile(a.ctx, file, sums); err != nil {
		if a.ctx.Err() != nil {
			return false, context.Cause(a.ctx)
		}
		return false, nil // a disk that cannot read it gets a new one
	}
	if sums.Match(want) != nil {
		return false, nil
	}
	image, err := a.intake.Check(a.ctx, file, a.t.Format)
	if err != nil {
		return false, err
	}
	owned := a.owns(path, a.bad) || a.isBack(path, info)
	return true, a.ready(done{path: path, inode: a.bad, owned: owned, digest: want, stamp: StampOf(info), allocated: allocated(info), image: image})
}

// isBack tells whether a file with the right bytes is the one of ours that was
// not there for a while: its file system was not mounted, or somebody had moved
// it. Inodes are used again, but not with a time of the same nanosecond.
func (a *attempt) isBack(path string, info fs.FileInfo) bool {
	c, is := a.t.copyOn(a.pool), StampOf(info)
	return c.Lost && c.Path == path && c.Stamp.Inode == is.Inode && c.Stamp.Size == is.Size && c.Stamp.MTime == is.MTime
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

// hashFile adds all of a file to sums.
func hashFile(ctx context.Context, file io.Reader, sums *digest.Sums) error {
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := file.Read(buf)
		_, _ = sums.Write(buf[:n]) // never fails
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
