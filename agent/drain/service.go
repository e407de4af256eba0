package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
)

// Kind of the operation.
const Kind = "host-shutdown"

// acceptTimeout is how long the store may take to accept the operation: one
// that hangs must not keep the host up.
const acceptTimeout = 3 * time.Second

// Options are the service's collaborators.
type Options struct {
	Operations *operation.Engine
	// Runner stops the instances; Seize and Tell are set here.
	Runner shutdown.Runner
	Place  shutdown.Place
	Log    *slog.Logger
	// Back are the operations that stop an instance only to start it again.
	Back []operation.Claim
	// Accept is how long the store may take; 0 = 3 s.
	Accept time.Duration
}

// Service shuts the host down, once at a time.
type Service struct {
	Options

	mu  sync.Mutex
	job *job // the last one; nil = none since the agent was started
}

// job is one shutdown.
type job struct {
	done   chan struct{}
	cancel context.CancelCauseFunc
	events chan api.Event

	mu        sync.Mutex
	operation string
	result    api.ShutdownResult
	changed   chan struct{} // closed at every change
}

// New makes the service and registers how its operation is recovered.
func New(o Options) *Service {
	if o.Accept == 0 {
		o.Accept = acceptTimeout
	}
	s := &Service{Options: o}
	o.Operations.Recover(Kind, s.recover)
	return s
}

// Draining tells whether the host is going down, or has: whoever does it.
func (s *Service) Draining() bool {
	s.mu.Lock()
	running := s.job != nil && !s.job.ended()
	s.mu.Unlock()
	return running || s.Place.Marked()
}

// Refuse gives the problem for whoever wants an instance to run here; nil
// while the host is not draining.
func (s *Service) Refuse() error {
	if !s.Draining() {
		return nil
	}
	return api.NewProblem("not-ready", "this host is draining: it is being shut down, or was").
		WithHint("it takes instances again once its agent has been restarted")
}

// Shutdown stops every instance of the host. It joins one that is under way.
// An operation without an id means that the store takes none, and that the
// shutdown goes on without it.
func (s *Service) Shutdown(ctx context.Context, r api.ShutdownRequest, k api.Idempotency) (api.Operation, error) {
	if op, joined := s.joined(ctx); joined {
		return op, nil
	}
	type answer struct {
		op  api.Operation
		err error
	}
	answers, begun := make(chan answer, 1), make(chan struct{})
	var without atomic.Pointer[job] // begun without waiting for the store any longer
	go func() {
		op, err := s.Operations.Start(context.WithoutCancel(ctx), operation.Spec{Kind: Kind, Key: k, Request: r, Cancellable: true},
			func(ctx context.Context, op *operation.Op) (any, error) {
				if j := without.Load(); j != nil {
					return s.followed(ctx, op, j) // never a second time
				}
				j := s.begin(r.Timeout.Std(), op.ID())
				close(begun)
				return s.carryOut(ctx, op, j, r.Timeout.Std())
			})
		answers <- answer{op, err}
	}()
	timer := time.NewTimer(s.Accept)
	defer timer.Stop()
	why := error(nil)
	select {
	case a := <-answers:
		if a.err == nil {
			// Whoever asks for the status now is not told of an earlier one. The
			// same request again begins nothing.
			select {
			case <-begun:
			case <-timer.C:
			}
		}
		if a.err == nil || api.CodeOf(a.err) != "" {
			return a.op, a.err
		}
		why = a.err
	case <-timer.C:
		why = fmt.Errorf("it has not accepted the operation within %s", s.Accept)
	}
	s.Log.Error("the host is shut down without the store", "error", why)
	j := s.begin(r.Timeout.Std(), "")
	without.Store(j)
	j.warn(fmt.Sprintf("without the store: %v", why))
	return unjournalled(j), nil
}

// joined gives the shutdown that is under way.
func (s *Service) joined(ctx context.Context) (api.Operation, bool) {
	s.mu.Lock()
	j := s.job
	s.mu.Unlock()
	if j == nil || j.ended() {
		return api.Operation{}, false
	}
	if id := j.followed(); id != "" {
		if op, err := s.Operations.Get(ctx, id); err == nil {
			return op, true
		}
	}
	return unjournalled(j), true
}

func unjournalled(j *job) api.Operation {
	r := j.snapshot()
	return api.Operation{Kind: Kind, Status: api.StatusRunning, Steps: []api.Step{}, CreatedAt: r.Began, UpdatedAt: time.Now().UTC()}
}

// Status tells how far the shutdown is.
func (s *Service) Status(context.Context) (api.Shutdown, error) {
	s.mu.Lock()
	j := s.job
	s.mu.Unlock()
	if j == nil {
		return s.others(), nil
	}
	r := j.snapshot()
	return api.Shutdown{Running: !j.ended(), Operation: j.followed(), Result: &r}, nil
}

// others tells of a shutdown that another process carries out, or has.
func (s *Service) others() api.Shutdown {
	m, marked, err := s.Place.Read()
	if err != nil || !marked {
		return api.Shutdown{}
	}
	if m.Result != nil {
		return api.Shutdown{Result: m.Result}
	}
	release, err := s.Place.Hold()
	if err == nil {
		release()
	}
	return api.Shutdown{Running: errors.Is(err, shutdown.ErrHeld)}
}

// Began tells whether this agent has shut the host down since it was started,
// or does, and it was not called off.
func (s *Service) Began() bool {
	s.mu.Lock()
	j := s.job
	s.mu.Unlock()
	return j != nil && (!j.ended() || s.Place.Marked())
}
