package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
)

// commit tells the destination that the instance is its own now. It is
// repeated until the destination has heard: the instance runs there already.
func (m *migration) commit(ctx context.Context) error {
	if m.state.Unconfirmed {
		m.state.Warnings = append(m.state.Warnings, "the destination did not answer: that the instance runs there was stated, not seen")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitDeadline)
	defer cancel()
	wait := 200 * time.Millisecond
	for {
		in, err := m.peer.Commit(ctx, m.op.ID(), api.CommitRequest{})
		if err == nil {
			m.state.Committed = true
			m.state.Incoming = in
			m.state.Memory = max(m.state.Memory, in.MemoryBytes)
			if gone := lostVolume(in.Lost); gone != nil {
				return gone.WithHint("the instance runs at the destination on a file that has no name any more: do not stop it, copy its disk first with `virsh blockcopy %s %s ...`. "+
					"The source's volumes were kept, as they were when it left", m.ref.Name, gone.Disk)
			}
			return nil
		}
		m.Log.Warn("the destination has not confirmed yet", "operation", m.op.ID(), "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
				return operation.ErrShutdown
			}
			return api.NewProblem("peer-lost", "the instance runs at the destination, which has not confirmed: %w", err).
				WithHint("the source's volumes were kept; the destination commits by itself when its lease runs out. Look there with `wherry info %s`", m.ref.Name)
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// commitDeadline is how long the source goes on telling a destination that
// does not answer. An agent that restarts is back long before.
const commitDeadline = 5 * time.Minute

func (m *migration) result() api.MigrateResult {
	r := api.MigrateResult{Mode: m.state.Plan.Mode, Destination: m.state.Request.Destination,
		Bytes:  api.MovedBytes{Disk: m.state.Disk, Memory: m.state.Memory},
		Phases: map[string]api.Duration{}, Downtime: m.state.Incoming.Downtime, Warnings: m.state.Warnings}
	for name, d := range m.state.Phases {
		r.Phases[name] = api.Duration(d.Round(time.Millisecond))
	}
	return r
}

// observe counts the migration unless the agent only stops.
func (m *migration) observe(err error) {
	if m.Observer == nil || errors.Is(err, operation.ErrShutdown) {
		return
	}
	m.Observer.MigrationDone(m.state.Plan.Mode, resultOf(err, m.op.Cancelled() && !m.state.Moved), m.state.Phases, m.state.Incoming.Downtime.Std(), m.state.Disk, m.state.Memory)
}

// resultOf is how a migration ended, as its operation's status says it.
func resultOf(err error, cancelled bool) string {
	switch {
	case err == nil:
		return api.StatusSucceeded
	case api.CodeOf(err) == "needs-decision":
		return api.StatusNeedsDecision
	case cancelled:
		return api.StatusCancelled
	}
	return api.StatusFailed
}
