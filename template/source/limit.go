package source

import (
	"context"
	"io"

	"golang.org/x/time/rate"

	"github.com/wherry-kvm/wherry/template/fault"
)

// Traveller is a reader that knows how many of the bytes that it gives have
// come over the network.
type Traveller interface{ Travelled() int64 }

// Limit holds reading back to the bytes per second of l, which many readers
// may share; nil is no limit. What a [Traveller] gives counts as it travelled:
// holes that were left out cost nothing. A read takes no more than l's burst
// at once.
func Limit(ctx context.Context, r io.Reader, l *rate.Limiter) io.Reader {
	if l == nil || l.Limit() == rate.Inf {
		return r
	}
	out := &limited{ctx: ctx, from: r, limiter: l}
	if t, ok := r.(Traveller); ok {
		out.travelled = t.Travelled
	}
	return out
}

type limited struct {
	ctx     context.Context
	from    io.Reader
	limiter *rate.Limiter

	travelled func() int64 // nil: what is read
	paid      int64        // of what travelled
}

func (r *limited) Read(p []byte) (int, error) {
	n, err := r.from.Read(p[:min(len(p), max(r.limiter.Burst(), 1))])
	// After the read, for what came: how much that is cannot be known before.
	if wait := r.pay(int64(n)); wait != nil && err == nil {
		if r.ctx.Err() != nil {
			wait = context.Cause(r.ctx)
		}
		return n, fault.Of(wait)
	}
	return n, err
}

// pay waits as long as what came costs. More may have travelled than was
// given: what is buffered on the way.
func (r *limited) pay(n int64) error {
	if r.travelled != nil {
		n = r.travelled() - r.paid
	}
	for r.paid += n; n > 0; {
		k := min(n, int64(max(r.limiter.Burst(), 1)))
		if err := r.limiter.WaitN(r.ctx, int(k)); err != nil {
			return err
		}
		n -= k
	}
	return nil
}
