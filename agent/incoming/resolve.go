package incoming

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// Kind of the operation that a held reservation is shown as.
const Kind = "receive"

// Undecided shows the reservations about which someone must decide here, each
// as an operation with the source's id.
func (s *Service) Undecided(ctx context.Context) []api.Operation {
	out := []api.Operation{}
	for _, e := range s.all() {
		if r := e.snapshot(); r.Held != nil && r.State != committed {
			out = append(out, s.operation(ctx, e))
		}
	}
	slices.SortFunc(out, func(a, b api.Operation) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Operation shows one that is, or was, such a reservation; "not-found" for any
// other.
func (s *Service) Operation(ctx context.Context, id string) (api.Operation, error) {
	e, err := s.find(id)
	if err != nil {
		return api.Operation{}, err
	}
	if r := e.snapshot(); r.Held == nil && r.Choice == nil {
		return api.Operation{}, api.NewProblem("not-found", "no operation %q here: it is the source's", id)
	}
	return s.operation(ctx, e), nil
}

func (s *Service) operation(ctx context.Context, e *entry) api.Operation {
	r := e.snapshot()
	op := api.Operation{ID: e.id, Kind: Kind, Project: r.Request.Project, Instance: r.Request.Name, Status: api.StatusSucceeded,
		Phase: "hold", Steps: []api.Step{}, CreatedAt: r.EndedAt, UpdatedAt: r.EndedAt}
	if r.State == committed {
		return op
	}
	op.Status = api.StatusRunning
	if r.Held == nil {
		return op
	}
	op.CreatedAt, op.UpdatedAt = r.Held.Since, r.Held.Since
	if r.Choice == nil {
		op.Status = api.StatusNeedsDecision
		op.Error = s.doubt(ctx, e, r)
	}
	return op
}

// doubt is the problem of a held reservation, with what is known here.
func (s *Service) doubt(ctx context.Context, e *entry, r reservation) *api.Problem {
	resolve := func(keep, other string) string {
		return fmt.Sprintf("wherry operation resolve %s --keep %s --other-host %s", e.id, keep, other)
	}
	hint := fmt.Sprintf("nothing was destroyed. Settle it on the source, %q, if it is reachable: it can ask both hosts. The commands are for here, and say what you know of the other host", r.Request.Source)
	return api.NewProblem("needs-decision", "%s", r.Held.Why).WithHint("%s", hint).WithDecision(
		[]api.SideFacts{{Side: api.SideSource, Host: r.Request.Source, State: stateUnknown, Detail: "this host cannot ask it"}, s.facts(ctx, r)},
		resolve(api.SideSource, api.OtherHasIt), resolve(api.SideDestination, api.OtherDown))
}

func (s *Service) facts(ctx context.Context, r reservation) api.SideFacts {
	now := s.Now().UTC()
	state, reason, _ := s.domain(ctx, r.Request)
	f := api.SideFacts{Side: api.SideDestination, State: state, Reason: reason, Process: s.process(r.Request), SeenAt: &now}
	switch {
	case state == "":
		f.State = "absent"
	case isUnknown(state):
		f.State, f.Detail, f.SeenAt = stateUnknown, state, nil
	}
	if r.Ran {
		f.Detail = "it was seen to run here"
	}
	here := allocated(r).Disks
	for _, p := range r.Places {
		v := api.SideVolume{Disk: p.Target, Path: p.Path}
		if at := slices.IndexFunc(here, func(d api.PartProgress) bool { return d.Target == p.Target }); at >= 0 {
			v.Present, v.Allocated = true, here[at].BytesDone
		}
		f.Volumes = append(f.Volumes, v)
	}
	return f
}

// refuse says why a choice cannot be carried out here; "" where nothing stands
// in its way. This host cannot ask the source: what it does not know itself
// has to be stated.
func refuse(c api.ResolveRequest, state, reason string) string {
	switch {
	case isUnknown(state):
		return "this host's libvirt does not answer"
	case reason == inHalves && (state == "running" || state == "paused"):
		// To end half a guest is for a stop to do, by its name.
		return brokenOff + ". Take it up again at the source, or stop it here with force, and decide then"
	case reason == inPostCopy && state == "running":
		return "it is in post-copy: a part of its memory is still at its source"
	case c.Keep == api.SideSource && c.OtherHost != api.OtherHasIt:
		return "this host cannot ask the source, and the copy here may be the only one. State that the source has it (--other-host has-it), or settle it there"
	case c.Keep == api.SideSource:
		return ""
	case c.OtherHost == api.OtherHasIt:
		return "the instance is said to run at the source: letting it go on here would make two running copies"
	case state == "incoming":
		return "the instance is still arriving"
	case state == "running" || state == "shutoff":
		return "" // it changes nothing of what runs
	case c.OtherHost != api.OtherDown:
		return "this host cannot ask the source, where it may run: there could be two running copies. State that it does not (--other-host down), or settle it there"
	}
	return ""
}

// Resolve settles a held reservation without its source. The volumes of a copy
// that is given up stay: nobody has seen the other one run.
func (s *Service) Resolve(ctx context.Context, id string, c api.ResolveRequest) (api.Operation, error) {
	e, err := s.find(id)
	if err != nil {
		return api.Operation{}, err
	}
	r := e.snapshot()
	switch {
	case r.State == committed && c.Keep == api.SideDestination:
		return s.operation(ctx, e), nil
	case r.State == committed:
		return api.Operation{}, api.NewProblem("conflict", "%q has been committed here: it belongs to this host now", r.Request.Name)
	case r.Owes && c.Keep == api.SideSource:
		// What cannot be taken back is given up here: its source has done with it.
	case r.Held == nil:
		return api.Operation{}, api.NewProblem("conflict", "reservation %s is not in doubt: its source was heard of", id).
			WithHint("settle it on the source, %q", r.Request.Source)
	case r.Choice != nil && r.Choice.Keep != c.Keep:
		return api.Operation{}, api.NewProblem("conflict", "it was decided to keep the %s, and that is being carried out", r.Choice.Keep)
	}
	state, reason, _ := s.domain(ctx, r.Request)
	if why := refuse(c, state, reason); why != "" {
		return api.Operation{}, api.NewProblem("conflict", "%s", why).WithOperation(id)
	}
	// Written down before anything is done, so that a restart goes on with it.
	if err := s.update(e, func(r *reservation) { r.Choice = &c }); err != nil {
		return api.Operation{}, api.NewProblem("internal", "%w", err)
	}
	done := s.operation(ctx, e)
	if err := s.carryOut(ctx, e); err != nil {
		return api.Operation{}, err
	}
	if _, err := s.find(id); err != nil {
		done.Status, done.UpdatedAt = api.StatusSucceeded, s.Now().UTC()
		return done, nil // it was given up, and is forgotten
	}
	return s.operation(ctx, e), nil
}

// carryOut does what was decided, after another look: much may have changed
// since. What cannot be done any more is to be decided anew.
func (s *Service) carryOut(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	r := e.snapshot()
	if r.Choice == nil || r.State == committed {
		return nil
	}
	state, reason, _ := s.domain(ctx, r.Request)
	if isUnknown(state) {
		return s.undecide(e, api.NewProblem("libvirt-down", "this host's libvirt does not answer: %s", state))
	}
	if why := refuse(*r.Choice, state, reason); why != "" {
		return s.undecide(e, api.NewProblem("conflict", "%s", why))
	}
	if r.Choice.Keep == api.SideDestination {
		if state != "" {
			if _, err := s.Settle(ctx, e.id, api.SettleRequest{Act: api.SettleResume}); err != nil {
				return s.undecide(e, err)
			}
		}
		_, err := s.commit(ctx, e.id, api.CommitRequest{}, true)
		return s.undecide(e, err)
	}
	for _, act := range []string{api.SettleEnd, api.SettleRelease} {
		if _, err := s.Settle(ctx, e.id, api.SettleRequest{Act: act}); err != nil {
			return s.undecide(e, err)
		}
	}
	return nil
}

// undecide opens a reservation to another decision where this one failed. While
// libvirt is away it has not: it is carried out when libvirt is back.
func (s *Service) undecide(e *entry, err error) error {
	if err == nil || e.dropped() {
		return nil // dropped: another has carried it out meanwhile
	}
	if p := api.AsProblem(err); p.Code == "libvirt-down" {
		return p.WithHint("what was decided is kept, and carried out as soon as libvirt answers")
	}
	if jerr := s.update(e, func(r *reservation) { r.Choice = nil }); jerr != nil {
		s.Log.Error("journalling that a decision could not be carried out", "reservation", e.id, "error", jerr)
	}
	return err
}

// Files gives the paths of all that reservations have made, or may have, and of
// what that stands on or is filled from, until they are committed: with the
// record it is the instance's then.
func (s *Service) Files(add func(by string, paths ...string)) error {
	for _, e := range s.all() {
		r := e.snapshot()
		if r.State == committed {
			continue
		}
		by := "reservation " + e.id
		for _, v := range r.Volumes {
			add(by, append(slices.Clone(v.Names), v.Temp)...)
		}
		for _, p := range r.Places {
			add(by, p.Path)
			add(by, layerPaths(p.Backing, p.Chain)...)
		}
		for _, d := range r.Request.Disks {
			add(by, layerPaths(d.Place.Backing, d.Place.Chain)...)
			if d.Seed != nil {
				add(by, layerPaths(nil, d.Seed.Chain)...)
			}
		}
	}
	return nil
}

func layerPaths(top *api.Layer, chain []api.Layer) (out []string) {
	if top != nil {
		out = append(out, top.Path)
	}
	for _, l := range chain {
		out = append(out, l.Path)
	}
	return out
}

// Journal gives fn every reservation as it is kept: ended tells those that
// were committed, at which the instance became this host's.
func (s *Service) Journal(fn func(id, uuid string, ended bool, at time.Time, value []byte) error) error {
	for _, e := range s.all() {
		r := e.snapshot()
		value, err := json.Marshal(r)
		if err == nil {
			err = fn(e.id, r.Request.UUID, r.State == committed, r.EndedAt, value)
		}
		if err != nil {
			return fmt.Errorf("reservation %s: %w", e.id, err)
		}
	}
	return nil
}
