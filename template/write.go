package template

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	copyBuffer = 1 << 20
	// holeSize is the granularity in which zeros are left out of the file.
	holeSize = 64 << 10
)

// sums are the digests of a file's bytes. SHA-256 is always taken, since it
// names the file; SHA-512 where the checksum is one.
type sums struct{ sha256, sha512 hash.Hash }

func newSums(checksum string) sums {
	s := sums{sha256: sha256.New()}
	if strings.HasPrefix(checksum, "sha512:") {
		s.sha512 = sha512.New()
	}
	return s
}

func (s sums) write(b []byte) {
	s.sha256.Write(b)
	if s.sha512 != nil {
		s.sha512.Write(b)
	}
}

// digest is the name of the bytes, "sha256:...".
func (s sums) digest() string { return "sha256:" + hex.EncodeToString(s.sha256.Sum(nil)) }

// match compares with each of the given checksums, of which one may be the
// SHA-512 that the sums were made for; an empty one says nothing.
func (s sums) match(want ...string) error {
	for _, w := range want {
		got := s.digest()
		if s.sha512 != nil && strings.HasPrefix(w, "sha512:") {
			got = "sha512:" + hex.EncodeToString(s.sha512.Sum(nil))
		}
		if w != "" && got != w {
			return fmt.Errorf("%w: expected %s, got %s", ErrChecksum, w, got)
		}
	}
	return nil
}

// writeImage copies content to an empty file, with holes where it has zeros,
// and adds its bytes to s.
// It fails when there are fewer or more bytes than content.Size says, or more
// than limit.
func writeImage(ctx context.Context, file *os.File, content Content, s sums, limit int64, progress func(done int64)) (done int64, err error) {
	buf := make([]byte, copyBuffer)
	for {
		n, end, err := fill(ctx, content, buf)
		s.write(buf[:n])
		if werr := writeSparse(file, buf[:n], done); werr != nil {
			return done, werr
		}
		done += int64(n)
		if n > 0 {
			progress(done)
		}
		switch {
		case err != nil:
			return done, fmt.Errorf("after %d bytes: %w", done, err)
		case done > limit:
			return done, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		case !end:
			continue
		case content.Size >= 0 && done != content.Size:
			return done, fmt.Errorf("%w: %d bytes of %d", ErrServer, done, content.Size)
		}
		// A hole at the end has no write to make the file long enough.
		return done, spaceError(file.Truncate(done))
	}
}

// fill reads until the buffer is full or the content ends. Not io.ReadFull: it
// hides whether a short body or its proper end was met.
func fill(ctx context.Context, from io.Reader, buf []byte) (n int, end bool, err error) {
	for n < len(buf) {
		if ctx.Err() != nil {
			return n, false, context.Cause(ctx)
		}
		k, err := from.Read(buf[n:])
		n += k
		if errors.Is(err, io.EOF) {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

var zeros [holeSize]byte

func writeSparse(file *os.File, b []byte, at int64) error {
	for len(b) > 0 {
		n := min(len(b), holeSize)
		if !bytes.Equal(b[:n], zeros[:n]) {
			if _, err := file.WriteAt(b[:n], at); err != nil {
				return spaceError(err)
			}
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func spaceError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
