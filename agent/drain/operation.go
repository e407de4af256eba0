package drain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
)

// state is what the journal keeps of a shutdown.
type state struct {
	BootID   string    `json:"boot_id"`
	Deadline time.Time `json:"deadline,omitzero"`
}

// phaseStop is shown while instances are being stopped.
const phaseStop = "stop"

// carryOut sees the work of the operation done. It was begun before that is
// journalled: a journal that takes nothing any more keeps nothing from being
// done.
func (s *Service) carryOut(ctx context.Context, op *operation.Op, j *job, timeout time.Duration) (any, error) {
	st := state{}
	if timeout > 0 {
		st.Deadline = time.Now().Add(timeout).UTC()
	}
	var err error
	if st.BootID, err = shutdown.BootID(); err != nil {
		s.Log.Warn("the run of the kernel cannot be told", "error", err)
	}
	if err := op.Save(Kind, st); err != nil {
		s.Log.Warn("journalling a shutdown", "error", err)
	}
	return s.followed(ctx, op, j)
}

// followed sees a job to its end.
func (s *Service) followed(ctx context.Context, op *operation.Op, j *job) (any, error) {
	var failed error
	ran := false
	err := op.Step(ctx, phaseStop, func(ctx context.Context) error {
		ran = true
		failed = s.attend(ctx, op, j)
		return failed
	})
	switch {
	case !ran:
		failed = s.attend(ctx, op, j)
	case err != nil && failed == nil:
		s.Log.Warn("journalling a shutdown", "error", err)
	}
	if failed != nil {
		return nil, failed
	}
	return conclude(j.snapshot())
}

// attend shows the progress until the job has ended.
func (s *Service) attend(ctx context.Context, op *operation.Op, j *job) error {
	for {
		next := j.next()
		op.Progress(progress(j.snapshot()))
		select {
		case <-j.done:
			return nil
		case <-next:
		case <-ctx.Done():
			cause := context.Cause(ctx)
			if errors.Is(cause, operation.ErrShutdown) {
				j.cancel(shutdown.ErrLeft) // the next start of the agent goes on
				return cause
			}
			j.cancel(cause)
			<-j.done
			return cause
		}
	}
}

// progress counts instances.
func progress(r api.ShutdownResult) api.Progress {
	done := 0
	for _, i := range r.Instances {
		if i.Outcome != api.ShutdownWaiting && i.Outcome != api.ShutdownStopping {
			done++
		}
	}
	if len(r.Instances) == 0 {
		return api.Progress{}
	}
	return api.Progress{Percent: 100 * float64(done) / float64(len(r.Instances))}
}

// conclude: one instance that goes on fails the shutdown, and each is named.
func conclude(r api.ShutdownResult) (any, error) {
	n := r.Failed()
	if n == 0 {
		return r, nil
	}
	p := api.NewProblem("timeout", "%d of %d instances are not down", n, len(r.Instances)).
		WithHint("the reasons name them; see `wherry shutdown --status`")
	var reasons []api.Reason
	for _, i := range r.Instances {
		if i.Outcome == api.ShutdownFailed {
			reasons = append(reasons, api.Reason{Code: "still-running", Detail: fmt.Sprintf("%s: %s", api.Ref{Project: i.Project, Name: i.Name}, i.Error)})
		}
	}
	return nil, p.WithReasons(reasons)
}

// recover goes on with a shutdown that the agent did not live to end. After
// another start of the host there is nothing to go on with.
func (s *Service) recover(ctx context.Context, op *operation.Op) (any, error) {
	if op.Cancelled() {
		return nil, operation.ErrCancelled
	}
	op.Cancellable()
	var st state
	var r api.ShutdownRequest
	if _, err := op.Load(Kind, &st); err != nil {
		return nil, err
	}
	if err := op.Request(&r); err != nil {
		return nil, err
	}
	m, marked, err := s.Place.Read()
	if err != nil {
		s.Log.Warn("what was noted of a shutdown cannot be read", "error", err)
	}
	boot, _ := shutdown.BootID()
	switch {
	case marked && m.Result != nil:
		return conclude(*m.Result)
	case boot != cmp.Or(st.BootID, m.BootID):
		return nil, api.NewProblem("interrupted", "the host went down before the agent had noted that all its instances were")
	}
	left := r.Timeout.Std()
	if !st.Deadline.IsZero() {
		// What is left is next to nothing where the agent was away for long: then
		// power is cut, as it would have been.
		left = max(time.Until(st.Deadline), time.Second)
	}
	return s.carryOut(ctx, op, s.begin(left, op.ID()), left)
}
