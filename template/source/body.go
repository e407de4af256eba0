package source

import (
	"context"
	"errors"
	"io"
	"net/http"
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
	at     int64 // offset in the content of the next byte
	total  int64 // of the content; -1: until it ends
}

func newBody(ctx context.Context, cancel context.CancelCauseFunc, r *http.Response, idle time.Duration, total int64) *body {
	b := &body{from: r.Body, ctx: ctx, cancel: cancel, idle: idle, host: r.Request.URL.Host, total: total}
	b.timer = time.AfterFunc(idle, func() {
		cancel(fault.New(fault.Idle, "no data from %s for %s", b.host, b.idle))
	})
	b.timer.Stop() // it runs while something is waited for
	return b
}

func (b *body) Read(p []byte) (int, error) {
	// Only while waiting for the server: writing what came may take its time.
	b.timer.Reset(b.idle)
	n, err := b.from.Read(p)
	b.timer.Stop()
	b.at += int64(n)
	switch {
	case b.total >= 0 && b.at > b.total:
		return n, fault.New(fault.Size, "%s sends more than the %d bytes that were announced", b.host, b.total)
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		if b.total < 0 || b.at == b.total {
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
	case f.Code == fault.Truncated && b.total >= 0:
		return fault.New(fault.Truncated, "%s ended the content after %d of %d bytes: %w", b.host, b.at, b.total, err)
	case f.Code == fault.Truncated:
		return fault.New(fault.Truncated, "%s ended the content early, after %d bytes: %w", b.host, b.at, err)
	case f.Code == fault.Internal:
		return fault.New(fault.ConnectionLost, "connection to %s lost after %d bytes: %w", b.host, b.at, err)
	}
	return f
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.from.Close()
	b.cancel(nil)
	return err
}
