package boot

import (
	"context"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

const (
	// parallel is how many are started at once: all of them read from the same
	// storage then.
	parallel = 4
	// patienceEach is how long one start keeps others waiting at most.
	patienceEach = 3 * time.Minute
	// attempts of one instance in one run of the kernel, with a pause that
	// doubles in between: storage may come up after the host.
	attempts   = 6
	firstPause = 2 * time.Second
	// waitLook is how often an instance is looked at that waits for something
	// else to be repaired, where nobody tells that it was; patience how long.
	waitLook = 15 * time.Minute
	patience = 24 * time.Hour
)

// outcome is what became of an attempt.
type outcome int

const (
	over   outcome = iota // it runs, was given up, or is nobody's wish any more
	failed                // it is tried again after a pause
	waits                 // it is tried again when something else was repaired
)

// startAll works through the ledger.
func (o Options) startAll(ctx context.Context) error {
	var later sync.WaitGroup
	for _, g := range groups(o.Ledger.All()) {
		o.start(ctx, g, &later)
	}
	later.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// start tries each of a group once, and has those that failed tried again
// beside what follows. One that hangs, on storage that does not answer, gives
// its slot to another, and is not waited for.
func (o Options) start(ctx context.Context, g []Entry, later *sync.WaitGroup) {
	slots := make(chan struct{}, parallel)
	var first sync.WaitGroup
	first.Add(len(g))
	for _, e := range g {
		later.Go(func() {
			repaired := o.repaired()
			slots <- struct{}{}
			next := sync.OnceFunc(func() { <-slots; first.Done() })
			hangs := time.AfterFunc(patienceEach, next)
			was := o.try(ctx, e.UUID)
			hangs.Stop()
			next()
			o.again(ctx, e.UUID, was, repaired)
		})
	}
	first.Wait()
}

// again tries until it is over. repaired is older than the last attempt: what
// was repaired meanwhile is not missed.
func (o Options) again(ctx context.Context, uuid string, was outcome, repaired <-chan struct{}) {
	for was != over {
		wait := waitLook
		if was == failed {
			wait, repaired = pause(o.tried(uuid)), nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-repaired:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
		repaired = o.repaired()
		was = o.try(ctx, uuid)
	}
}

// pause is before the attempt that follows so many.
func pause(tried int) time.Duration { return firstPause << max(tried-1, 0) }

func (o Options) tried(uuid string) int {
	for _, e := range o.Ledger.All() {
		if e.UUID == uuid {
			return e.Attempts
		}
	}
	return 0
}

func (o Options) repaired() <-chan struct{} {
	if o.Repaired == nil {
		return nil
	}
	return o.Repaired()
}

// try makes one attempt. It counts before it is made: one that ends the agent
// is not made for ever.
func (o Options) try(ctx context.Context, uuid string) outcome {
	if ctx.Err() != nil || o.Draining() {
		return over
	}
	e, owed := o.edit(uuid, func(e *Entry) { e.Attempts++ })
	if !owed {
		return over
	}
	err := o.Start(ctx, e.Ref())
	switch {
	case err == nil:
		o.done(e, nil)
		return over
	case ctx.Err() != nil || o.Draining():
		// Not its own failure.
		o.edit(uuid, func(e *Entry) { e.Attempts-- })
		return over
	}
	return o.failed(e, err)
}

func (o Options) failed(e Entry, err error) outcome {
	code := api.CodeOf(err)
	waiting := code == "precondition"
	now, owed := o.edit(e.UUID, func(e *Entry) {
		e.Failure = err.Error()
		if waiting {
			e.Attempts--
		}
	})
	switch {
	case !owed: // the operator has stopped it, which may be why it failed
		return over
	case code == "not-found", waiting && time.Since(now.Since) >= patience, !waiting && now.Attempts >= attempts:
		o.done(now, err)
		return over
	case !waiting:
		o.Tell(now.Again, err, false)
		return failed
	}
	if e.Failure != now.Failure { // it is said once
		o.Tell(now.Again, err, false)
	}
	return waits
}

// done tells of the last attempt.
func (o Options) done(e Entry, err error) {
	o.Tell(e.Again, err, true)
	if err := o.Ledger.done(e.UUID); err != nil {
		o.Log.Warn("an instance may be started again by the next start of the agent", "instance", e.Ref().String(), "error", err)
	}
}

func (o Options) edit(uuid string, f func(*Entry)) (Entry, bool) {
	e, owed, err := o.Ledger.edit(uuid, f)
	if err != nil {
		o.Log.Warn("a start is not noted; the next start of the agent may try it more often", "error", err)
	}
	return e, owed
}
