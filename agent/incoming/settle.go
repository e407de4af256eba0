package incoming

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Power acts on the copy of an instance that has arrived here.
type Power interface {
	Resume(ctx context.Context, name string) error
	// Destroy ends its QEMU; one that does not run is success.
	Destroy(ctx context.Context, name string) error
	Undefine(ctx context.Context, name string) error
}

// Settle acts on a copy whose migration ended unclearly, as its source says
// after it has asked both hosts. Each act may be said twice. The volumes stay
// in every case: they go by Remove, once the source has its own copy running.
func (s *Service) Settle(ctx context.Context, id string, r api.SettleRequest) (api.Incoming, error) {
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
	if res.State == committed && r.Act != api.SettleResume {
		return api.Incoming{}, api.NewProblem("conflict", "%q has been committed here: it belongs to this host now", res.Request.Name)
	}
	switch r.Act {
	case api.SettleHold:
		err = s.holdOn(e, cmp.Or(r.Why, "its source needs a decision"), true)
	case api.SettleResume:
		err = s.letRun(ctx, res)
	case api.SettleEnd:
		err = s.endCopy(ctx, res)
	case api.SettleRelease:
		return s.release(ctx, e, res)
	default:
		err = api.NewProblem("bad-request", "no such act %q", r.Act).WithField("act", "unknown")
	}
	if err != nil {
		return api.Incoming{}, err
	}
	return s.view(ctx, e), nil
}

// letRun lets a copy that has arrived paused run. One that was shut down since
// is whole, too: it is started by whoever wants it.
func (s *Service) letRun(ctx context.Context, res reservation) error {
	switch state, running := s.domainState(ctx, res.Request); {
	case running, state == "shutoff":
		return nil
	case state == "paused":
		if err := s.Power.Resume(ctx, res.Request.Name); err != nil {
			return api.NewProblem("libvirt-failed", "letting %q run at the destination: %w", res.Request.Name, err)
		}
		return nil
	case isUnknown(state):
		return api.NewProblem("libvirt-down", "the destination's libvirt does not answer: %s", state)
	default:
		return api.NewProblem("conflict", "%q cannot go on at the destination: %s", res.Request.Name, orAbsent(state))
	}
}

// endCopy ends the copy that is here, running or not, and waits until its
// process is gone.
func (s *Service) endCopy(ctx context.Context, res reservation) error {
	name := res.Request.Name
	look, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d, err := s.Hypervisor.Domain(look, name)
	switch {
	case errors.Is(err, hypervisor.ErrNoDomain), err == nil && d.UUID != res.Request.UUID:
		return s.waitGone(ctx, res.Request)
	case err != nil:
		return api.NewProblem("libvirt-down", "the destination's libvirt does not answer: %w", err)
	}
	s.Log.Warn("ending the copy of an instance, as was decided", "instance", name, "state", d.State)
	if d.Active() {
		if err := s.Power.Destroy(ctx, name); err != nil && !errors.Is(err, hypervisor.ErrNoDomain) {
			return api.NewProblem("libvirt-failed", "ending %q at the destination: %w", name, err)
		}
	}
	if d.Persistent {
		if err := s.Power.Undefine(ctx, name); err != nil && !errors.Is(err, hypervisor.ErrNoDomain) {
			return api.NewProblem("libvirt-failed", "removing the definition of %q at the destination: %w", name, err)
		}
	}
	return s.waitGone(ctx, res.Request)
}

// processGone makes sure that no QEMU of the instance is left here, whatever
// libvirt says.
func (s *Service) processGone(r api.IncomingRequest) error {
	if s.Runs == nil {
		return nil
	}
	runs, err := s.Runs(r.Name, r.UUID)
	switch {
	case err != nil:
		return api.NewProblem("internal", "looking for the process of %q: %w", r.Name, err)
	case runs:
		return api.NewProblem("conflict", "a process of %q still runs at the destination, though libvirt does not know it", r.Name)
	}
	return nil
}

// release forgets a reservation and leaves its volumes where they are: nobody
// can tell whether they are needed, and that is said.
func (s *Service) release(ctx context.Context, e *entry, res reservation) (api.Incoming, error) {
	if err := s.waitGone(ctx, res.Request); err != nil {
		return api.Incoming{}, err
	}
	view := s.view(ctx, e)
	if err := s.drop(e); err != nil {
		return api.Incoming{}, api.NewProblem("internal", "%w", err)
	}
	s.Log.Warn("a reservation was given up and its volumes were kept", "reservation", e.id, "instance", res.Request.Name, "volumes", res.Places)
	view.State = "removed"
	return view, nil
}

// process says of the instance's QEMU here what the wire says.
func (s *Service) process(r api.IncomingRequest) string {
	if s.Runs == nil {
		return ""
	}
	switch runs, err := s.Runs(r.Name, r.UUID); {
	case err != nil:
		return ""
	case runs:
		return "runs"
	}
	return "none"
}

// unused makes sure that nothing of this host stands on the reservation's
// volumes: no domain with the instance's UUID, under whatever name, and none
// whose disks or layers they are.
func (s *Service) unused(ctx context.Context, res reservation) error {
	domains, err := s.domains(ctx)
	if err != nil {
		return err
	}
	mine := map[fileID]bool{}
	for _, v := range res.Volumes {
		v, _ = v.here() // where it is elsewhere, nothing is taken back
		if v.Owned != nil {
			mine[fileID{v.Owned.Dev, v.Owned.Ino}] = true
		}
	}
	for _, d := range domains {
		if d.UUID == res.Request.UUID {
			return api.NewProblem("conflict", "%q is at the destination (%s): its volumes stay", d.Name, d.State)
		}
		if d.Incoming {
			continue // known by its reservation, and its QEMU answers nothing yet
		}
		used, err := s.standsOn(ctx, d, mine)
		if err != nil {
			return api.NewProblem("libvirt-failed", "looking at the disks of %q: %w", d.Name, err)
		}
		if used != "" {
			return api.NewProblem("conflict", "instance %q uses %s: it stays", d.Name, used)
		}
	}
	return nil
}

// standsOn names a file of the domain's disks or their layers that is one of
// these, by whatever path.
func (s *Service) standsOn(ctx context.Context, d hypervisor.Domain, files map[fileID]bool) (string, error) {
	if len(files) == 0 {
		return "", nil
	}
	for _, inactive := range []bool{false, true} {
		if inactive && !d.Persistent {
			continue
		}
		paths, err := s.paths(ctx, d.Name, inactive)
		if err != nil {
			return "", err
		}
		for _, p := range paths {
			if id, ok := idOf(p); ok && files[id] {
				return p, nil
			}
		}
	}
	return "", nil
}
