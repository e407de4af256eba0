package extents

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Encode writes f, from its beginning to the size it has now, to w. The file
// must not change meanwhile; the file's offset is moved. Deadlines and
// cancelling are w's business: its error ends the encoding.
func Encode(w io.Writer, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("extents of %q: %w", f.Name(), err)
	}
	size := info.Size()
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	head := append([]byte(magic), binary.BigEndian.AppendUint64(nil, uint64(size))...)
	if _, err := out.Write(head); err != nil {
		return fmt.Errorf("extents of %q: %w", f.Name(), err)
	}
	buf := make([]byte, headSize+MaxExtent)
	for at := int64(0); at < size; {
		start, end, err := nextData(f, at, size)
		if err != nil {
			return fmt.Errorf("extents of %q: %w", f.Name(), err)
		}
		for at = start; at < end; {
			n := min(end-at, MaxExtent)
			if err := writeExtent(out, f, buf, at, n); err != nil {
				return fmt.Errorf("extents of %q at %d: %w", f.Name(), at, err)
			}
			at += n
		}
	}
	tail := binary.BigEndian.AppendUint64(nil, uint64(size))
	if _, err := out.Write(append(tail, make([]byte, 8)...)); err != nil {
		return fmt.Errorf("extents of %q: %w", f.Name(), err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("extents of %q: %w", f.Name(), err)
	}
	return nil
}

// writeExtent sends head and bytes in one write, so that a small extent costs
// one packet and not two.
func writeExtent(w io.Writer, f io.ReaderAt, buf []byte, at, n int64) error {
	binary.BigEndian.PutUint64(buf, uint64(at))
	binary.BigEndian.PutUint64(buf[8:], uint64(n))
	if _, err := f.ReadAt(buf[headSize:headSize+n], at); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the file became shorter
		}
		return err
	}
	_, err := w.Write(buf[:headSize+n])
	return err
}

// nextData gives the next run of data at or after at, cut to size; start is
// size where only a hole follows. A file system that cannot tell holes says
// EINVAL or EOPNOTSUPP; the rest is then all data.
func nextData(f *os.File, at, size int64) (start, end int64, err error) {
	fd := int(f.Fd())
	start, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return at, size, nil
	case err != nil:
		return 0, 0, fmt.Errorf("find data at %d: %w", at, err)
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("find hole at %d: %w", start, err)
	}
	return min(start, size), min(end, size), nil
}
