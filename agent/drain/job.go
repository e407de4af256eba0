package drain

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
)

// heldLook is how often is looked whether somebody else has ended.
const heldLook = 200 * time.Millisecond

// eventsKept is how many events may wait to be published; more are lost, which
// the status makes good for.
const eventsKept = 1000

// begin starts a job, or gives the one that is under way. It depends on no
// operation: the journal may take nothing any more.
func (s *Service) begin(timeout time.Duration, op string) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.job != nil && !s.job.ended() {
		return s.job
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	j := &job{done: make(chan struct{}), cancel: cancel, operation: op, changed: make(chan struct{}), events: make(chan api.Event, eventsKept),
		result: api.ShutdownResult{By: "agent", Began: time.Now().UTC(), Instances: []api.ShutdownInstance{}}}
	s.job = j
	go func() {
		defer close(j.done)
		defer cancel(nil)
		s.run(ctx, j, timeout)
	}()
	// Apart: publishing may wait for the store.
	go func() {
		for {
			select {
			case e := <-j.events:
				s.Operations.Publish(e)
			case <-j.done:
				for range len(j.events) {
					s.Operations.Publish(<-j.events)
				}
				return
			}
		}
	}()
	return j
}

// run does the work, or waits for another process that does it; where that one
// dies it goes on with it.
func (s *Service) run(ctx context.Context, j *job, timeout time.Duration) {
	release, err := s.Place.Hold()
	for errors.Is(err, shutdown.ErrHeld) {
		if s.follow(ctx, j) {
			return
		}
		release, err = s.Place.Hold()
	}
	if err != nil {
		j.warn("another shutdown cannot be told: " + err.Error())
	} else {
		defer release()
	}
	r := s.Runner
	r.By, r.Place, r.Seize = "agent", s.Place, s.seize
	r.Tell = func(told api.ShutdownResult) { s.changed(j, told) }
	s.changed(j, r.Run(ctx, timeout))
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), shutdown.ErrLeft) {
		// Called off: the host stays up.
		if err := s.Place.Remove(); err != nil {
			s.Log.Warn("a shutdown that was called off is still noted", "error", err)
		}
	}
}

// follow waits for the process that shuts the host down, a command that could
// not reach this agent, and takes over what it noted. False when it ended
// without having done it.
func (s *Service) follow(ctx context.Context, j *job) bool {
	tick := time.NewTicker(heldLook)
	defer tick.Stop()
	for {
		release, err := s.Place.Hold()
		if err == nil {
			release()
		}
		held := errors.Is(err, shutdown.ErrHeld)
		// After the look at who holds it: a result is there before it lets go.
		if m, marked, err := s.Place.Read(); err == nil && marked && m.Result != nil && !held {
			j.set(*m.Result)
			return true
		}
		if !held {
			return false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return true
		}
	}
}

// seize takes an instance from the operation that holds it. An engine that
// hangs in its store is not waited for beyond ctx.
func (s *Service) seize(ctx context.Context, ref api.Ref) shutdown.Seized {
	seized := make(chan shutdown.Seized, 1)
	go func() {
		release, from, err := s.Operations.Seize(ctx, ref, Kind)
		out := shutdown.Seized{Release: release, Moving: from == operation.ClaimMigrate, Back: slices.Contains(s.Back, from)}
		switch from {
		case operation.ClaimStop, operation.ClaimStopAtLast, operation.ClaimForceStop:
			out.Stopping = true
		}
		if err != nil {
			out.Warning = err.Error()
		}
		seized <- out
	}()
	select {
	case out := <-seized:
		return out
	case <-ctx.Done():
	}
	timer := time.NewTimer(seizeGrace) // it was about to answer, or it hangs
	defer timer.Stop()
	select {
	case out := <-seized:
		return out
	case <-timer.C:
	}
	go func() {
		if late := <-seized; late.Release != nil {
			late.Release()
		}
	}()
	return shutdown.Seized{Warning: "who holds the instance cannot be told: the agent's journal hangs"}
}

const seizeGrace = time.Second

// changed takes what was told of the run, and publishes what is new in it.
func (s *Service) changed(j *job, now api.ShutdownResult) {
	before := j.set(now)
	for _, i := range now.Instances {
		k := slices.IndexFunc(before.Instances, func(o api.ShutdownInstance) bool { return o.UUID == i.UUID })
		if k >= 0 && before.Instances[k].Outcome == i.Outcome {
			continue
		}
		select {
		case j.events <- api.Event{Kind: "instance", At: time.Now().UTC(), Project: i.Project, Instance: i.Name, Detail: told(i)}:
		default:
		}
	}
}

// told is an instance's part in the shutdown, in words.
func told(i api.ShutdownInstance) string {
	text := "host shutdown: " + i.Outcome
	if i.Rung != "" {
		text += " (" + i.Rung + ")"
	}
	if i.Error != "" {
		text += ": " + i.Error
	}
	return text
}

func (j *job) ended() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

func (j *job) followed() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.operation
}

func (j *job) snapshot() api.ShutdownResult {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.result
	out.Instances, out.Warnings = slices.Clone(out.Instances), slices.Clone(out.Warnings)
	return out
}

// set keeps the warnings that are the job's own, and gives what was before.
func (j *job) set(now api.ShutdownResult) (before api.ShutdownResult) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before = j.result
	for _, w := range before.Warnings {
		if !slices.Contains(now.Warnings, w) {
			now.Warnings = append(slices.Clip(now.Warnings), w)
		}
	}
	j.result = now
	close(j.changed)
	j.changed = make(chan struct{})
	return before
}

func (j *job) warn(text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.result.Warnings = append(slices.Clip(j.result.Warnings), text)
}

// next is closed at the next change.
func (j *job) next() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}
