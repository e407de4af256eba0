package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/queue"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// keyWaits is where the journal keeps that a migration waits for its turn: one
// that does is begun anew after a restart of the agent.
const keyWaits = "waits"

// lost is how often in a row a destination may not answer while a migration
// waits for a place there.
const lost = 10

// turn waits until this host may begin one more migration. accepted is called
// once the operation has its place, be it in the line.
func (m *migration) turn(ctx context.Context, place *queue.Place, accepted func()) (waited bool, err error) {
	if place.Inside() {
		accepted()
		return false, nil
	}
	ctx, cancel := m.patient(ctx, "its turn has not come")
	defer cancel()
	err = m.wait(accepted, func() error {
		return place.Wait(ctx, func(v queue.View) {
			m.op.Progress(api.Progress{
				Detail: fmt.Sprintf("number %d in the line: %d migrations from this host at once, and %s are under way", v.Position, v.Limit, m.names(v.Inside)),
				Queue:  &api.QueuePlace{Direction: api.QueueOutgoing, Position: v.Position, Ahead: v.Ahead, Operations: v.Inside},
			})
		})
	})
	m.op.Progress(api.Progress{})
	return true, err
}

// wait does what may take long with the operation shown as queued, and the
// journal knowing that it only waits. That stays so until begins is called.
func (m *migration) wait(accepted func(), wait func() error) error {
	if err := m.op.Save(keyWaits, true); err != nil {
		return err
	}
	goOn, err := m.op.Queued()
	if err != nil {
		return err
	}
	accepted()
	if err := wait(); err != nil {
		return err // when the agent stops, it still waits
	}
	return goOn()
}

// begins has the journal know that the migration does not wait any more.
func (m *migration) begins() error { return m.op.Save(keyWaits, false) }

// patient bounds a wait by the migration's own time limit.
func (m *migration) patient(ctx context.Context, why string) (context.Context, context.CancelFunc) {
	limit := m.state.Request.Timeout.Or(m.Timeout)
	if limit <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, limit, api.NewProblem("timeout", "the migration's timeout is over: %s", why))
}

// names are those of the instances that these operations are about.
func (m *migration) names(ids []string) string {
	var out []string
	for _, id := range ids {
		if op, err := m.Operations.Get(context.Background(), id); err == nil {
			out = append(out, fmt.Sprintf("%s (%s)", op.Instance, id))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// reserve asks the destination for room, and waits while it receives as many
// instances as it takes at once. It keeps the place there by asking again.
func (m *migration) reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error) {
	in, err := m.peer.Reserve(ctx, r)
	if !full(err) {
		return in, err
	}
	answer := err
	err = m.wait(func() {}, func() error {
		for n, silent := 0, 0; ; n++ {
			m.tellFull(answer)
			timer := time.NewTimer(m.askAgain(n))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			}
			in, answer = m.peer.Reserve(ctx, r)
			if api.CodeOf(answer) == "peer-unreachable" && silent < lost {
				silent++
				continue
			}
			if !full(answer) {
				return nil // what it has said is told to whoever waits for it
			}
			silent = 0
		}
	})
	m.op.Progress(api.Progress{})
	if err == nil {
		err = m.begins()
	}
	if err != nil {
		return in, err
	}
	return in, answer
}

func (m *migration) tellFull(answer error) {
	place := api.QueuePlace{Direction: api.QueueIncoming}
	if p, ok := errors.AsType[*api.Problem](answer); ok && p.Queue != nil {
		place = *p.Queue
		place.Direction = api.QueueIncoming
	}
	m.op.Progress(api.Progress{Detail: fmt.Sprintf("waiting for a place at %s: %v", m.state.Request.Destination, answer), Queue: &place})
}

// askAgain is how long to wait before the n-th question to a full destination.
func (m *migration) askAgain(n int) time.Duration {
	return queue.Backoff(n, rand.Float64())
}

// full tells whether a destination has said that it receives as many instances
// as it takes at once.
func full(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == "busy" && slices.ContainsFunc(p.Reasons, func(r api.Reason) bool { return r.Code == api.IncomingFull })
}

// waits tells whether the migration waited for its turn when the agent was lost.
func waits(op *operation.Op) (bool, error) {
	if op.Failure() != nil {
		return false, nil // it was being taken back
	}
	var waited bool
	_, err := op.Load(keyWaits, &waited)
	return waited, err
}

// again takes a place in the line once more, under the old number. What was
// connected for a place at the destination is taken back first: the plan is
// made anew.
func (s *Service) again(ctx context.Context, op *operation.Op) (any, error) {
	var r api.MigrateRequest
	if err := op.Request(&r); err != nil {
		return nil, err
	}
	m, err := s.newMigration(op.Ref(), r)
	if err != nil {
		return nil, err
	}
	m.op = op
	var before state
	if _, err := op.Load("migration", &before); err != nil {
		return nil, err
	}
	m.state.Connected, m.state.Reserved, m.state.Plan = before.Connected, before.Reserved, before.Plan
	m.undoable()
	if op.Cancelled() {
		return nil, operation.ErrCancelled
	}
	if len(before.Connected) > 0 || before.Connecting {
		if err := m.disconnect(ctx); err != nil {
			return nil, err
		}
	}
	if before.Reserved {
		if err := m.unreserveButWait(ctx); err != nil {
			return nil, err
		}
	}
	op.DropUndo()
	m.state = state{Request: r, Phases: map[string]time.Duration{}}
	if err := m.save(); err != nil {
		return nil, err
	}
	op.Cancellable()
	return m.inTurn(ctx, false, func() {})
}

// unreserveButWait takes back what the destination may have prepared. Where it
// has nothing, nothing is said to it: that would give up the place in its line.
func (m *migration) unreserveButWait(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, reachDeadline)
	defer cancel()
	if _, err := m.peer.Renew(asking, m.op.ID()); api.CodeOf(err) == "not-found" {
		return nil
	}
	return m.unreserve(ctx)
}

// checkAgain makes the plan of a migration whose turn has come. An agent that
// has just been started may not have found its libvirt yet.
func (m *migration) checkAgain(ctx context.Context) error {
	patience := time.NewTimer(libvirtPatience)
	defer patience.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		if _, err := m.Hypervisor.Domain(ctx, m.ref.Name); !errors.Is(err, hypervisor.ErrDown) {
			break
		}
		select {
		case <-tick.C:
		case <-patience.C:
			over = true // the plan says what is wrong
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := m.check(ctx); err != nil {
		return err
	}
	return m.begins()
}

// hold keeps the places of the migrations that an earlier run of the agent has
// left at work, before any other takes one.
func (s *Service) hold() error {
	ops, err := s.Operations.List(context.Background(), "", api.StatusRunning)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if op.Kind == Kind {
			s.Line.Hold(op.ID)
		}
	}
	return nil
}
