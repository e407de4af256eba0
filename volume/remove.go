package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Remove deletes the file if it is the one that was reserved and nobody holds
// it open. A file that is absent already is success; another file in its place
// is ErrNotOwned, one in use is ErrInUse naming who holds it. The folder is on
// disk when Remove returns.
//
// What has been looked at is no more than what had the name then, so the file
// goes aside first, within its folder, to a name that nobody else uses, and is
// looked at again there. What turns out to be another's gets its name back. A
// removal that breaks off in between is taken up by the next Remove.
func (o Owned) Remove() error {
	return o.removeWhile(func() {}, func() {})
}

// removeWhile is Remove with what others do after the look at the file under
// its name, and after it was put aside.
func (o Owned) removeWhile(looked, asided func()) error {
	folder, err := os.Open(filepath.Dir(o.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		// All by the folder's descriptor, so that a folder that is moved away
		// meanwhile does not change what is meant.
		r := removal{Owned: o, dirfd: int(folder.Fd()), name: filepath.Base(o.Path), looked: looked, asided: asided}
		err = r.run()
		if err == nil {
			err = folder.Sync()
		}
		err = errors.Join(err, folder.Close())
	}
	if err != nil {
		return fmt.Errorf("remove volume: %w", err)
	}
	return nil
}

// Removing tells whether a removal of the file has broken off: it lies under
// the name that only a removal gives, and waits for Remove.
func (o Owned) Removing() bool {
	o.Path = o.aside()
	return o.Verify() == nil
}

// aside is where the file lies while it is removed. It follows from what is
// journalled of the file, under whichever name that was, and its number tells
// it from others in the folder.
func (o Owned) aside() string {
	return filepath.Join(filepath.Dir(o.Path), fmt.Sprintf(".wherry-removing-%d", o.Ino))
}

type removal struct {
	Owned
	dirfd          int
	name           string
	looked, asided func()
}

func (r removal) run() error {
	aside := filepath.Base(r.aside())
	found, err := r.check(aside)
	switch {
	case err == nil && found:
		if err := r.unlink(aside); err != nil {
			return err
		}
	case errors.Is(err, ErrInUse):
		return err
	}
	now, err := r.check(r.name)
	if found && errors.Is(err, ErrNotOwned) {
		return nil // the reserved file is gone, and another has its name
	}
	if err != nil || !now {
		return err
	}
	r.looked()
	if err := r.putAside(aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody was faster
		}
		return err
	}
	r.asided()
	if _, err := r.check(aside); err != nil {
		return errors.Join(err, r.putBack(aside))
	}
	return r.unlink(aside)
}

// check is nil if the file of this name is the reserved one and nobody has it
// open; found is false if there is none.
func (r removal) check(name string) (found bool, err error) {
	path := filepath.Join(filepath.Dir(r.Path), name)
	now, err := statOwned(r.dirfd, name, 0, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	own := r.Owned
	own.Path = path
	if err := own.same(now); err != nil {
		return false, err
	}
	return true, checkUnused(own)
}

// putAside gives the file its other name, replacing nothing. A file system that
// cannot promise that, such as NFS, is asked first. A file that has gone
// meanwhile is fs.ErrNotExist.
func (r removal) putAside(aside string) error {
	err := unix.Renameat2(r.dirfd, r.name, r.dirfd, aside, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		var there unix.Stat_t
		switch err = unix.Fstatat(r.dirfd, aside, &there, unix.AT_SYMLINK_NOFOLLOW); {
		case err == nil:
			err = unix.EEXIST
		case errors.Is(err, unix.ENOENT):
			err = unix.Renameat(r.dirfd, r.name, r.dirfd, aside)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: r.Path, New: r.aside(), Err: err}
	}
	return nil
}

// putBack returns a file that was put aside to its name. Where another has that
// by now, neither is lost: a link replaces nothing on any file system.
func (r removal) putBack(aside string) error {
	err := unix.Renameat2(r.dirfd, aside, r.dirfd, r.name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		if err = unix.Linkat(r.dirfd, aside, r.dirfd, r.name, 0); err == nil {
			err = unix.Unlinkat(r.dirfd, aside, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("%q was put aside and stays there: %w", r.Path,
			&os.LinkError{Op: "rename", Old: r.aside(), New: r.Path, Err: err})
	}
	return nil
}

func (r removal) unlink(name string) error {
	if err := unix.Unlinkat(r.dirfd, name, 0); err != nil {
		return &os.PathError{Op: "unlink", Path: filepath.Join(filepath.Dir(r.Path), name), Err: err}
	}
	return nil
}
