package leftover

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// errNoAnswer: storage has not answered in time. Nothing is known of it.
var errNoAnswer = errors.New("its storage does not answer")

// look is one reading of storage. No context ends a system call on storage that
// hangs, so the reading goes on by itself, and who waits for it gives up.
type look[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func newLook[T any](read func() (T, error)) *look[T] {
	l := &look[T]{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.value, l.err = read()
	}()
	return l
}

// wait gives errNoAnswer when ctx ends first.
func (l *look[T]) wait(ctx context.Context) (none T, err error) {
	select {
	case <-l.done:
		return l.value, l.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", errNoAnswer, ctx.Err())
	}
}

// looks keeps those that have not returned: however often one asks, storage
// that hangs holds one of each.
type looks[T any] struct {
	mu   sync.Mutex
	open map[string]*look[T]
}

// begin begins a reading, or gives the one that is still under way.
func (s *looks[T]) begin(key string, read func() (T, error)) *look[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.open[key]; ok {
		return l
	}
	if s.open == nil {
		s.open = map[string]*look[T]{}
	}
	l := newLook(func() (T, error) {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.open, key)
		}()
		return read()
	})
	s.open[key] = l
	return l
}
