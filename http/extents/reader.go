package extents

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// readBuffer gathers heads and small extents; longer ones go past it.
const readBuffer = 64 << 10

// Reader gives the bytes of a file from a stream, holes as zeroes.
type Reader struct {
	in          *bufio.Reader
	size, start int64
	at          int64 // where in the file the next byte lies
	hole        int64 // zeroes until the next extent or the end
	data        int64 // bytes left of the extent behind the hole
	last        bool  // the hole ends at the end
	err         error
}

// NewReader reads the head of a stream. It returns an error that wraps
// [ErrMalformed], [io.ErrUnexpectedEOF], or the error of r.
func NewReader(r io.Reader) (*Reader, error) {
	in := bufio.NewReaderSize(r, readBuffer)
	head := make([]byte, len(magic)+headSize)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, cut(err)
	}
	if got := head[:len(magic)]; string(got) != magic {
		return nil, fmt.Errorf("%w: wrong magic %q", ErrMalformed, got)
	}
	size, err := number(head[len(magic):], math.MaxInt64)
	if err != nil {
		return nil, fmt.Errorf("file size: %w", err)
	}
	start, err := number(head[len(magic)+8:], size)
	if err != nil {
		return nil, fmt.Errorf("start of the stream: %w", err)
	}
	return &Reader{in: in, size: size, start: start, at: start}, nil
}

// Size gives the whole file's size in bytes, as the stream has it.
func (r *Reader) Size() int64 { return r.size }

// Start gives where in the file the stream begins, at most Size.
func (r *Reader) Start() int64 { return r.start }

// Read gives the next bytes of the file. [io.EOF] comes after the end of the
// stream and nowhere else: a stream that was cut gives [io.ErrUnexpectedEOF],
// one that breaks the rules [ErrMalformed], and r's error is passed on.
func (r *Reader) Read(p []byte) (n int, err error) {
	for n < len(p) && r.err == nil {
		if n > 0 && r.hole == 0 && r.in.Buffered() == 0 {
			return n, nil // more would wait for the network
		}
		switch {
		case r.hole > 0:
			k := min(int64(len(p)-n), r.hole)
			clear(p[n : n+int(k)])
			r.hole, r.at, n = r.hole-k, r.at+k, n+int(k)
		case r.data > 0:
			k, err := r.in.Read(p[n : n+int(min(int64(len(p)-n), r.data))])
			r.data, r.at, n = r.data-int64(k), r.at+int64(k), n+k
			r.err = cut(err)
		case r.last:
			r.err = r.finish()
		default:
			r.err = r.next()
		}
	}
	if n > 0 || len(p) == 0 {
		return n, nil // an error comes with the next call
	}
	return 0, r.err
}

// next reads the head of an extent, or the end.
func (r *Reader) next() error {
	var head [headSize]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return cut(err)
	}
	offset, err := number(head[:8], r.size)
	if err != nil {
		return fmt.Errorf("extent after %d: %w", r.at, err)
	}
	length, err := number(head[8:], min(MaxExtent, r.size-offset))
	if err != nil {
		return fmt.Errorf("length of the extent at %d: %w", offset, err)
	}
	switch {
	case length == 0 && offset != r.size:
		return fmt.Errorf("%w: ends at %d of %d bytes", ErrMalformed, offset, r.size)
	case offset < r.at:
		return fmt.Errorf("%w: the extent at %d begins before %d", ErrMalformed, offset, r.at)
	}
	r.hole, r.data, r.last = offset-r.at, length, length == 0
	return nil
}

// finish finds nothing after the end. Reading up to the end of the body also
// lets the connection be used again.
func (r *Reader) finish() error {
	_, err := r.in.ReadByte()
	if err == nil {
		return fmt.Errorf("%w: something follows the end", ErrMalformed)
	}
	return err
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
