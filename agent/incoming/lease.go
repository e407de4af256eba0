package incoming

import (
	"context"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// keepCommitted is how long a committed reservation still answers, for a
// source that lost the answer. One that was committed without its source answers
// until that has heard of it: a host that was down for a week would take it that
// the instance never came, and start it there again.
const keepCommitted = 24 * time.Hour

// Run ends reservations whose lease has run out, until ctx ends.
func (s *Service) Run(ctx context.Context, tick <-chan time.Time) {
	var sweeps sync.WaitGroup
	defer sweeps.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			sweeps.Go(func() { s.Sweep(ctx) })
		}
	}
}

// Sweep looks at every reservation once, at all at the same time: the storage of
// one may hang, which no context ends. One that an earlier sweep still looks at
// is left to that.
func (s *Service) Sweep(ctx context.Context) {
	var looks sync.WaitGroup
	for _, e := range s.all() {
		if e.sweeping.CompareAndSwap(false, true) {
			looks.Go(func() {
				defer e.sweeping.Store(false)
				s.expire(ctx, e)
			})
		}
	}
	looks.Wait()
}

// expire ends one reservation that its source has abandoned, as the state of
// the instance here says (see atLeaseEnd).
func (s *Service) expire(ctx context.Context, e *entry) {
	r := e.snapshot()
	now := s.Now()
	if r.State == committed {
		if !r.Alone && now.Sub(later(r.EndedAt, r.Heard)) > keepCommitted {
			_ = s.drop(e) // the next look does it
		}
		return
	}
	if r.State != ready && now.Before(r.Lease) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	log := s.Log.With("reservation", e.id, "instance", r.Request.Name, "source", r.Request.Source)
	if r.Choice != nil {
		if err := s.carryOut(ctx, e); err != nil {
			log.Error("carrying out what was decided", "error", err)
		}
		return
	}
	state, reason := s.sight(ctx, e)
	if now.Before(r.Lease) {
		return
	}
	switch end, why := atLeaseEnd(state, reason, e.snapshot().Ran, r.Held); end {
	case endCommit:
		log.Warn("lease over and the instance is here: committing", "state", state)
		if _, err := s.commit(ctx, e.id, api.CommitRequest{}, true); err != nil {
			log.Error("committing an abandoned reservation", "error", err)
		}
	case endRemove:
		log.Warn("lease over and the instance is not here: removing what was made for it")
		over := func(r reservation) bool { return r.Held == nil && !s.Now().Before(r.Lease) }
		if err := s.remove(ctx, e, over); err != nil {
			log.Error("removing an abandoned reservation", "error", err)
		}
	case endHold:
		if err := s.holdOn(e, why, false); err != nil {
			log.Error("holding an abandoned reservation", "error", err)
		}
	case endWait:
		log.Warn("lease over but the instance may be arriving; waiting", "state", state, "why", why)
		if err := s.update(e, func(r *reservation) { r.Lease = now.Add(s.leaseOf(r.Request)) }); err != nil {
			log.Error("extending an abandoned reservation", "error", err)
		}
	case endStay:
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
