package extents

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Decode reads one stream from r into w, an empty file, and returns the size
// that the file is to have: where it ends in a hole, the caller must extend it
// to that size. A stream of more than limit bytes of file is refused before
// anything is written. After an error w holds a part and is to be discarded.
//
// It returns an error that wraps [ErrMalformed], [io.ErrUnexpectedEOF] for a
// stream that was cut, or the error of r or w.
func Decode(r io.Reader, w io.WriterAt, limit int64) (size int64, err error) {
	sum := sha256.New()
	in := io.TeeReader(r, sum)
	head := make([]byte, headSize)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, cut(err)
	}
	if !bytes.HasPrefix(head, []byte(magic)) {
		return 0, fmt.Errorf("%w: wrong magic %q", ErrMalformed, head[:8])
	}
	if size, err = number(head[8:], max(limit, 0)); err != nil {
		return 0, fmt.Errorf("file size: %w", err)
	}
	// Grows with the extents that come, so that a short stream costs little.
	var buf bytes.Buffer
	for at := int64(0); ; {
		if _, err := io.ReadFull(in, head); err != nil {
			return 0, cut(err)
		}
		offset, err := number(head[:8], size)
		if err != nil {
			return 0, fmt.Errorf("extent after %d: %w", at, err)
		}
		length, err := number(head[8:], min(MaxExtent, size-offset))
		if err != nil {
			return 0, fmt.Errorf("length of the extent at %d: %w", offset, err)
		}
		if length == 0 {
			if offset != size {
				return 0, fmt.Errorf("%w: ends at %d of %d bytes", ErrMalformed, offset, size)
			}
			return size, verify(r, sum.Sum(nil))
		}
		if offset < at {
			return 0, fmt.Errorf("%w: the extent at %d overlaps the one before it, which ends at %d", ErrMalformed, offset, at)
		}
		buf.Reset()
		if _, err := io.CopyN(&buf, in, length); err != nil {
			return 0, cut(err)
		}
		if _, err := w.WriteAt(buf.Bytes(), offset); err != nil {
			return 0, err
		}
		at = offset + length
	}
}

// verify compares the digest that ends the stream, and finds nothing after it.
func verify(r io.Reader, want []byte) error {
	got := make([]byte, digestSize)
	if _, err := io.ReadFull(r, got); err != nil {
		return cut(err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: wrong digest", ErrMalformed)
	}
	switch _, err := io.ReadFull(r, got[:1]); {
	case err == nil:
		return fmt.Errorf("%w: something follows the digest", ErrMalformed)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// number reads a value that may be at most limit.
func number(b []byte, limit int64) (int64, error) {
	v := binary.BigEndian.Uint64(b)
	if v > uint64(limit) {
		return 0, fmt.Errorf("%w: %d is more than %d", ErrMalformed, v, limit)
	}
	return int64(v), nil
}

// cut names an early end for what it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
