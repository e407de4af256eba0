package template

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeReady brings one copy to the state ready, or notes why it failed. The
// caller leads the flight: nobody else works on the same bytes and pool.
func (r *Registry) makeReady(ctx context.Context, id, pool, state string, open Opener, f *flight) error {
	t, err := r.Get(id)
	if err != nil {
		return err
	}
	if c, ok := t.Ready(pool); ok && intact(c, t.Size) == nil {
		return nil
	}
	err = r.publish(ctx, t, pool, state, open, f)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		// A reader that was cut off says little; why it was cut says more.
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return errors.Join(err, r.failed(id, pool, err))
}

func (r *Registry) publish(ctx context.Context, t Template, pool, state string, open Opener, f *flight) error {
	dir, err := r.poolPath(ctx, pool)
	if err != nil {
		return err
	}
	if t.Digest != "" {
		path := publishedPath(dir, t.Digest, t.Format)
		if _, err := os.Lstat(path); err == nil {
			return r.adopt(ctx, t, pool, path)
		}
	}
	got, err := r.receive(ctx, t, pool, dir, state, open, f)
	if got.file != nil {
		defer got.file.Close()
	}
	if err == nil {
		err = r.accept(ctx, t, pool, dir, got)
	}
	if err != nil && got.path != "" {
		// On every failure, so that a pool never fills up with half images.
		err = errors.Join(err, deleteOwn(got.path, got.inode, true))
	}
	return err
}

// publishedPath is where a template's file lies: inside the pool, so that
// volumes of the pool may stand on it, and under its digest, so that a name
// never means two contents.
func publishedPath(dir, digest, format string) string {
	_, digits, _ := strings.Cut(digest, ":")
	return filepath.Join(dir, "wherry-template-"+digits+"."+format)
}

// partial is an image that was written but not published.
type partial struct {
	path  string
	inode uint64
	file  *os.File
	sums  sums
	size  int64
}

// receive writes the image to a new file beside its final place, hashing it
// on the way. What it returns is to be deleted if anything fails later.
func (r *Registry) receive(ctx context.Context, t Template, pool, dir, state string, open Opener, f *flight) (p partial, err error) {
	id := t.ID
	if err := r.dropLeftover(id, pool); err != nil {
		return p, err
	}
	path := filepath.Join(dir, ".wherry-template-"+rand.Text()+".partial")
	// The name is journalled before the file appears, and the inode as soon as
	// there is one: after a crash exactly this file is removed.
	err = r.changeCopy(id, pool, func(_ *Template, c *Copy) {
		c.State, c.Message, c.Progress, c.Partial, c.PartialInode = state, "", 0, path, 0
		c.Attempts++
	})
	if err != nil {
		return p, err
	}
	p.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return p, err
	}
	p.path = path
	info, err := p.file.Stat()
	if err != nil {
		return p, err
	}
	p.inode = infoInode(info)
	if err := r.changeCopy(id, pool, func(_ *Template, c *Copy) { c.PartialInode = p.inode }); err != nil {
		return p, err
	}
	content, err := open(ctx)
	if err != nil {
		return p, err
	}
	// Closing is what ends a read that does not look at ctx.
	stop := context.AfterFunc(ctx, func() { content.Close() })
	defer func() {
		if stop() {
			content.Close()
		}
	}()
	if err := r.room(dir, content.Size); err != nil {
		return p, err
	}
	p.sums = newSums(t.Checksum)
	p.size, err = writeImage(ctx, p.file, content, p.sums, r.maxSize, func(done int64) { r.report(f, pool, done, content.Size) })
	return p, err
}

// dropLeftover removes a partial file that an earlier failure could not.
func (r *Registry) dropLeftover(id, pool string) error {
	t, _ := r.Lookup(id)
	for _, c := range t.Copies {
		if c.Pool == pool {
			return deleteOwn(c.Partial, c.PartialInode, true)
		}
	}
	return nil
}

// room refuses what cannot fit before it fills the file system under running
// instances.
func (r *Registry) room(dir string, size int64) error {
	if size > r.maxSize {
		return fmt.Errorf("%w: %d bytes, %d at most", ErrTooLarge, size, r.maxSize)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("free space of %q: %w", dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; size > free {
		return fmt.Errorf("%w: %d bytes needed, %d free in %q", ErrNoSpace, size, free, dir)
	}
	return nil
}

// accept verifies what was received and publishes it.
func (r *Registry) accept(ctx context.Context, t Template, pool, dir string, p partial) error {
	if err := r.changeCopy(t.ID, pool, func(_ *Template, c *Copy) { c.State = StateVerifying }); err != nil {
		return err
	}
	if err := p.sums.match(t.Checksum, t.Digest); err != nil {
		return whatCame(p.file, err)
	}
	info, err := r.intake.Check(ctx, p.file, t.Format)
	if err != nil {
		return err
	}
	// Mode and bytes reach the disk before the name does: a name must never
	// lead to half an image after a crash.
	if err := errors.Join(p.file.Chmod(0o444), p.file.Sync()); err != nil {
		return err
	}
	path := publishedPath(dir, p.sums.digest(), t.Format)
	// From here a crash finds path and inode, and knows the file as ours.
	err = r.changeCopy(t.ID, pool, func(_ *Template, c *Copy) { c.Path, c.Inode, c.Owned = path, p.inode, true })
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = renameNoReplace(p.path, path)
	if errors.Is(err, fs.ErrExist) {
		// Another host of a shared pool was faster.
		return errors.Join(deleteOwn(p.path, p.inode, true), r.adopt(ctx, t, pool, path))
	}
	if err != nil {
		return err
	}
	if err := syncFolder(dir); err != nil {
		return err
	}
	return r.ready(t.ID, pool, path, p.inode, true, p.sums, p.size, info)
}

func (r *Registry) ready(id, pool, path string, inode uint64, owned bool, s sums, size int64, info ImageInfo) error {
	return r.changeCopy(id, pool, func(t *Template, c *Copy) {
		t.Digest, t.Size, t.VirtualSize = s.digest(), size, info.VirtualSize
		c.State, c.Progress, c.Message, c.Path = StateReady, 100, "", path
		c.Inode, c.Owned, c.Partial, c.PartialInode, c.RetryAt = inode, owned, "", 0, nil
	})
}

func renameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// NFS knows no such rename. A link never replaces either.
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
