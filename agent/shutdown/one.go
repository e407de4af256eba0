package shutdown

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const (
	// seizeWait is for an operation to let go of its instance.
	seizeWait = 30 * time.Second
	// cleanWait is for what is owed to one instance; what is not done then is
	// owed to it still, at the next start of the agent.
	cleanWait = 30 * time.Second
	lookWait  = 3 * time.Second
	crossLook = 250 * time.Millisecond
	// lastly is what is left to whoever is late: the power is cut, not asked.
	lastly = 40 * time.Second
)

// stopOne stops one instance and does what is owed to it.
func (s *run) stopOne(ctx context.Context, i Instance, given time.Duration) {
	began := time.Now()
	ends := began.Add(given)
	s.update(i, func(o *api.ShutdownInstance) { o.Outcome = api.ShutdownStopping })
	seized := s.seize(ctx, i, time.Until(s.deadline))
	if seized.Release != nil {
		defer seized.Release()
	}
	outcome, why := s.crossed(ctx, i, seized)
	var result power.Result
	var err error
	switch outcome {
	case "":
		outcome = api.ShutdownStopped
		// Nobody else's time is taken: those of a lower priority wait for its share
		// only. So what the operation or the migration took is made good for.
		left := max(time.Until(ends), share(time.Until(s.deadline), []time.Duration{given}))
		if result, err = s.down(ctx, i, seized, left); err != nil && !s.gone(i) {
			outcome = api.ShutdownFailed
		}
	case api.ShutdownFailed:
		err = errors.New(why)
		if !seized.Moving { // else whoever moves it finds out who has it
			s.comesBack(i, false)
		}
	default:
		// Its definition may be left here: it must not run on two hosts.
		s.comesBack(i, false)
		result.Warnings = append(result.Warnings, why)
	}
	if seized.Warning != "" {
		result.Warnings = append(result.Warnings, seized.Warning)
	}
	switch {
	case outcome == api.ShutdownStopped:
		err = s.clean(ctx, i)
	case outcome == api.ShutdownFailed && ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrLeft) && i.Managed:
		// Called off: the host stays up, and the instance with it.
		err = errors.Join(err, s.Cleaner.Forget(i.Ref()))
	}
	s.update(i, func(o *api.ShutdownInstance) {
		o.Outcome, o.Rung, o.Rungs, o.Warnings = outcome, result.Rung, result.Rungs, result.Warnings
		o.Took = api.Duration(time.Since(began).Round(time.Millisecond))
		if err != nil {
			o.Error = err.Error()
		}
	})
}

// seize takes the instance from the operation that holds it. That it does not
// let go is no reason to keep the host up.
func (s *run) seize(ctx context.Context, i Instance, left time.Duration) Seized {
	if s.Seize == nil {
		return Seized{}
	}
	ctx, cancel := context.WithTimeout(ctx, min(seizeWait, left/2))
	defer cancel()
	return s.Seize(ctx, i.Ref())
}

// crossed deals with a migration of the instance. "" means that it is this
// host's to stop.
func (s *run) crossed(ctx context.Context, i Instance, seized Seized) (outcome, why string) {
	c, began := crossing{}, time.Now()
	known := seized.Moving
	for ctx.Err() == nil {
		c.waited, c.left = time.Since(began), time.Until(s.deadline)-lastly/2
		if !s.look(ctx, i, &c, known) {
			return "", "" // the ladder copes with a libvirt that is away
		}
		do, why := cross(c)
		// One that runs here already has nowhere else to be when it is gone.
		known = known || do == stepAbort || do == stepWait && c.domain.State != hypervisor.Running
		switch do {
		case stepStop:
			return "", ""
		case stepMoved:
			return api.ShutdownMoved, why
		case stepLeave:
			return api.ShutdownFailed, why
		case stepReturn:
			return s.giveBack(ctx, i, why)
		case stepAbort:
			s.Log.Info("giving a migration up", "instance", i.Name, "because", "the host is being shut down")
			s.abort(ctx, i)
			c.aborted = true
		case stepWait:
		}
		timer := time.NewTimer(crossLook)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return "", ""
}

// look asks libvirt about the instance; false when it does not answer. That it
// is absent means that it moved only where it is known to have been moving.
func (s *run) look(ctx context.Context, i Instance, c *crossing, moving bool) bool {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	d, err := s.Libvirt.Domain(ctx, i.Name)
	c.outgoing, c.gone = false, false
	switch {
	case errors.Is(err, hypervisor.ErrNoDomain), err == nil && d.UUID != i.UUID:
		c.domain, c.gone = hypervisor.Domain{}, moving
		return true
	case err != nil:
		return false
	}
	c.domain = d
	c.gone = moving && d.State == hypervisor.Shutoff && d.Reason == "migrated"
	if d.Incoming || !d.Active() {
		return true
	}
	job, err := s.Libvirt.Job(ctx, i.Name)
	c.outgoing = err == nil && job.Kind == hypervisor.JobOutgoing && job.Phase != hypervisor.PhaseDone
	return true
}

func (s *run) abort(ctx context.Context, i Instance) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	_, yank := s.Libvirt.Yank(ctx, i.Name)
	if err := errors.Join(yank, s.Libvirt.Abort(ctx, i.Name)); err != nil {
		s.Log.Warn("a migration cannot be given up", "instance", i.Name, "error", err)
	}
}

