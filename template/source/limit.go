package source

import (
	"context"
	"io"

	"golang.org/x/time/rate"

	"github.com/wherry-kvm/wherry/template/fault"
)

// Limit holds reading back to the bytes per second of l, which many readers
// may share; nil is no limit. A read takes no more than l's burst at once.
func Limit(ctx context.Context, r io.Reader, l *rate.Limiter) io.Reader {
	if l == nil || l.Limit() == rate.Inf {
		return r
	}
	return &limited{ctx, r, l}
}

type limited struct {
	ctx     context.Context
	from    io.Reader
	limiter *rate.Limiter
}

func (r *limited) Read(p []byte) (int, error) {
	n, err := r.from.Read(p[:min(len(p), max(r.limiter.Burst(), 1))])
	// After the read, for what came: how much that is cannot be known before.
	if n > 0 {
		if wait := r.limiter.WaitN(r.ctx, n); wait != nil && err == nil {
			if r.ctx.Err() != nil {
				wait = context.Cause(r.ctx)
			}
			return n, fault.Of(wait)
		}
	}
	return n, err
}
