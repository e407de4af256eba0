package incoming

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// createWait is how long a reservation's answer waits for its paths. Filling
// goes on after it; the source follows by renewing.
const createWait = 20 * time.Second

// Reserve makes room for an instance. The reservation's id is the source's
// operation id, chosen before the call, so that a lost answer loses nothing:
// the same call again gives the same reservation.
func (s *Service) Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error) {
	if r.Operation == "" || r.Name == "" || r.UUID == "" {
		return api.Incoming{}, api.NewProblem("bad-request", "operation, name and uuid are needed").WithField("operation", "needed")
	}
	e, fresh, err := s.admit(ctx, r)
	if err != nil {
		return api.Incoming{}, err
	}
	if fresh {
		s.work.Go(func() { s.prepare(e) })
	}
	timer := time.NewTimer(createWait)
	defer timer.Stop()
	select {
	case <-e.created:
	case <-timer.C:
	case <-ctx.Done():
		return api.Incoming{}, ctx.Err()
	}
	if res := e.snapshot(); res.State == failed {
		return api.Incoming{}, res.Error
	}
	return s.view(ctx, e), nil
}

// admit journals a new reservation, or finds the one with the same id.
func (s *Service) admit(ctx context.Context, r api.IncomingRequest) (*entry, bool, error) {
	if e, err := s.find(r.Operation); err == nil {
		return e, false, nil
	}
	domains, err := s.domains(ctx)
	if err != nil {
		return nil, false, err
	}
	if taken := nameTaken(domains, r.Name, r.UUID); taken != "" {
		return nil, false, api.NewProblem("conflict", "%s", taken)
	}
	if by := s.busy(r.Project, r.Name); by != "" {
		return nil, false, api.NewProblem("busy", "operation %s of the destination still works on its own %q", by, r.Name).WithOperation(by)
	}
	e := &entry{id: r.Operation, created: make(chan struct{}), done: make(chan struct{})}
	e.res = reservation{Request: r, State: preparing}
	s.mu.Lock()
	if old, ok := s.entries[r.Operation]; ok {
		s.mu.Unlock()
		return old, false, nil
	}
	for id, other := range s.entries {
		if o := other.snapshot(); o.State != committed && o.Request.Name == r.Name && o.Request.Project == r.Project {
			s.mu.Unlock()
			return nil, false, o.inTheWay(id)
		}
	}
	if p := s.letIn(r.Operation); p != nil {
		s.mu.Unlock()
		return nil, false, p
	}
	// From the moment that it can be found it can be removed, so it has its
	// cancel before it is found. A preparation outlives its request.
	e.ctx, e.cancel = context.WithCancel(s.ctx)
	s.entries[r.Operation] = e
	s.mu.Unlock()
	if err := s.update(e, func(res *reservation) { res.Lease = s.Now().Add(s.leaseOf(r)) }); err != nil {
		s.forget(e.id)
		e.cancel()
		return nil, false, api.NewProblem("internal", "%w", err)
	}
	return e, true, nil
}

func (s *Service) busy(project, name string) string {
	if s.Busy == nil {
		return ""
	}
	return s.Busy(api.Ref{Project: project, Name: name})
}

func (s *Service) forget(id string) {
	s.mu.Lock()
	delete(s.entries, id)
	s.mu.Unlock()
}

// Renew extends the lease and says how far the preparation is. A source renews
// every second: the lease alone is not journalled. It need not be, for every
// start of the agent begins a full one, which is never less than what was left.
func (s *Service) Renew(ctx context.Context, id string) (api.Incoming, error) {
	e, err := s.find(id)
	if err != nil {
		return api.Incoming{}, err
	}
	if s.extend(e) {
		// The source is back, and knows what becomes of it.
		err := s.update(e, func(r *reservation) {
			if r.Held != nil && !r.Held.BySource {
				r.Held = nil
			}
		})
		if err != nil {
			return api.Incoming{}, api.NewProblem("internal", "%w", err)
		}
	}
	return s.view(ctx, e), nil
}

// Get shows a reservation.
func (s *Service) Get(ctx context.Context, id string) (api.Incoming, error) {
	e, err := s.find(id)
	if err != nil {
		return api.Incoming{}, err
	}
	return s.view(ctx, e), nil
}

// domainState tells what this host's libvirt says of the instance. An arriving
// instance is not running yet, whatever QEMU does with it.
func (s *Service) domainState(ctx context.Context, r api.IncomingRequest) (string, bool) {
	state, _, running := s.domain(ctx, r)
	return state, running
}

// domain is domainState with libvirt's reason for the state.
func (s *Service) domain(ctx context.Context, r api.IncomingRequest) (state, reason string, running bool) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d, err := s.Hypervisor.Domain(ctx, r.Name)
	switch {
	case errors.Is(err, hypervisor.ErrNoDomain):
		return "", "", false
	case err != nil:
		return fmt.Sprintf(stateUnknown+": %v", err), "", false
	case d.UUID != r.UUID:
		return "", "", false
	case d.Incoming:
		return "incoming", d.Reason, false
	}
	return string(d.State), d.Reason, d.State == hypervisor.Running
}
