package volume

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// nextExtent finds the next run of data in f at or after offset, as [start,
// end); start is size when only a hole is left. A file system that does not
// know its holes shows one run of data. It moves f's offset.
func nextExtent(f *os.File, offset, size int64) (start, end int64, err error) {
	if offset >= size {
		return size, size, nil
	}
	start, err = f.Seek(offset, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil // nothing but a hole up to the end
	case errors.Is(err, unix.EINVAL):
		return offset, size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = f.Seek(start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, err
	}
	return min(start, size), min(end, size), nil
}

var zeros [64 << 10]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// readFull is ReadAt for a range that must be there.
func readFull(f *os.File, b []byte, offset int64) error {
	n, err := f.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return ErrChanged // the file got shorter
	}
	return err
}
