package template

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/template/fault"
)

// ended notes how an attempt ended that brought nothing.
func (a *attempt) ended(why error) error {
	cause := context.Cause(a.ctx)
	if errors.Is(cause, errStopping) {
		return errors.Join(cause, a.interrupted())
	}
	// On every failure, so that a pool never fills up with half images.
	why = errors.Join(why, a.drop())
	switch {
	case errors.Is(cause, errRemoved):
		return cause
	case cause != nil:
		// A reader that was cut off says little; why it was cut says more.
		why = &fault.Fault{Code: fault.Interrupted, Class: fault.Local, Permanent: true, Err: fmt.Errorf("interrupted: %w", cause)}
	}
	return errors.Join(why, a.failed(a.place, why))
}

// interrupted leaves what came for the next start of the agent.
func (a *attempt) interrupted() error {
	var err error
	if a.part != nil && a.key.Want != "" {
		err = a.part.Save(a.key)
	}
	return errors.Join(err, a.change(func(c *Copy) { c.interrupt(a.now().UTC()) }))
}

// failed notes why a copy is not ready, and when it is tried again.
func (r *Registry) failed(p place, why error) error {
	what := fault.Of(why)
	note := func(t *Template, c *Copy) {
		now := r.now().UTC()
		c.State, c.Progress, c.Message = StateFailed, 0, fault.Message(what)
		c.Code, c.Class, c.Permanent, c.RetryAt = what.Code, what.Class, what.Permanent, nil
		if what.Code != fault.Interrupted && c.FailedSince == nil {
			c.FailedSince = &now
		}
		if !what.Permanent {
			at := now.Add(r.backoff.Next(c.Attempts))
			c.RetryAt = &at
		}
		if t.Removed() {
			// With the template its headers went, and who may have it sent again.
			c.Message += "; the template was removed: register it anew if this stays so"
		}
		c.forgetAbsent()
	}
	err := r.changeCopy(p.id, p.pool, note)
	if err != nil && !errors.Is(err, ErrNotFound) {
		r.noteUnstored(p, note)
	}
	t, _ := r.Lookup(p.id)
	c := t.copyOn(p.pool)
	r.log.Warn("template copy failed", "template", p.id, "pool", p.pool, "code", c.Code, "class", c.Class, "error", why,
		"attempts", c.Attempts, "retry_at", c.RetryAt)
	return err
}

// noteUnstored shows what the store did not take: a copy must not seem to be
// under way for ever because its failure could not be written down.
func (r *Registry) noteUnstored(p place, note func(*Template, *Copy)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.templates[p.id]; ok {
		t = t.clone()
		note(&t, t.on(p.pool, r.now().UTC()))
		r.templates[p.id] = t
		r.wake()
	}
}

// shareFailure notes for one id what went wrong with the same bytes under
// another.
func (r *Registry) shareFailure(j job, why error) error {
	err := r.changeCopy(j.id, j.pool, func(_ *Template, c *Copy) {
		if j.asked || c.FailedSince == nil {
			c.Attempts = 0
		}
		c.Attempts++
	})
	return errors.Join(err, r.failed(j.place, why))
}
