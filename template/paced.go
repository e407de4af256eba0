package template

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// paced reads no faster than a limit, if there is one, and says how far it is.
type paced struct {
	ctx         context.Context
	r           io.Reader
	limit       *rate.Limiter
	progress    Progress
	done, total int64
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 && p.limit != nil {
		if err := p.limit.WaitN(p.ctx, n); err != nil {
			return n, err
		}
	}
	p.done += int64(n)
	if n > 0 && p.progress != nil {
		p.progress(p.done, p.total)
	}
	return n, err
}