// giveBack ends the copy of an instance that is arriving. Its source finds the
// migration failed, and goes on with it.
func (s *run) giveBack(ctx context.Context, i Instance, why string) (string, string) {
	ctx, cancel := context.WithTimeout(ctx, lastly)
	defer cancel()
	if err := s.Libvirt.Destroy(ctx, i.Name); err != nil {
		return api.ShutdownFailed, fmt.Sprintf("%s; its copy here cannot be ended: %v", why, err)
	}
	return api.ShutdownReturned, why
}

// down notes what is owed to the instance, and climbs the ladder.
func (s *run) down(ctx context.Context, i Instance, seized Seized, given time.Duration) (power.Result, error) {
	if seized.Stopping || seized.Back {
		s.comesBack(i, seized.Back)
	}
	var warnings []string
	if i.Managed {
		// Before its process is ended: that it is to run again must not be lost
		// with the host, nor taken for a stop by the hook.
		if err := s.Cleaner.Owe(s.noteOf(i)); err != nil {
			warnings = append(warnings, err.Error())
		}
	}
	ctx, cancel := context.WithDeadline(ctx, s.deadline.Add(lastly))
	defer cancel()
	result, err := s.Ladder.Down(ctx, i.Name, i.UUID, i.options(given))
	result.Warnings = append(warnings, result.Warnings...)
	return result, err
}

// comesBack notes whether it is to run at the next start of the host.
func (s *run) comesBack(i Instance, back bool) {
	s.mu.Lock()
	for n := range s.marker.Ran {
		if s.marker.Ran[n].UUID == i.UUID {
			s.marker.Ran[n].Stopping = !back
		}
	}
	s.mu.Unlock()
	s.note()
}

// noteOf is of what is owed to an instance: what ran is to run again.
func (s *run) noteOf(i Instance) cleanup.Note {
	n := cleanup.Note{Project: i.Project, Name: i.Name, UUID: i.UUID, PowerState: "running", Since: time.Now().UTC()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ran := range s.marker.Ran {
		if ran.UUID == i.UUID && ran.Stopping {
			n.PowerState = "stopped"
		}
	}
	return n
}

// gone tells whether the process has ended after all: the ladder may have run
// out of time while libvirt was away.
func (s *run) gone(i Instance) bool {
	runs, err := s.Cleaner.Runs(i.Name, i.UUID)
	return err == nil && !runs
}

// clean does what is owed. Without a record nothing is: QEMU has let go of its
// storage by ending, and a login that no record knows could not be made again.
func (s *run) clean(ctx context.Context, i Instance) error {
	if !i.Managed {
		return nil
	}
	// Also when the shutdown is called off: it is down.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(min(cleanWait, time.Until(s.deadline)+lastly/2), lookWait))
	defer cancel()
	c := s.Cleaner
	c.Draining = true
	if err := c.Clean(ctx, s.noteOf(i)); err != nil {
		return fmt.Errorf("it is down, but: %w", err)
	}
	return nil
}
