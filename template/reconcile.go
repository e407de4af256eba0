package template

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/partial"
)

// reconcile brings what the store says in line with the disk, at start.
func (r *Registry) reconcile() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(r.templates)) {
		t := r.templates[id].clone()
		changed := false
		for i := range t.Copies {
			changed = r.reconcileCopy(t, &t.Copies[i]) || changed
		}
		if changed {
			_, err := r.changeLocked(id, func(into *Template) error { *into = t; return nil })
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *Registry) reconcileCopy(t Template, c *Copy) (changed bool) {
	before, now, wanted := *c, r.now().UTC(), r.wanted(t, c.Pool)
	switch c.State {
	case StateReady:
		// One that may only have been written to is read by the first look of
		// Tend.
		became, _, err := look(*c, t.Size)
		if state, why := verdict(*c, became, err); why != nil {
			c.lose(state, why, now)
			r.log.Warn("template copy lost", "template", t.ID, "path", c.Path, "error", why)
		}
	case StateDownloading, StateSyncing, StateVerifying:
		// What came of it is kept, and the attempt goes on with that.
		c.interrupt(now)
	case StatePending, StateMissing:
		// Whoever asked for it is gone with the last run.
		if c.RetryAt == nil && !c.Collected && wanted {
			c.RetryAt = &now
		}
	}
	if c.State == StateFailed || c.State == StateReady || !wanted {
		if err := partial.Remove(c.Partial, c.PartialInode); err != nil {
			// It stays journalled and is tried again at the next start.
			r.log.Warn("partial template not removed", "template", t.ID, "error", err)
		}
	}
	c.forgetAbsent()
	if *c == before {
		return false
	}
	c.UpdatedAt = now
	return true
}

// interrupt leaves the copy for the next start to go on with.
func (c *Copy) interrupt(now time.Time) {
	c.clearFault()
	c.State, c.Message, c.Progress, c.RetryAt = StatePending, "interrupted: the agent stopped", 0, &now
}

// lose notes what became of a copy that was ready; it is repaired at once.
func (c *Copy) lose(state string, why *fault.Fault, now time.Time) {
	c.State, c.Progress, c.Message = state, 0, fault.Message(why)
	c.Code, c.Class, c.Permanent = why.Code, why.Class, false
	c.FailedSince, c.RetryAt, c.Attempts = &now, &now, 0
	if state == StateMissing {
		c.disown()
	}
}

// forgetAbsent drops the marks of files that are not there. An inode number is
// soon used again, and must not make somebody else's file ours. The path stays:
// chains lead there.
func (c *Copy) forgetAbsent() {
	if c.Partial == "" {
		c.PartialInode = 0
	} else if inode, err := inodeOf(c.Partial); errors.Is(err, fs.ErrNotExist) || err == nil && c.PartialInode != 0 && inode != c.PartialInode {
		c.Partial, c.PartialInode = "", 0
	}
	if inode, err := inodeOf(c.Path); errors.Is(err, fs.ErrNotExist) || err == nil && inode != c.Inode {
		c.disown()
	}
}

// disown notes that the copy's file is not there: whatever is, is not ours.
func (c *Copy) disown() {
	c.Lost = c.Lost || c.Owned && c.Stamp.Inode == c.Inode
	c.Inode, c.Owned, c.Allocated = 0, false, 0
}
