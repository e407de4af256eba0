package partial

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// block is the granularity in which zeros are left out of the file: that
	// of the usual file systems.
	block = 4 << 10
	// flushEvery is after how many bytes the kernel is told to begin writing,
	// so that the sync at the end finds little left to do.
	flushEvery = 8 << 20
)

// sparse writes one after another, and leaves holes where there are zeros.
type sparse struct {
	file    *os.File
	at      int64 // where the next byte goes
	end     int64 // of the last byte that was really written
	flushed int64
}

// write needs no more system calls than there are runs of data.
func (s *sparse) write(b []byte) error {
	for len(b) > 0 {
		data := run(b, false)
		if data > 0 {
			if _, err := s.file.WriteAt(b[:data], s.at); err != nil {
				return err
			}
			s.end = s.at + int64(data)
		}
		hole := run(b[data:], true)
		s.at += int64(data + hole)
		b = b[data+hole:]
	}
	if s.at-s.flushed >= flushEvery {
		// Only a hint: where it does not work, the sync takes longer.
		_ = unix.SyncFileRange(int(s.file.Fd()), s.flushed, s.at-s.flushed, unix.SYNC_FILE_RANGE_WRITE)
		s.flushed = s.at
	}
	return nil
}

// skip leaves a hole.
func (s *sparse) skip(n int) { s.at += int64(n) }

// extend makes the file as long as what was given, where that ended in a hole.
func (s *sparse) extend() error {
	if s.end == s.at {
		return nil
	}
	s.end = s.at
	return s.file.Truncate(s.at)
}

// run gives how many bytes at the front are blocks of zeros, or are not.
func run(b []byte, zero bool) int {
	n := 0
	for n < len(b) {
		k := min(block, len(b)-n)
		if bytes.Equal(b[n:n+k], zeros[:k]) != zero {
			break
		}
		n += k
	}
	return n
}
