package cli

import (
	"context"
	"os"
	"sync"
)

// signals routes the signals of one run: they cancel it, unless a command has
// taken them over to ask what they mean.
type signals struct {
	mu    sync.Mutex
	taken chan os.Signal
}

// watchSignals routes until ctx ends.
func watchSignals(ctx context.Context, cancel context.CancelFunc, received <-chan os.Signal) *signals {
	s := &signals{}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-received:
				if !s.forward(sig) {
					cancel()
				}
			}
		}
	}()
	return s
}

func (s *signals) forward(sig os.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		return false
	}
	select {
	case s.taken <- sig:
	default: // two are waiting already; a third says nothing new
	}
	return true
}

// take delivers signals to the caller until it gives them back.
func (s *signals) take() (received <-chan os.Signal, giveBack func()) {
	taken := make(chan os.Signal, 2)
	s.mu.Lock()
	s.taken = taken
	s.mu.Unlock()
	return taken, func() {
		s.mu.Lock()
		s.taken = nil
		s.mu.Unlock()
	}
}
