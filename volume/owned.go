package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Owned is a file that this agent made, by path and identity. It is what goes
// into a journal before the file gets its first byte, and what a later removal
// is held to.
type Owned struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	// Born is the inode's time of birth in nanoseconds since 1970, or 0 where
	// the file system keeps none. File systems hand out the number of a
	// removed inode again at once; the birth tells the two files apart.
	Born int64 `json:"born,omitempty"`
}

// Reserve makes the empty file path with mode 0600, which must not exist, not
// even as a dangling link (fs.ErrExist), and returns its identity. The folder
// is on disk when Reserve returns, so that a file that was journalled is found
// again after a crash. On error nothing is left.
func Reserve(path string) (Owned, error) {
	if !filepath.IsAbs(path) {
		return Owned{}, fmt.Errorf("%w: %q: path is not absolute", ErrSpec, path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return Owned{}, fmt.Errorf("reserve volume: %w", err)
	}
	o, err := identify(f, path)
	if err = errors.Join(err, f.Close()); err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return Owned{}, fmt.Errorf("reserve volume %q: %w", path, errors.Join(err, os.Remove(path)))
	}
	return o, nil
}

// identify reads the identity of an open file that is known as path.
func identify(f *os.File, path string) (Owned, error) {
	return statOwned(int(f.Fd()), "", unix.AT_EMPTY_PATH, path)
}

func statOwned(dirfd int, name string, flags int, path string) (Owned, error) {
	var st unix.Statx_t
	err := unix.Statx(dirfd, name, flags|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return Owned{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	o := Owned{Path: path, Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		o.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return o, nil
}

// Verify says whether the file at the path is still the one that was reserved:
// ErrNotOwned if another is there, fs.ErrNotExist if none is.
func (o Owned) Verify() error {
	now, err := statOwned(unix.AT_FDCWD, o.Path, 0, o.Path)
	if err != nil {
		return err
	}
	return o.same(now)
}

func (o Owned) same(now Owned) error {
	if now.Dev != o.Dev || now.Ino != o.Ino || (o.Born != 0 && now.Born != 0 && o.Born != now.Born) {
		return fmt.Errorf("%w: %q is inode %d on device %d, reserved was inode %d on device %d",
			ErrNotOwned, o.Path, now.Ino, now.Dev, o.Ino, o.Dev)
	}
	return nil
}

// open opens the reserved file itself, or fails with ErrNotOwned.
func (o Owned) open(flags int) (*os.File, error) {
	f, err := openImage(o.Path, flags)
	if err != nil {
		return nil, err
	}
	now, err := identify(f, o.Path)
	if err == nil {
		err = o.same(now)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Format writes an empty image into the reserved file, which keeps its inode
// and mode. The result has exactly the virtual size asked for and reads as
// zeros, or as its backing layer. Fails with ErrSpec, ErrNotOwned, the reason
// why the backing layer cannot be read, or qemu-img's own words.
func (o Owned) Format(ctx context.Context, s Spec, r Runner) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if s.Path != o.Path {
		return fmt.Errorf("%w: specification is for %q, reserved is %q", ErrSpec, s.Path, o.Path)
	}
	if s.Backing != "" {
		if err := checkBacking(s); err != nil {
			return fmt.Errorf("format volume %q: %w", o.Path, err)
		}
	}
	if err := o.format(ctx, s, r); err != nil {
		return fmt.Errorf("format volume %q: %w", o.Path, err)
	}
	return nil
}

// checkBacking reads the backing layer as qemu-img is told not to.
func checkBacking(s Spec) error {
	resolved, err := filepath.EvalSymlinks(s.Backing)
	if err != nil {
		return err
	}
	_, err = Inspect(resolved, s.BackingFormat)
	return err
}

func (o Owned) format(ctx context.Context, s Spec, r Runner) error {
	f, err := o.open(unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if s.Format == FormatRaw {
		// Nothing to write: a hole of the right length is the image. First
		// to nothing, so that formatting twice leaves no old bytes.
		if err := errors.Join(f.Truncate(0), f.Truncate(s.VirtualSize)); err != nil {
			return err
		}
	} else if _, err := r.Run(ctx, "qemu-img", s.createArgs()...); err != nil {
		return err
	}
	// qemu-img went by the path: only now is it known that it wrote here.
	if err := o.Verify(); err != nil {
		return err
	}
	return verifyFormat(f, s.withDefaults())
}

func verifyFormat(f *os.File, s Spec) error {
	l, err := readLayer(f, s.Path, s.Format)
	if err != nil {
		return err
	}
	got := SpecLike(s.Path, l)
	got.Backing, got.BackingFormat = l.BackingFile, l.BackingFormat
	if got != s {
		return fmt.Errorf("%w: made %+v, asked for %+v", ErrSpec, got, s)
	}
	return nil
}

// Sync waits until the volume's bytes are on disk.
func (o Owned) Sync() error {
	f, err := o.open(unix.O_RDWR)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
