package source

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/wherry-kvm/wherry/template/fault"
)

// Kinds of packed content.
const (
	Gzip = "gzip"
	XZ   = "xz"
	Zstd = "zstd"
)

const (
	// readSize is how much is asked for at once: each call goes through the
	// kernel, the network's timer and the digest.
	readSize = 256 << 10
	// maxWindow bounds the memory of a decoder, in bytes. It is what zstd
	// itself accepts by default, and twice what xz -9 needs.
	maxWindow = 128 << 20
)

var magics = []struct{ kind, magic string }{
	{Gzip, "\x1f\x8b\x08"},
	{XZ, "\xfd7zXZ\x00"},
	{Zstd, "\x28\xb5\x2f\xfd"},
}

// Unpack gives the content of r, unpacked as it streams if it begins like an
// archive; kind says which, "" for none. r must be at its beginning.
//
// More than limit bytes are a fault too-large. A broken archive is a fault
// packed. In both good and broken ones r is read to its end before the result
// says EOF or packed, so that whoever takes a digest under it has seen all
// bytes that were served. Errors of r are passed on. Closing r is the caller's;
// the result needs no close.
func Unpack(r io.Reader, limit int64) (unpacked io.Reader, kind string, err error) {
	in := &remembering{from: r}
	b := bufio.NewReaderSize(in, readSize)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, "", err
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			kind = m.kind
		}
	}
	var from io.Reader
	switch kind {
	case "":
		return &capped{from: b, limit: limit}, "", nil
	case Gzip:
		from, err = newGzip(b)
	case XZ:
		from, err = xz.NewReader(bufio.NewReaderSize(&guarded{b, newXZGuard()}, readSize))
	case Zstd:
		from, err = zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	}
	u := &unpacking{kind: kind, from: from, in: in, rest: b}
	if err != nil {
		return nil, kind, u.broken(err)
	}
	return &capped{from: u, limit: limit}, kind, nil
}

// remembering keeps the error of the source, which decoders put their own in
// place of.
type remembering struct {
	from io.Reader
	err  error
}

func (r *remembering) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// unpacking is a decoder's output with errors told apart.
type unpacking struct {
	kind string
	from io.Reader
	in   *remembering
	rest *bufio.Reader
	err  error
}

func (u *unpacking) Read(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	n, err := u.from.Read(p)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) && u.in.err == nil {
		u.err = u.drain()
	} else {
		u.err = u.broken(err)
	}
	return n, u.err
}

// drain reads what is left of the source. The decoders end where it does, so
// that it is nothing; but the digest depends on it.
func (u *unpacking) drain() error {
	if _, err := io.Copy(io.Discard, u.rest); err != nil {
		return err
	}
	return io.EOF
}

// broken says that the archive is, if it is not the source that failed.
func (u *unpacking) broken(err error) error {
	if u.in.err == nil {
		// Whether the bytes are those of the checksum decides whom to ask, and
		// for that all of them must be seen.
		_, _ = io.Copy(io.Discard, u.rest) // an error is in u.in.err
	}
	if u.in.err != nil {
		return u.in.err
	}
	return fault.New(fault.Packed, "the %s archive is broken: %w", u.kind, err)
}

// capped ends a content that is longer than it may be.
type capped struct {
	from  io.Reader
	limit int64
	done  int64
}

func (c *capped) Read(p []byte) (int, error) {
	// One byte more than is allowed tells that there is one.
	if left := c.limit - c.done; int64(len(p)) > left+1 {
		p = p[:max(left, 0)+1]
	}
	n, err := c.from.Read(p)
	c.done += int64(n)
	if c.done > c.limit {
		return 0, fault.New(fault.TooLarge, "the image is over %d bytes", c.limit)
	}
	return n, err
}

// members reads a gzip file of several members, as gzip does, and zeros behind
// them, which tapes and some writers leave.
type members struct {
	from *bufio.Reader
	gzip *gzip.Reader
}

func newGzip(b *bufio.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &members{b, z}, nil
}

var errTrailing = errors.New("something else follows at its end")

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.gzip.Read(p)
		if errors.Is(err, io.EOF) {
			err = m.next()
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// next goes to the next member; io.EOF where there is none.
func (m *members) next() error {
	head, err := m.from.Peek(2)
	switch {
	case len(head) == 0:
		return err
	case string(head) == "\x1f\x8b":
		if err := m.gzip.Reset(m.from); err != nil {
			return err
		}
		m.gzip.Multistream(false)
		return nil
	}
	for {
		c, err := m.from.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			return errTrailing
		}
	}
}
