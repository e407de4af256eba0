package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
)

// told is an operation as the agent of a host tells of it.
type told struct {
	host string
	op   api.Operation
}

// place is where an instance may be, and whether it may run.
type place struct {
	host    string
	running bool
}

// story is what all operations on an instance say together.
type story struct {
	places    []place         // where it may be now
	undecided bool            // an operation ended in the open: a person has to choose
	restarted bool            // something was asked for that ends or starts a guest
	rebuilt   bool            // its root disk may be another one
	ended     map[string]bool // by host: what was last seen to be done there was its end
}

// follow tells, from how its operations have ended, where an instance must be. Only the truth is believed: one that
// failed has moved nothing, one that succeeded has done what it was for. Of a stop or rebuild that failed, the guest may
// have been told already.
func follow(home string, ops []told) story {
	s := story{places: []place{{home, true}}, ended: map[string]bool{}}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b told) int { return a.op.UpdatedAt.Compare(b.op.UpdatedAt) })
	for _, t := range ops {
		s.apply(t)
	}
	return s
}

func (s *story) apply(t told) {
	op, done := t.op, t.op.Status == api.StatusSucceeded
	if op.Status == api.StatusNeedsDecision {
		s.undecided = true
	}
	switch op.Kind {
	case "migrate":
		if done {
			s.move(opposite(t.host))
		}
	case "start":
		s.restarted = true
		if done {
			s.ended[t.host] = false
			s.places = []place{{t.host, true}}
		} else {
			s.either(t.host)
		}
	case "stop":
		s.restarted = true
		if done {
			s.places = []place{{t.host, false}}
			s.ended[t.host] = true
		} else {
			s.either(t.host)
		}
	case "rebuild":
		s.restarted, s.rebuilt = true, true
		var result api.RebuildResult
		if done && json.Unmarshal(op.Result, &result) == nil {
			s.places = []place{{t.host, result.Started}}
			s.ended[t.host] = !result.Started
		} else {
			s.either(t.host)
		}
	}
}

// move: the instance runs there, unless it has arrived and gone down there before its migration was over.
func (s *story) move(to string) {
	at := []place{}
	for _, p := range s.places {
		if p.host != to {
			p = place{to, !s.ended[to]}
		}
		if !slices.Contains(at, p) {
			at = append(at, p)
		}
	}
	s.places = at
}

// either: on that host it may run or not. Elsewhere nothing has changed: who has not the instance does nothing to it.
func (s *story) either(host string) {
	for _, p := range slices.Clone(s.places) {
		if other := (place{host, !p.running}); p.host == host && !slices.Contains(s.places, other) {
			s.places = append(s.places, other)
		}
	}
}

// killed: a QEMU of the instance was killed. If that was the running copy, it is off where it was; which one is the
// running copy changes in the course of a migration.
func (s *story) killed() {
	s.restarted = true
	for _, p := range slices.Clone(s.places) {
		s.either(p.host)
	}
}

func opposite(host string) string {
	if host == "a" {
		return "b"
	}
	return "a"
}

// honest says what is wrong with an operation that has ended, whatever it was about.
func honest(t told) []string {
	op, out := t.op, []string{}
	wrong := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("host %s: %s %s, %s: ", t.host, op.Kind, op.ID, op.Status)+fmt.Sprintf(format, args...))
	}
	switch {
	case !op.Ended():
		wrong("it has not ended, phase %q", op.Phase)
	case op.Status == api.StatusSucceeded && op.Error != nil:
		wrong("it has an error: %v", op.Error)
	case op.Status != api.StatusSucceeded && (op.Error == nil || op.Error.Code == "" || op.Error.Detail == ""):
		wrong("it does not say why: %+v", op.Error)
	}
	last := map[string]api.Step{} // one that was interrupted is followed by another of its name
	for _, step := range op.Steps {
		if step.Name == "resolve" {
			clear(last) // what failed before has been decided on
		}
		last[step.Name] = step
	}
	for _, step := range last {
		if step.Status == "running" || op.Status == api.StatusSucceeded && step.Status != "done" && step.Status != "skipped" {
			wrong("step %q is %s: %s", step.Name, step.Status, step.Detail)
		}
	}
	if op.Cancellable {
		wrong("it is called cancellable")
	}
	return out
}
