package extents

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Encode writes f, from start to the size it has now, to w; the file's offset
// is moved. Deadlines and cancelling are w's business: its error ends the
// encoding. A file that was written to meanwhile gets no end, so that nobody
// takes the stream for whole, and the error wraps [ErrChanged].
func Encode(w io.Writer, f *os.File, start int64) error {
	if err := encode(w, f, start); err != nil {
		return fmt.Errorf("extents of %q: %w", f.Name(), err)
	}
	return nil
}

func encode(w io.Writer, f *os.File, start int64) error {
	before, err := f.Stat()
	if err != nil {
		return err
	}
	size := before.Size()
	if start < 0 || start > size {
		return fmt.Errorf("start %d is outside of %d bytes", start, size)
	}
	head := binary.BigEndian.AppendUint64([]byte(magic), uint64(size))
	if _, err := w.Write(binary.BigEndian.AppendUint64(head, uint64(start))); err != nil {
		return err
	}
	buf := make([]byte, headSize+MaxExtent)
	for at := start; at < size; {
		from, end, err := nextData(f, at, size)
		if err != nil {
			return err
		}
		for at = from; at < end; {
			n := min(end-at, MaxExtent)
			if err := writeExtent(w, f, buf, at, n); err != nil {
				return fmt.Errorf("at %d: %w", at, err)
			}
			at += n
		}
	}
	if err := unchanged(f, before); err != nil {
		return err
	}
	clear(buf[:headSize])
	binary.BigEndian.PutUint64(buf, uint64(size))
	_, err = w.Write(buf[:headSize])
	return err
}

// unchanged looks before the end is sent: a hole that was filled behind the
// encoder's back has left no other trace.
func unchanged(f *os.File, before fs.FileInfo) error {
	after, err := f.Stat()
	if err != nil {
		return err
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return ErrChanged
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
			err = ErrChanged // it became shorter
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
