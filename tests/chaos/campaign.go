package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// campaign is all seeds of one call.
type campaign struct {
	options
	logs  string
	mu    sync.Mutex // of what follows, and of what is printed
	taken uint64     // seeds that a lab has begun
	tally tally
}

// all runs every seed, on labs with folders of their own, and takes the labs down.
func (c *campaign) all(ctx context.Context, folder string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	count := int(min(uint64(max(1, c.labs)), c.seeds))
	errs := make([]error, count)
	var labs sync.WaitGroup
	for n := range count {
		state := folder
		if count > 1 {
			state = fmt.Sprintf("%s-%d", folder, n+1)
		}
		labs.Go(func() {
			errs[n] = errors.Join(c.lab(ctx, state), takeDown(state))
			if errs[n] != nil {
				stop() // what keeps one lab from working keeps the others from it
			}
		})
	}
	labs.Wait()
	return errors.Join(errs...)
}

// next gives the next seed that nobody has begun.
func (c *campaign) next() (seed uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken == c.seeds {
		return 0, false
	}
	c.taken++
	return c.base + c.taken - 1, true
}

// lab runs seeds one after the other on one lab, which is a fresh one after a seed that has failed, or left something to
// be decided.
func (c *campaign) lab(ctx context.Context, state string) error {
	var lab *rig
	defer func() {
		if lab != nil {
			lab.close()
		}
	}()
	for {
		seed, ok := c.next()
		if !ok {
			return nil
		}
		s := schedule.Generate(seed)
		if err := s.Legal(); err != nil {
			return fmt.Errorf("%s%w", s, err)
		}
		if lab == nil {
			var err error
			if lab, err = newRig(ctx, state); err != nil {
				return fmt.Errorf("hosts for seed %d: %w", seed, err)
			}
		}
		r := lab.play(ctx, s)
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted in seed %d", seed)
		}
		if c.over(r) {
			continue
		}
		lab.close()
		lab = nil
	}
}

// over says what became of a seed, and tells whether the lab is fit for another one.
func (c *campaign) over(r *result) (fit bool) {
	folder := filepath.Join(c.logs, fmt.Sprintf("seed-%d", r.s.Seed))
	c.mu.Lock()
	c.tally.add(r)
	fmt.Println(r.line())
	if len(r.broken) > 0 {
		fmt.Println(r.report(folder))
	}
	c.mu.Unlock()
	if err := r.write(filepath.Join(c.logs, fmt.Sprintf("seed-%d.txt", r.s.Seed)), folder); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: keeping what happened:", err)
	}
	if len(r.broken) == 0 && r.undecided == 0 {
		return true
	}
	if err := r.keep(folder); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: keeping logs:", err)
	}
	return false
}

// takeDown does so though the caller was interrupted.
func takeDown(state string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return harness.DownIn(ctx, state)
}
