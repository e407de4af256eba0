package source

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
)

// body is the content of an answer. It ends a download that no byte arrives
// from: a deadline over the whole would punish a slow link. And it insists on
// the length that was announced.
type body struct {
	from   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
	host   string
	done   int64
	length int64 // -1: until it ends
}

func (b *body) Read(p []byte) (int, error) {
	// Only while waiting for the server: writing what came may take its time.
	b.timer.Reset(b.idle)
	n, err := b.from.Read(p)
	b.timer.Stop()
	b.done += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		if b.length < 0 || b.done == b.length {
			return n, io.EOF
		}
		err = io.ErrUnexpectedEOF
	case b.ctx.Err() != nil:
		return n, fault.Of(context.Cause(b.ctx))
	}
	return n, b.fault(err)
}

func (b *body) fault(err error) error {
	f := fault.Of(err)
	switch {
	case f.Code == fault.Truncated && b.length >= 0:
		return fault.New(fault.Truncated, "%s ended the content after %d of %d bytes: %w", b.host, b.done, b.length, err)
	case f.Code == fault.Truncated:
		return fault.New(fault.Truncated, "%s ended the content early, after %d bytes: %w", b.host, b.done, err)
	case f.Code == fault.Internal:
		return fault.New(fault.ConnectionLost, "connection to %s lost after %d bytes: %w", b.host, b.done, err)
	}
	return f
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.from.Close()
	b.cancel(nil)
	return err
}
