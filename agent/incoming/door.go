package incoming

import (
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
)

// letIn tells whether one more instance may arrive now. Its source waits
// otherwise, and keeps its place by asking again. One that arrives waits for
// nothing that leaves this host, or two hosts could keep each other for ever.
// Needs mu.
func (s *Service) letIn(id string) *api.Problem {
	inside := 0
	for _, e := range s.entries {
		if r := e.snapshot(); r.Held == nil && (r.State == preparing || r.State == ready) {
			inside++
		}
	}
	ok, before := s.door.Ask(s.Now(), id, inside)
	if ok {
		return nil
	}
	why := fmt.Sprintf("the destination receives %d instances, as many as it takes at once; %d others wait for a place there", inside, before)
	return api.NewProblem("busy", "%s", why).WithReasons([]api.Reason{{Code: api.IncomingFull, Detail: why}}).
		WithHint("ask again in a moment: the place is kept for one who does")
}

// gaveUp forgets a source that does not wait any more.
func (s *Service) gaveUp(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door.Leave(id)
}

// Waiting counts the migrations to this host that wait for a place here.
func (s *Service) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.door.Waiting(s.Now())
}
