package incoming

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// vanishWait is how long libvirt is given to take an arriving QEMU down after
// its migration failed, before the volumes are held to be in use.
const vanishWait = 30 * time.Second

// Commit ends a reservation well; twice is no error. The source commits only
// once libvirt has told it that the instance has moved. One that is not here
// has therefore ended here since, which a transient domain leaves no trace of:
// the volumes hold what it wrote last, and must not go with the lease.
func (s *Service) Commit(ctx context.Context, id string, c api.CommitRequest) (api.Incoming, error) {
	return s.commit(ctx, id, c, false)
}

// commit is Commit, asked for by the source or, alone, decided here.
func (s *Service) commit(ctx context.Context, id string, c api.CommitRequest, alone bool) (api.Incoming, error) {
	e, err := s.find(id)
	if err != nil {
		return api.Incoming{}, err
	}
	e.end.Lock()
	defer e.end.Unlock()
	if e.dropped() {
		return api.Incoming{}, errGone(id)
	}
	res := e.snapshot()
	if res.State == committed {
		if res.Alone && !alone {
			err := s.update(e, func(r *reservation) { r.Alone, r.Heard = false, s.Now() })
			if err != nil {
				return api.Incoming{}, api.NewProblem("internal", "%w", err).WithPhase("commit")
			}
		}
		return s.view(ctx, e), nil
	}
	state, _ := s.domainState(ctx, res.Request)
	gone := state == "" && res.State == ready
	if !arrived(state) && !gone {
		return api.Incoming{}, api.NewProblem("conflict", "%q does not run at the destination (%s)", res.Request.Name, orAbsent(state)).WithPhase("commit")
	}
	rec := res.Request.Record
	if c.Record != nil {
		rec = *c.Record
	}
	if err := s.settle(ctx, res, rec, state); err != nil {
		return api.Incoming{}, api.AsProblem(err).WithPhase("commit")
	}
	if gone {
		s.Log.Warn("an instance has arrived and ended before its migration did; its volumes stay", "instance", res.Request.Name, "volumes", res.Places)
	}
	job, err := s.Hypervisor.CompletedJob(ctx, res.Request.Name)
	if err != nil && !gone {
		s.Log.Warn("reading the figures of a migration", "instance", res.Request.Name, "error", err)
	}
	gaps := lost(res) // not under the entry's lock: its storage may hang
	if err := s.update(e, func(r *reservation) {
		r.State, r.EndedAt, r.Held, r.Alone = committed, s.Now(), nil, alone
		r.Lost = gaps
		r.Downtime, r.Memory = job.Downtime, job.MemDone
	}); err != nil {
		return api.Incoming{}, api.NewProblem("internal", "%w", err).WithPhase("commit")
	}
	return s.view(ctx, e), nil
}

// arrived tells whether the instance has come over whole. Libvirt defines it
// here only then, so one that is shut off has arrived and gone down since: its
// volumes hold what it wrote last.
func arrived(state string) bool {
	return state == "running" || state == "paused" || state == "shutoff"
}

func orAbsent(state string) string {
	if state == "" {
		return "it is not there"
	}
	return "it is " + state
}

// settle writes what this host keeps about its new instance.
func (s *Service) settle(ctx context.Context, res reservation, rec api.Record, state string) error {
	rec.Project, rec.Name, rec.UUID = res.Request.Project, res.Request.Name, res.Request.UUID
	rec.Targets = res.Request.Targets
	rec.PowerState, rec.UpdatedAt = "running", s.Now().UTC()
	if state == "shutoff" || state == "" {
		rec.PowerState = "stopped"
	}
	rec.Disks = slices.Clone(rec.Disks) // they are the reservation's, which others read
	for i := range rec.Disks {
		d := &rec.Disks[i]
		for _, p := range res.Places {
			if p.Target == d.Target {
				d.Path, d.Format, d.Volume = p.Path, p.Format, filepath.Base(p.Path)
			}
		}
	}
	if rec.DomainXML != "" {
		// The source's XML names the source's paths.
		xml, err := "", error(nil)
		if state != "" {
			xml, err = s.Hypervisor.XML(ctx, rec.Name, true)
		}
		if err != nil {
			return fmt.Errorf("reading the XML of %q: %w", rec.Name, err)
		}
		rec.DomainXML = xml
		if err := s.Records.Write(rec); err != nil {
			return err
		}
	}
	for _, p := range res.Places {
		if err := s.keepBase(ctx, res.Request, p, p.Path); err != nil {
			return err
		}
	}
	pools := map[string]bool{}
	for _, d := range res.Request.Disks {
		if d.Place.Pool != "" && !pools[d.Place.Pool] {
			pools[d.Place.Pool] = true
			if err := s.Hypervisor.RefreshPool(ctx, d.Place.Pool); err != nil {
				s.Log.Warn("refreshing a pool", "pool", d.Place.Pool, "error", err)
			}
		}
	}
	return nil
}

