package partial

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// trim gives back the room that the file system took for the holes: XFS takes
// room ahead of a file that grows, in steps that double (XFS FAQ, speculative
// preallocation), and what lies before its end when it has grown stays taken.
func trim(f *os.File) error {
	var holes int64
	err := eachHole(f, func(_, length int64) error { holes += length; return nil })
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil || st.Blocks*512 <= st.Size-holes {
		return err
	}
	return eachHole(f, func(at, length int64) error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
	})
}

// eachHole calls fn for each hole.
func eachHole(f *os.File, fn func(at, length int64) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	fd, size := int(f.Fd()), info.Size()
	for at := int64(0); at < size; {
		hole, err := unix.Seek(fd, at, unix.SEEK_HOLE)
		if err != nil || hole >= size {
			return err
		}
		end, err := unix.Seek(fd, hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			end, err = size, nil // nothing but the hole is left
		}
		if err != nil {
			return err
		}
		if err := fn(hole, end-hole); err != nil {
			return err
		}
		at = end
	}
	return nil
}
