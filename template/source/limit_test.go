package source_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const speed, burst, size = 1000, 250, 10_250
		begin := time.Now()
		all := make([]byte, size)
		got, err := io.ReadAll(source.Limit(t.Context(), bytes.NewReader(all), rate.NewLimiter(speed, burst)))
		if err != nil || len(got) != size {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// sparse is a content of which every tenth byte travels, a hundred ahead of
// what is read.
type sparse struct {
	io.Reader
	read int64
}

func (s *sparse) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.read += int64(n)
	return n, err
}

func (s *sparse) Travelled() int64 { return 100 + s.read/10 }

// Holes cost nothing, and what is buffered on the way is paid once.
func TestLimitOfWhatTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		n, err := io.Copy(io.Discard, source.Limit(t.Context(), &sparse{Reader: bytes.NewReader(make([]byte, 100_000))}, rate.NewLimiter(1000, 100)))
		if err != nil || n != 100_000 {
			t.Errorf("%d bytes, %v", n, err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// Two that share a limit get no more together.
func TestLimitIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := rate.NewLimiter(1000, 100)
		begin := time.Now()
		done := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := io.Copy(io.Discard, source.Limit(t.Context(), bytes.NewReader(make([]byte, 1050)), l))
				done <- err
			}()
		}
		must(t, errors.Join(<-done, <-done))
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestNoLimit(t *testing.T) {
	from := bytes.NewReader(nil)
	for _, l := range []*rate.Limiter{nil, rate.NewLimiter(rate.Inf, 0)} {
		if r := source.Limit(t.Context(), from, l); r != from {
			t.Errorf("%T", r)
		}
	}
}

func TestLimitIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(fault.New(fault.Interrupted, "the agent stops")) })
		n, err := io.Copy(io.Discard, source.Limit(ctx, bytes.NewReader(make([]byte, 1000)), rate.NewLimiter(1, 1)))
		wantFault(t, err, fault.Interrupted, "the agent stops")
		if n < 60 || n > 62 {
			t.Errorf("%d bytes in a minute", n)
		}
	})
}

// A limit of no burst would never let anything through.
func TestLimitWithoutBurst(t *testing.T) {
	_, err := io.ReadAll(source.Limit(t.Context(), bytes.NewReader([]byte("x")), rate.NewLimiter(1, 0)))
	if err == nil {
		t.Error("it came through")
	}
}