// Remove takes back everything that a reservation made. It refuses while the
// instance runs here, and waits for libvirt to end an arriving one. A
// reservation that does not exist is removed already.
func (s *Service) Remove(ctx context.Context, id string) error {
	e, err := s.find(id)
	if err != nil {
		s.gaveUp(id)
		return nil
	}
	return s.remove(ctx, e, func(reservation) bool { return true })
}

// remove takes a reservation back if that is still wanted when its turn comes:
// the lease may have been renewed since somebody saw that it was over.
func (s *Service) remove(ctx context.Context, e *entry, wanted func(reservation) bool) error {
	id := e.id
	e.end.Lock()
	defer e.end.Unlock()
	if e.dropped() || !wanted(e.snapshot()) {
		return nil
	}
	e.cancel()
	select {
	case <-e.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	res, closed, err := s.shut(e, wanted)
	switch {
	case err != nil:
		return api.NewProblem("internal", "%w", err)
	case res.State == committed:
		return api.NewProblem("conflict", "%q has been committed here: it belongs to this host now", res.Request.Name)
	case !closed:
		return nil
	}
	err = s.waitGone(ctx, res.Request)
	if err == nil {
		err = s.unused(ctx, res)
	}
	if err != nil {
		return errors.Join(err, s.update(e, func(r *reservation) { r.State, r.Error = res.State, res.Error }))
	}
	var errs []error
	if err := s.removeVolumes(e); err != nil {
		errs = append(errs, err)
		s.owe(e, err)
	}
	if len(res.Request.Targets) > 0 {
		if _, err := s.Targets.Modify(ctx, api.TargetsRequest{Targets: res.Request.Targets}); err != nil {
			errs = append(errs, fmt.Errorf("disconnecting targets: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return api.NewProblem("internal", "taking back reservation %s: %w", id, err).
			WithHint("the lease's end repeats this; nothing else was deleted")
	}
	if err := s.drop(e); err != nil {
		return api.NewProblem("internal", "%w", err)
	}
	for _, p := range poolsOf(res.Request) {
		if err := s.Hypervisor.RefreshPool(ctx, p); err != nil {
			s.Log.Warn("refreshing a pool", "pool", p, "error", err)
		}
	}
	return nil
}

// shut closes a reservation to its source before anything of it goes: whoever
// renews from now on is told, and moves nothing onto volumes that are about to
// be deleted. It gives the reservation as it was.
func (s *Service) shut(e *entry, wanted func(reservation) bool) (was reservation, closed bool, err error) {
	err = s.update(e, func(r *reservation) {
		was, closed = *r, false
		if r.State == committed || !wanted(*r) {
			return
		}
		closed = true
		if r.State == ready {
			r.State, r.Error = failed, api.NewProblem("conflict", "the destination is taking back what it had prepared for %q", r.Request.Name)
		}
	})
	return was, closed, err
}

func poolsOf(r api.IncomingRequest) []string {
	var out []string
	seen := map[string]bool{}
	for _, d := range r.Disks {
		if d.Place.Pool != "" && !seen[d.Place.Pool] {
			seen[d.Place.Pool] = true
			out = append(out, d.Place.Pool)
		}
	}
	return out
}

// waitGone waits until no QEMU of the instance is left here, by libvirt's word
// and by the host's processes: libvirt forgets one a moment before it has ended.
func (s *Service) waitGone(ctx context.Context, r api.IncomingRequest) error {
	deadline := time.NewTimer(vanishWait)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		state, running := s.domainState(ctx, r)
		var left error
		switch {
		case state == "":
			if left = s.processGone(r); left == nil {
				return nil
			}
		case state == "shutoff":
			return api.NewProblem("conflict", "%q is defined at the destination, where it has been shut down: its volumes stay", r.Name)
		case running:
			return api.NewProblem("conflict", "%q runs at the destination: its volumes stay", r.Name)
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			if left != nil {
				return left
			}
			return api.NewProblem("conflict", "%q is still %s at the destination: its volumes stay", r.Name, state)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), left)
		}
	}
}
