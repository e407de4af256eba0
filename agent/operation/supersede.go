package operation

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// phaseWaiting is shown while an operation waits for the one that it ends.
const phaseWaiting = "waiting"

// letGo is how long an operation waits for one that it ended: a migration has
// to be aborted and taken back on both hosts.
const letGo = 5 * time.Minute

// supersededError is the cause of the end of an operation that a newer,
// stronger one ended. It is a cancel to whoever asks.
type supersededError struct {
	by    string
	claim Claim
}

func (s *supersededError) Error() string {
	return fmt.Sprintf("ended by the newer operation %s (%s)", s.by, s.claim)
}

func (s *supersededError) Is(target error) bool { return target == ErrCancelled }

func (en *entry) claim() Claim { return cmp.Or(en.rec.Claim, Claim(en.kind)) }

// lockOrContest takes the lock of the operation's instance. Where others have
// it, or are next to get it, it gives those that the operation ends, and the
// operation has to queue; or the one that stands in its way. Needs order, so
// that no other operation begins or ends meanwhile.
func (e *Engine) lockOrContest(en *entry) (ended []*entry, by *holder) {
	ref, ok := en.rec.ref()
	if !ok {
		return nil, nil
	}
	en.hold = newHolder(holder{operation: en.id, kind: en.kind, claim: en.claim()})
	holding, next := e.locks.try(ref, en.hold, e.now())
	for _, h := range []*holder{holding, next} {
		if h == nil {
			continue
		}
		older := e.find(h.operation)
		switch e.judge(en.hold, h, older) {
		case refuse:
			return nil, h
		case preempt:
			ended = append(ended, older)
		case await:
		}
		en.wait()
		en.rec.Phase = phaseWaiting
	}
	en.unlock = e.locks.releaser(ref, en.hold, e.now)
	return ended, nil
}

// judge decides whether the newer one may end the holder.
func (e *Engine) judge(newer, holding *holder, older *entry) verdict {
	if older == nil {
		return refuse // short work, which is waited for another way
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case older.cancelled || older.ending:
		// It is on its way out already, and only has to be outranked.
		if v := contest(newer.claim, holding.claim, true); v != preempt {
			return v
		}
		return await
	}
	return contest(newer.claim, holding.claim, older.cancellable)
}

// supersede drafts the ends of operations by a newer one. Needs order.
func (e *Engine) supersede(ended []*entry, by *entry) ([]draft, error) {
	var out []draft
	for _, older := range ended {
		d, err := e.draft(older, func(r *record) {
			e.requestCancel(older, r)
			r.SupersededBy, r.SupersededClaim = by.id, by.claim()
		})
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// end tells operations that a newer one has ended them, once that is in the
// journal. One that has closed the door meanwhile goes on to its end, and is
// waited for all the same. Needs order.
func (e *Engine) end(drafts []draft, by *entry) {
	for _, d := range drafts {
		e.adopt(d.en, d.next, phaseCancelling)
		e.mu.Lock()
		if d.en.cancellable && !d.en.ending {
			d.en.cancelled = true
			d.en.cancel(&supersededError{by.id, by.claim()})
		}
		e.mu.Unlock()
	}
}

// lockAgain takes the lock of an operation that was found unfinished, or queues
// for it behind the one that it was to end.
func (e *Engine) lockAgain(en *entry) {
	ref, ok := en.rec.ref()
	if !ok {
		return
	}
	en.hold = newHolder(holder{operation: en.id, kind: en.kind, claim: en.claim()})
	e.locks.queue(ref, en.hold, e.now())
	en.unlock = e.locks.releaser(ref, en.hold, e.now)
	select {
	case <-en.hold.granted:
		return // it may have begun: its recovery is what it needs
	default:
	}
	en.wait()
	if en.cancelled {
		en.cancel(en.cancelCause())
	}
}

// granted waits until the operation has its instance's lock. Being cancelled,
// or the agent's end, ends the waiting.
func (e *Engine) granted(en *entry) error {
	if !en.waits {
		return nil
	}
	defer e.lockWaited(e.now())
	patience := time.NewTimer(letGo)
	defer patience.Stop()
	select {
	case <-en.hold.granted:
	case <-en.ctx.Done():
	case <-patience.C:
		if by := e.locks.by(en.about); by != nil && by != en.hold {
			return by.busy(en.about)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	en.cancellable = en.cancellableThen
	return context.Cause(en.ctx)
}

// wait has an operation queue, and lets it be cancelled meanwhile, whatever it
// is: it has done nothing yet. Needs mu, or that nobody knows the operation.
func (en *entry) wait() {
	if !en.waits {
		en.waits, en.cancellableThen, en.cancellable = true, en.cancellable, true
	}
}

// cancelCause is why the operation was cancelled. Needs mu.
func (en *entry) cancelCause() error {
	if en.rec.SupersededBy == "" {
		return ErrCancelled
	}
	return &supersededError{en.rec.SupersededBy, en.rec.SupersededClaim}
}

// cancelProblem is what a cancelled operation ends with. Needs mu.
func (en *entry) cancelProblem() *api.Problem {
	return api.NewProblem("cancelled", "%w", en.cancelCause()).WithOperation(en.rec.SupersededBy)
}
