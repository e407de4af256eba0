package incoming

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
)

// letIn tells whether one more instance may arrive now. Its source waits
// otherwise, and keeps its place by asking again. One that arrives waits for
// nothing that leaves this host, or two hosts could keep each other for ever.
// Needs mu.
func (s *Service) letIn(id string) *api.Problem {
	var inside []string
	for id, e := range s.entries {
		if r := e.snapshot(); r.Held == nil && (r.State == preparing || r.State == ready) {
			inside = append(inside, id)
		}
	}
	slices.Sort(inside)
	kept := s.door.Line()
	ok, before := s.door.Ask(s.Now(), id, len(inside))
	s.keepLine(kept)
	if ok {
		return nil
	}
	why := fmt.Sprintf("the destination receives %d instances, as many as it takes at once; %d others wait for a place there before it", len(inside), before)
	return api.NewProblem("busy", "%s", why).WithReasons([]api.Reason{{Code: api.IncomingFull, Detail: why}}).
		WithQueue(api.QueuePlace{Direction: api.QueueIncoming, Position: before + 1, Ahead: s.door.Line()[:before], Operations: inside}).
		WithHint("ask again in a moment: the place is kept for one who does")
}

// gaveUp forgets a source that does not wait any more.
func (s *Service) gaveUp(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.door.Line()
	s.door.Leave(id)
	s.keepLine(kept)
}

// The line is one value: it is short, and so its order is kept with it.
const (
	doorBucket = "incoming-door"
	doorLine   = "line"
)

// keepLine journals who waits, where that has changed: after a restart they
// come in in the order in which they asked, not that in which they happen to
// ask again. Without the journal only that order is lost. Needs mu.
func (s *Service) keepLine(before []string) {
	line := s.door.Line()
	if slices.Equal(line, before) {
		return
	}
	data, err := json.Marshal(line)
	if err == nil {
		err = s.Store.Put(doorBucket, doorLine, data)
	}
	if err != nil {
		s.Log.Error("journalling who waits for a place here", "error", err)
	}
}

// loadLine gives those who waited their places again. One who does not come
// back loses it after [queue.Patience], as ever.
func (s *Service) loadLine() error {
	return s.Store.List(doorBucket, func(_ string, value []byte) error {
		var line []string
		if err := json.Unmarshal(value, &line); err != nil {
			s.Log.Error("who waited for a place here is not known", "error", err)
			return nil
		}
		s.door.Restore(s.Now(), line)
		return nil
	})
}

// Waiting counts the migrations to this host that wait for a place here.
func (s *Service) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.door.Waiting(s.Now())
}
