package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/converge"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Tuner changes a migration that is under way.
type Tuner interface {
	// SetMaxDowntime says how long the guest may stand still at the switchover.
	SetMaxDowntime(ctx context.Context, name string, d time.Duration) error
	// StartPostCopy lets the guest run at the destination before all of its
	// memory is there. Only what was begun with PostCopy can; QEMU switches at
	// the end of the pass under way.
	StartPostCopy(ctx context.Context, name string) error
	// SetBandwidth limits memory, in MiB/s.
	SetBandwidth(ctx context.Context, name string, mib uint64) error
	// SetPostCopyBandwidth limits memory once post-copy has begun, in MiB/s.
	SetPostCopyBandwidth(ctx context.Context, name string, mib uint64) error
	// SetCopySpeed limits a disk copy, by its block job's id, in bytes per
	// second; 0 = no limit.
	SetCopySpeed(ctx context.Context, name, id string, bytes int64) error
}

// errNotConverging ends a migration whose guest writes memory faster than it
// can be sent.
var errNotConverging = errors.New("its memory does not converge")

// keyConverge is where the journal keeps what was done.
const keyConverge = "converge"

// steps within the phase perform.
const (
	stepConverge = "converge"
	stepPostCopy = "post-copy"
)

// convergence has memory come to an end. Package converge decides; this acts,
// and writes down what it did.
type convergence struct {
	m       *migration
	stop    context.CancelCauseFunc
	limits  converge.Limits
	history converge.History
	tuned   bool // QEMU has taken the first downtime
	shown   *api.Convergence

	// The end may be told by whoever keeps the lease: it and post-copy must not
	// both come to be.
	mu     sync.Mutex
	ending bool           // the migration was told to end; guarded by mu
	acts   []converge.Act // guarded by mu; only look changes them
}

// newConvergence goes on from what an earlier run of the agent has done.
func (m *migration) newConvergence(stop context.CancelCauseFunc) *convergence {
	r := m.state.Request
	c := &convergence{m: m, stop: stop, limits: converge.Limits{Policy: r.OnNotConverging,
		MaxDowntime: cmp.Or(r.MaxDowntime.Std(), m.MaxDowntime), PostCopy: r.PostCopy,
		Patience: m.Patience, LastPatience: m.LastPatience}}
	if _, err := m.op.Load(keyConverge, &c.acts); err != nil {
		m.Log.Error("what was done for convergence is not known", "operation", m.op.ID(), "error", err)
	}
	if len(c.acts) > 0 {
		c.tuned = true
	}
	if c.inPostCopy() {
		m.op.NotCancellableFor(whyPostCopy)
	}
	return c
}

// openToCancel lets an adopted migration be cancelled, and tells whether it can
// be.
func (m *migration) openToCancel() bool {
	c := m.newConvergence(func(error) {})
	if c.inPostCopy() {
		return false
	}
	m.op.Cancellable()
	return true
}

const whyPostCopy = "it is in post-copy: a part of the guest's memory is on each host, and neither can do without the other"

// inPostCopy tells whether the guest may run at the destination with memory
// that is still here: ending the migration now would destroy it. Needs mu, or
// that nobody else knows c.
func (c *convergence) inPostCopy() bool {
	for _, a := range c.acts {
		if a.Action == converge.StartPostCopy && !a.Refused {
			return true
		}
	}
	return false
}

// end stops the migration, but not in post-copy, whatever the cause is: it could
// only destroy the guest.
func (c *convergence) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inPostCopy() {
		return
	}
	c.ending = true
	c.stop(cause)
}

// look takes the figures of this moment, and acts where a pass over memory has
// ended. It is called when libvirt tells of a new pass, and again and again.
func (c *convergence) look(ctx context.Context, job hypervisor.Job) {
	c.tune(ctx)
	if job.Phase != hypervisor.PhaseMemory || c.ends() {
		return
	}
	boundary := c.history.Add(converge.Sample{Iteration: job.Iteration, Remaining: job.MemRemaining, Transferred: job.MemDone,
		DirtyRate: job.DirtyRate, Bandwidth: job.MemBPS, Throttle: job.Throttle, Elapsed: job.Elapsed})
	if !boundary {
		return
	}
	d := converge.Decide(c.history, c.acts, c.limits)
	c.show(d)
	if d.Action == converge.Continue {
		return
	}
	c.m.Log.Info("memory does not converge", "operation", c.m.op.ID(), "action", d.Action, "downtime", d.Downtime, "reason", d.Reason)
	switch d.Action {
	case converge.RaiseDowntime:
		c.done(d, c.m.Mover.SetMaxDowntime(ctx, c.m.ref.Name, d.Downtime))
	case converge.PauseGuest:
		// libvirt knows such a pause for the migration's: the guest runs on at
		// the destination, or here if the migration fails.
		c.done(d, c.m.Power.Suspend(ctx, c.m.ref.Name))
	case converge.StartPostCopy:
		c.postCopy(ctx, d)
	case converge.GiveUp:
		c.end(fmt.Errorf("%w: %s", errNotConverging, d.Reason))
	}
}

