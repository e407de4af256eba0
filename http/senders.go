package http

import (
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

const (
	// defaultSenders is how many templates are sent at once where nobody says.
	defaultSenders = 3
	// askAgain is when a peer that found no sender should try again. It is
	// short of what an image takes: places come free one by one.
	askAgain = 5 * time.Second
)

// senders bounds how many templates are sent at once, so that peers that
// repair their copies leave disk and link to the instances of this host.
type senders chan struct{}

func newSenders(n int) senders {
	if n <= 0 {
		n = defaultSenders
	}
	return make(senders, n)
}

// take takes a place, to be given back by release, or says "overloaded" at
// once: a caller that waited here could not be asked whether it is still there.
func (s senders) take() error {
	select {
	case s <- struct{}{}:
		return nil
	default:
		return s.overloaded()
	}
}

func (s senders) release() { <-s }

// free tells whether take would succeed just now.
func (s senders) free() error {
	if len(s) < cap(s) {
		return nil
	}
	return s.overloaded()
}

func (s senders) overloaded() error {
	p := api.NewProblem("overloaded", "this host sends %d templates already, as many as it may", cap(s))
	p.RetryAfter = askAgain
	return p
}
