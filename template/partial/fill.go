package partial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bufferSize = 1 << 20
	buffers    = 16
	// ahead is how many chunks may wait for the sums or the file. Those of zeros
	// take no buffer, so that data goes on coming while a hole is summed; what is
	// left of them is summed before Fill returns.
	ahead = 256
	// A crash costs saveEvery bytes, or what came in saveAfter, if that is less.
	saveEvery = 64 << 20
	saveAfter = 2 * time.Second
)

// zeros is what every chunk of zeros holds; nobody writes to it.
var zeros [bufferSize]byte

// ErrLimit says that the image is larger than allowed.
var ErrLimit = errors.New("too large")

// DiskError is what went wrong with the file, as opposed to what is read.
type DiskError struct{ Err error }

func (e *DiskError) Error() string { return e.Err.Error() }
func (e *DiskError) Unwrap() error { return e.Err }

// Fill says how an image is filled.
type Fill struct {
	// Key is saved with the state; with an empty Want none is saved, for bytes
	// that cannot be asked for from the middle on.
	Key Key
	// Limit bounds the size of the image, in bytes.
	Limit int64
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// chunk is bytes on their way. Its buffer is free again when both the sums and
// the file have it.
type chunk struct {
	b     []byte
	hole  bool // b is of zeros, and no buffer
	users atomic.Int32
	// save is for the last chunk before a state is saved; nil for others.
	save *checkpoint
}

// checkpoint is a state to be saved. sums is closed once state has them.
type checkpoint struct {
	state State
	sums  chan struct{}
}

// filling is one run of Fill: one goroutine reads, one sums, one writes and
// one syncs, so that none waits for another but when the buffers run out.
type filling struct {
	p              *Partial
	o              Fill
	out            sparse
	free           chan []byte
	toSums, toFile chan *chunk
	saves          chan *checkpoint
	failed         chan struct{} // closed by the first that cannot go on
	once           sync.Once
	err            error // of the writer or syncer; valid once failed is closed
	size, nextSave int64 // the reader's
	lastSave       time.Time
}

// Fill appends what r gives, up to its end. What r gave before an error is
// kept, and counts. An error is r's own, ErrLimit, the cause of ctx, or a
// *DiskError. ctx is looked at between reads; what ends a read that
// hangs is closing r.
func (p *Partial) Fill(ctx context.Context, r io.Reader, o Fill) error {
	f := newFilling(p, o)
	var stages, syncer sync.WaitGroup
	stages.Go(f.sum)
	stages.Go(f.write)
	syncer.Go(f.sync)
	err := f.read(ctx, r)
	close(f.toSums)
	close(f.toFile)
	stages.Wait()
	close(f.saves)
	syncer.Wait()
	if f.err != nil {
		p.torn = true
		return &DiskError{f.err}
	}
	p.size = f.size
	// A hole at the end has no write to make the file long enough.
	if extendErr := f.out.extend(); extendErr != nil {
		p.torn = true
		return &DiskError{extendErr}
	}
	if err == nil {
		// It is only room: an image that takes more is as good.
		_ = trim(p.image)
	}
	return err
}

func newFilling(p *Partial, o Fill) *filling {
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &filling{
		p: p, o: o, out: sparse{file: p.image, at: p.size, end: p.size, flushed: p.size},
		free: make(chan []byte, buffers), toSums: make(chan *chunk, ahead), toFile: make(chan *chunk, ahead),
		saves: make(chan *checkpoint, 1), failed: make(chan struct{}),
		size: p.size, nextSave: p.size + saveEvery, lastSave: o.Now(),
	}
	for range buffers {
		f.free <- nil // made when it is needed: most images are small
	}
	return f
}

func (f *filling) fail(err error) {
	f.once.Do(func() { f.err = err; close(f.failed) })
}

// read fills buffers and hands them on, until the end.
func (f *filling) read(ctx context.Context, r io.Reader) error {
	var b []byte
	for {
		if b == nil {
			select {
			case b = <-f.free:
			case <-f.failed:
				return nil
			}
		}
		if b == nil {
			b = make([]byte, bufferSize)
		}
		n, err := f.fillBuffer(ctx, r, b)
		c := &chunk{b: b[:n]}
		if bytes.Equal(c.b, zeros[:n]) {
			c.b, c.hole = zeros[:n], true
		} else {
			b = nil // it is free again when the others are done with it
		}
		if n > 0 {
			f.pass(c)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// fillBuffer reads until the buffer is full, or until it is time to save what
// came. Not io.ReadFull: it hides whether a short body or its proper end was
// met.
func (f *filling) fillBuffer(ctx context.Context, r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		select {
		case <-ctx.Done():
			return n, context.Cause(ctx)
		case <-f.failed:
			return n, io.EOF
		default:
		}
		var k int
		k, err = r.Read(b[n:])
		n += k
		if f.size+int64(n) > f.o.Limit {
			return n, fmt.Errorf("%w: more than %d bytes", ErrLimit, f.o.Limit)
		}
		if f.due(n) {
			// To the end of a block: holes are found by blocks.
			b = b[:(n+block-1)/block*block]
		}
	}
	return n, err
}

// due tells whether a state is to be saved that has n bytes more.
func (f *filling) due(n int) bool {
	return f.o.Key.Want != "" && (f.size+int64(n) >= f.nextSave || f.o.Now().Sub(f.lastSave) >= saveAfter)
}

func (f *filling) pass(c *chunk) {
	f.size += int64(len(c.b))
	c.users.Store(2)
	if f.due(0) {
		f.nextSave, f.lastSave = f.size+saveEvery, f.o.Now()
		c.save = &checkpoint{state: State{Key: f.o.Key, Offset: f.size}, sums: make(chan struct{})}
	}
	f.toSums <- c
	f.toFile <- c
}

func (f *filling) release(c *chunk) {
	if c.users.Add(-1) == 0 && !c.hole {
		f.free <- c.b[:bufferSize]
	}
}

func (f *filling) sum() {
	for c := range f.toSums {
		_, _ = f.p.sums.Write(c.b) // never fails
		if c.save != nil {
			var err error
			if c.save.state.Sums, err = f.p.sums.Save(); err != nil {
				f.fail(err)
			}
			close(c.save.sums)
		}
		f.release(c)
	}
}

func (f *filling) write() {
	for c := range f.toFile {
		f.writeChunk(c)
		f.release(c)
	}
}

func (f *filling) writeChunk(c *chunk) {
	select {
	case <-f.failed:
		return // the buffers still go round, so that nobody waits for ever
	default:
	}
	var err error
	if c.hole {
		f.out.skip(len(c.b))
	} else {
		err = f.out.write(c.b)
	}
	if err == nil && c.save != nil {
		// A state must not say more than the file is long.
		err = f.out.extend()
		select {
		case f.saves <- c.save:
		default: // the last one is still being synced; the next will do
		}
	}
	if err != nil {
		f.fail(fmt.Errorf("writing the image: %w", err))
	}
}

// sync saves states, beside the writing: what is synced early need not be
// waited for at the end.
func (f *filling) sync() {
	for s := range f.saves {
		<-s.sums
		if err := f.p.save(s.state); err != nil {
			f.fail(err)
		}
	}
}
