package incoming

import (
	"context"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// hold keeps a reservation beyond its lease, until someone has decided where
// its instance goes on.
type hold struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	// BySource: the source has said so, and only its word or a decision here
	// ends it. Else it was the lease's end, and the source's word is enough.
	BySource bool `json:"by_source"`
}

// ending is what becomes of a reservation whose lease is over.
type ending string

const (
	endStay   ending = "stay"   // it is held: nothing happens
	endCommit ending = "commit" // the instance is here: it is ours
	endRemove ending = "remove" // it never came: what was made for it goes
	endHold   ending = "hold"   // its last writes may be here: someone must decide
	endWait   ending = "wait"   // it may be arriving, or nobody can tell
)

// stateUnknown is what domainState begins with when libvirt did not answer.
const stateUnknown = "unknown"

// Libvirt's reasons for the state of a guest of whose memory a part is still at
// its source: it calls it running from the moment that post-copy begins.
const (
	inPostCopy = "postcopy"
	inHalves   = "postcopy-failed"
)

// brokenOff is what is said of half a guest.
const brokenOff = "post-copy has broken off: this host has a part of its memory, and what the guest wrote last, and the rest of its memory is at its source"

// atLeaseEnd says what becomes of a reservation of which its source has not
// been heard for a whole lease, and why. State and reason are libvirt's; ran says
// that the instance was seen here, running or shut down after it had.
//
// Volumes go only where the guest cannot have run on them: then the source has
// all that they have.
func atLeaseEnd(state, reason string, ran bool, h *hold) (ending, string) {
	switch {
	case h != nil && h.BySource:
		return endStay, h.Why
	case reason == inHalves && (state == "running" || state == "paused"):
		return endHold, brokenOff
	case reason == inPostCopy && state == "running":
		return endWait, "a part of its memory is still at its source"
	case state == "running", state == "shutoff":
		return endCommit, "the instance is here"
	case state == "incoming":
		return endWait, "the instance is arriving"
	case isUnknown(state):
		return endWait, "libvirt does not answer"
	case state != "":
		return endHold, fmt.Sprintf("the instance has arrived and is %s; its source is silent", state)
	case ran:
		return endHold, "the instance has run here and is gone; its source is silent"
	case h != nil:
		return endHold, "the instance had arrived and is gone; its source is silent"
	}
	return endRemove, "the instance is not here"
}

func isUnknown(state string) bool {
	return len(state) >= len(stateUnknown) && state[:len(stateUnknown)] == stateUnknown
}

// sight writes down that the guest has run here: a transient instance leaves
// no other trace of that once it has ended.
func (s *Service) sight(ctx context.Context, e *entry) (state, reason string) {
	r := e.snapshot()
	state, reason, _ = s.domain(ctx, r.Request)
	if (state == "running" || state == "shutoff") && !r.Ran && r.State == ready {
		if err := s.update(e, func(r *reservation) { r.Ran = true }); err != nil {
			s.Log.Error("journalling that an instance runs here", "reservation", e.id, "error", err)
		}
	}
	return state, reason
}

// holdOn keeps a reservation until someone has decided about it.
func (s *Service) holdOn(e *entry, why string, bySource bool) error {
	r := e.snapshot()
	if r.Held != nil && r.Held.Why == why && r.Held.BySource == bySource {
		return nil
	}
	s.Log.Warn("a reservation is held: someone must decide about it", "reservation", e.id, "instance", r.Request.Name, "why", why, "by source", bySource)
	err := s.update(e, func(r *reservation) {
		if r.Held == nil || bySource {
			r.Held = &hold{Since: s.Now().UTC()}
		}
		next := *r.Held
		next.Why, next.BySource = why, next.BySource || bySource
		r.Held = &next
	})
	if err != nil {
		return api.NewProblem("internal", "%w", err)
	}
	return nil
}
