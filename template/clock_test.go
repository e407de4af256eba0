package template_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// clock stands still but for advance.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	alarms []alarm
	set    chan time.Duration // receives what is waited for, when not nil
}

type alarm struct {
	at time.Time
	ch chan time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := alarm{c.now.Add(d), make(chan time.Time, 1)}
	c.alarms = append(c.alarms, a)
	if c.set != nil {
		c.set <- d
	}
	return a.ch
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.alarms = slices.DeleteFunc(c.alarms, func(a alarm) bool {
		if a.at.After(c.now) {
			return false
		}
		a.ch <- c.now
		return true
	})
}

// pass lets time pass once Run waits for it, and waits until Run waits again.
// Those in between, which were woken by something else, do not count.
func (c *clock) pass(d time.Duration) {
	c.idle()
	for len(c.set) > 0 {
		<-c.set
	}
	c.advance(d)
	c.idle()
}

// idle waits until somebody waits.
func (c *clock) idle() {
	for {
		c.mu.Lock()
		n := len(c.alarms)
		c.mu.Unlock()
		if n > 0 {
			return
		}
		<-c.set
	}
}

// running runs a registry's own attempts until the end of the test, or until
// stop is called, which is the end of the agent.
func running(t testing.TB, h *host) (stop func()) {
	ctx, cancel := contextOf(t)
	done := make(chan struct{})
	r := h.Registry
	go func() { r.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
