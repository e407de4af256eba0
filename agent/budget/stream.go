package budget

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// burst is how many bytes of a stream may go out at once.
const burst = 64 << 10

// streams number those of the same content.
var streams atomic.Uint64

// streamMark begins the id of a stream, which no operation's does.
const streamMark = "stream "

// Stream is something that this host sends itself, beside the migrations, and
// that has a share as each of them has. It is used by one goroutine.
type Stream struct {
	b       *Budget
	id      string
	limiter *rate.Limiter
	leave   func()
}

// Stream takes part with a content of that name, until Close.
func (b *Budget) Stream(content string) *Stream {
	id := fmt.Sprintf("%s%s %d", streamMark, content, streams.Add(1))
	return &Stream{b: b, id: id, limiter: rate.NewLimiter(rate.Inf, burst), leave: b.Join(id, 0)}
}

// Content gives the name of the content that a share's id stands for; false for
// one of a migration.
func Content(id string) (content string, is bool) {
	rest, is := strings.CutPrefix(id, streamMark)
	if i := strings.LastIndexByte(rest, ' '); is && i >= 0 {
		return rest[:i], true
	}
	return "", false
}

// Wait returns when n bytes may be sent, at the share as it is just now.
func (s *Stream) Wait(ctx context.Context, n int) error {
	for n > 0 {
		share := s.b.Shares()[s.id]
		if share <= 0 {
			s.limiter.SetLimit(rate.Inf)
			return ctx.Err()
		}
		s.limiter.SetLimit(rate.Limit(share))
		part := min(n, burst)
		if err := s.limiter.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// Close leaves its share to the others.
func (s *Stream) Close() { s.leave() }
