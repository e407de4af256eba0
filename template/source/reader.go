package source

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
)

// ErrRestart says that the content begins again: all that was read of it is
// void, and what is read next is from offset 0.
var ErrRestart = errors.New("the origin starts over")

// Bounds of one attempt.
const (
	// maxRestarts: an origin that cannot resume and fails underway gets a
	// second chance, and no third.
	maxRestarts = 1
	// maxFailures is how often in a row a connection may not come about.
	maxFailures = 3
	// firstPause before connecting again; it doubles.
	firstPause = time.Second
	// worth is what a connection must have brought for its standstill to be
	// taken for a broken path, and not for a server that has no more to give.
	worth = 1 << 20
)

// ReaderOptions of a Reader.
type ReaderOptions struct {
	// Pause waits before connecting again; it returns an error if ctx ends.
	// Default: a timer.
	Pause func(ctx context.Context, d time.Duration) error
}

// Reader reads a content in one attempt. When the connection is cut it goes on
// where it was, for as long as each connection brings new bytes. Errors are,
// or wrap, a *fault.Fault, or are ErrRestart. Not for use by several at once.
type Reader struct {
	ctx    context.Context
	origin Origin
	pause  func(ctx context.Context, d time.Duration) error

	stream   Stream
	start    int64
	offset   int64 // of the next byte
	brought  int64 // bytes of this connection
	earlier  int64 // bytes that travelled on the connections before it
	restarts int
	hungUp   bool // stream is closed
	pending  bool // a restart that the caller has not been told of
	err      error
}

// NewReader opens an origin. Its content begins at Start, which is at.Offset
// or 0. ctx covers the reading too; Close it at the end.
func NewReader(ctx context.Context, o Origin, at At, options ReaderOptions) (*Reader, error) {
	r := &Reader{ctx: ctx, origin: o, pause: options.Pause}
	if r.pause == nil {
		r.pause = wait
	}
	var err error
	if r.stream, err = o.Open(ctx, at); err != nil {
		return nil, fault.Of(err)
	}
	r.start, r.offset = r.stream.Offset, r.stream.Offset
	return r, nil
}

// Start is the offset of the first byte.
func (r *Reader) Start() int64 { return r.start }

// At is the offset of the next byte, with what proves the content: where a
// later attempt may go on.
func (r *Reader) At() At { return At{Offset: r.offset, Validator: r.stream.Validator} }

// Total is the length of the content in bytes, -1 where it is unknown.
func (r *Reader) Total() int64 { return r.stream.Total }

// Allocated is what the content takes on disk where it lies, in bytes; 0 where
// that is not known.
func (r *Reader) Allocated() int64 { return r.stream.Allocated }

// MediaType is what the origin calls the content: a hint.
func (r *Reader) MediaType() string { return r.stream.MediaType }

// Travelled is how many bytes have come over the network so far: fewer than
// were read where the origin leaves holes out.
func (r *Reader) Travelled() int64 {
	if r.stream.Travelled != nil {
		return r.earlier + r.stream.Travelled()
	}
	return r.earlier + r.brought
}

// Close ends the connection.
func (r *Reader) Close() error {
	r.err = fault.New(fault.Interrupted, "the reader is closed")
	return r.hangUp()
}

// hangUp closes the stream once, of which the rest is not wanted.
func (r *Reader) hangUp() error {
	if r.hungUp {
		return nil
	}
	r.hungUp = true
	return r.stream.Close()
}

// Read gives the next bytes. After ErrRestart it gives those from offset 0.
func (r *Reader) Read(p []byte) (int, error) {
	if r.pending {
		r.pending = false
		return 0, ErrRestart
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.stream.Read(p)
	r.offset += int64(n)
	r.brought += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && (r.stream.Total < 0 || r.offset == r.stream.Total):
		r.err = io.EOF
	case errors.Is(err, io.EOF):
		err = fault.New(fault.Truncated, "the content ended after %d of %d bytes: %w", r.offset, r.stream.Total, io.ErrUnexpectedEOF)
		fallthrough
	default:
		r.err = r.reconnect(fault.Of(err))
	}
	if n > 0 {
		return n, nil // the rest is told next time
	}
	return r.Read(p)
}

// reconnect opens the origin again after a fault; nil if it goes on.
func (r *Reader) reconnect(why *fault.Fault) error {
	brought := r.brought
	if !again(why, brought) {
		return why
	}
	_ = r.hangUp() // it failed already
	for failures, pause := 0, firstPause; failures < maxFailures; failures, pause = failures+1, 2*pause {
		if err := r.pause(r.ctx, pause); err != nil {
			return fault.Of(err)
		}
		next, err := r.origin.Open(r.ctx, r.At())
		if err == nil {
			return r.take(next, why)
		}
		if f := fault.Of(err); !transient(f) {
			return f
		}
	}
	return why
}

// take goes on with a new stream, unless it brings nothing new again.
func (r *Reader) take(next Stream, why *fault.Fault) error {
	r.earlier, r.brought = r.Travelled(), 0
	if next.Offset != r.offset {
		if r.restarts++; r.restarts > maxRestarts || next.Offset != 0 {
			_ = next.Close() // nothing is wanted of it
			if next.Lie != nil {
				return fault.New(fault.Protocol, "%w; it had to be asked because %w", next.Lie, why)
			}
			return why
		}
		r.offset, r.pending = 0, true
	}
	r.stream, r.hungUp = next, false
	return nil
}

// again tells whether a cut connection is worth another.
func again(why *fault.Fault, brought int64) bool {
	switch why.Code {
	case fault.ConnectionLost, fault.Truncated:
		return brought > 0
	case fault.Idle:
		return brought >= worth
	}
	return false
}

// transient tells whether a connection that did not come about is worth
// another try within the attempt: the server may be starting again.
func transient(f *fault.Fault) bool {
	switch f.Code {
	case fault.ConnectionRefused, fault.ConnectionLost, fault.Unreachable, fault.Unresolvable, fault.Peer:
		return true
	}
	status, ok := errors.AsType[*statusError](f)
	return ok && status.passing()
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