func (c *convergence) ends() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// add notes an act, unless the migration was told to end.
func (c *convergence) add(a converge.Act) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	c.acts = append(c.acts, a)
	return true
}

// change replaces the acts: those that may be read meanwhile stay as they are.
func (c *convergence) change(do func([]converge.Act) []converge.Act) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acts = do(slices.Clone(c.acts))
}

// tune sets the longest downtime to begin with, once QEMU takes it.
func (c *convergence) tune(ctx context.Context) {
	if c.tuned || c.limits.MaxDowntime == 0 {
		return
	}
	c.tuned = c.m.Mover.SetMaxDowntime(ctx, c.m.ref.Name, c.limits.First()) == nil
}

// done notes what was done. What failed is tried again at the end of the next
// pass, if it is still needed.
func (c *convergence) done(d converge.Decision, err error) {
	if err != nil {
		c.m.Log.Warn("a means against a guest that writes too fast failed", "operation", c.m.op.ID(), "action", d.Action, "error", err)
		return
	}
	what := string(d.Action)
	if d.Action == converge.RaiseDowntime {
		what = fmt.Sprintf("downtime of up to %s", d.Downtime)
	}
	if !c.add(c.act(d)) {
		return
	}
	_ = c.keep() // lost, the next run of the agent begins its steps anew
	c.note(stepConverge, what+": "+d.Reason)
}

// postCopy begins post-copy. From then on neither host has the whole guest:
// that it may have begun is written down before, and nobody can cancel it.
func (c *convergence) postCopy(ctx context.Context, d converge.Decision) {
	op := c.m.op
	op.NotCancellableFor(whyPostCopy)
	if op.Cancelled() || !c.add(c.act(d)) {
		op.Cancellable()
		return // libvirt is being stopped
	}
	if err := c.keep(); err != nil {
		c.change(func(a []converge.Act) []converge.Act { return a[:len(a)-1] })
		op.Cancellable()
		return
	}
	err := c.m.Mover.StartPostCopy(ctx, c.m.ref.Name)
	switch {
	case err == nil:
		c.note(stepPostCopy, d.Reason)
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, hypervisor.ErrDown):
		// Nobody has said no: it may have begun.
		c.note(stepPostCopy, fmt.Sprintf("asked for, without an answer (%v): %s", err, d.Reason))
	default:
		c.change(func(a []converge.Act) []converge.Act {
			a[len(a)-1].Refused = true
			return a
		})
		_ = c.keep() // lost, the next run of the agent is only more careful
		op.Cancellable()
		c.note(stepPostCopy, fmt.Sprintf("refused (%v): %s", err, d.Reason))
	}
}

func (c *convergence) act(d converge.Decision) converge.Act {
	last := c.history.Passes[len(c.history.Passes)-1]
	return converge.Act{Action: d.Action, Downtime: d.Downtime, Number: last.Number, Elapsed: last.Elapsed, Reason: d.Reason}
}

func (c *convergence) keep() error {
	err := c.m.op.Save(keyConverge, c.acts)
	if err != nil {
		c.m.Log.Error("journalling what was done for convergence", "operation", c.m.op.ID(), "error", err)
	}
	return err
}

func (c *convergence) note(step, why string) {
	if err := c.m.op.Note(step, why); err != nil {
		c.m.Log.Error("journalling what was done for convergence", "operation", c.m.op.ID(), "error", err)
	}
}

// show makes the decision what readers of the progress see.
func (c *convergence) show(d converge.Decision) {
	last := c.history.Passes[len(c.history.Passes)-1]
	c.shown = &api.Convergence{Iteration: last.Number, Remaining: last.Remaining, DirtyRate: last.DirtyRate, Bandwidth: last.Bandwidth,
		Throttle: last.Throttle, MaxDowntime: api.Duration(d.Downtime), Action: string(d.Action), Reason: d.Reason}
}
