package template

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/time/rate"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
)

// Results of a look at a copy.
const (
	CheckUnchanged = "unchanged" // by its stamp; nothing was read
	CheckVerified  = "verified"  // it was read, and is what it was
	CheckChanged   = "changed"   // it was read, and is not
	CheckMissing   = "missing"   // nothing lies there, or another file
	CheckUnread    = "unread"    // it cannot be looked at, or not be read
)

// Check looks at every copy that was ready. One whose stamp is what it was is
// left in peace; another is read, one at a time and slowly. What is gone or
// changed is missing or failed from then on, and Run brings it again.
func (r *Registry) Check(ctx context.Context) {
	for _, t := range r.List() {
		for _, c := range t.Copies {
			if ctx.Err() != nil {
				return
			}
			if c.State == StateReady || r.suspected(t, c) {
				r.check(ctx, t, c)
			}
		}
	}
}

// suspected tells whether the copy waits for Check to read it, rather than
// being verified by a fetch.
func (r *Registry) suspected(t Template, c Copy) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flights[keyOf(t)]
	return c.State == StateVerifying && c.Path != "" && (f == nil || f.place != place{t.ID, c.Pool})
}

func (r *Registry) check(ctx context.Context, t Template, c Copy) {
	became, info, err := look(c, t.Size)
	if state, why := verdict(c, became, err); why != nil {
		r.lost(t.ID, c, state, why)
		return
	}
	if became == unchanged && c.State == StateReady {
		r.noteAllocated(t.ID, c, allocated(info))
		r.tending.Checked(CheckUnchanged)
		return
	}
	if became == altered {
		r.suspect(t.ID, c)
	}
	err = r.verify(ctx, place{t.ID, c.Pool}, r.tending.readLimiter(), nil)
	if err != nil && ctx.Err() == nil {
		r.log.Warn("template copy", "template", t.ID, "pool", c.Pool, "error", err)
	}
}

// noteAllocated keeps what the file takes. It is stored with the next change:
// it is not worth a write of its own.
func (r *Registry) noteAllocated(id string, was Copy, bytes int64) {
	if was.Allocated == bytes {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.templates[id].clone()
	for i := range t.Copies {
		if t.Copies[i].Pool == was.Pool && t.Copies[i].Inode == was.Inode {
			t.Copies[i].Allocated = bytes
			r.templates[id] = t
		}
	}
}

// lost notes what a look told of a copy that is none any more.
func (r *Registry) lost(id string, c Copy, state string, why *fault.Fault) {
	switch {
	case state == StateMissing:
		r.tending.Checked(CheckMissing)
	case why.Code == fault.Changed:
		r.tending.Checked(CheckChanged)
	default:
		r.tending.Checked(CheckUnread)
	}
	r.degrade(id, c, state, why)
}

// degrade has a copy that was ready, and is none any more, brought again: by
// Run, from a peer or else from its URL. Those of tombstones are, while the store
// knows who stands on them; of others they are to know. A copy that changed
// meanwhile stays as it is.
func (r *Registry) degrade(id string, was Copy, state string, why *fault.Fault) {
	_, err := r.change(id, func(t *Template) error {
		c := t.copyOn(was.Pool)
		if c.Inode != was.Inode || c.State != StateReady && c.State != StateVerifying || t.ID == "" {
			return errElsewhere
		}
		now := r.now().UTC()
		to := t.on(was.Pool, now)
		to.lose(state, why, now)
		to.UpdatedAt = now
		if !r.wanted(*t, was.Pool) {
			to.RetryAt = nil
			to.Message += "; nothing brings it again, because the template was removed: register it anew"
		}
		return nil
	})
	switch {
	case errors.Is(err, errElsewhere):
		return
	case err != nil:
		r.log.Error("template copy", "template", id, "pool", was.Pool, "error", err)
	}
	r.log.Warn("template copy lost", "template", id, "pool", was.Pool, "path", was.Path, "error", why)
}

// errElsewhere: the copy became something else while it was looked at.
var errElsewhere = errors.New("the copy changed meanwhile")

// suspect keeps a copy from being used before it was read.
func (r *Registry) suspect(id string, was Copy) {
	_, err := r.change(id, func(t *Template) error {
		c := t.copyOn(was.Pool)
		if c.State != StateReady || c.Inode != was.Inode {
			return errElsewhere
		}
		now := r.now().UTC()
		to := t.on(was.Pool, now)
		to.State, to.Progress, to.UpdatedAt = StateVerifying, 0, now
		to.Message = fmt.Sprintf("the file %q was written to, and is being read again", was.Path)
		return nil
	})
	if err != nil && !errors.Is(err, errElsewhere) {
		r.log.Error("template copy", "template", id, "pool", was.Pool, "error", err)
	}
}

// Scrub reads all copies of a template that are ready, as fast as they come,
// and compares what they are with what they were. Those that differ are failed
// from then on, and Run brings them again. The error names them, and is
// ErrNotReady where there was nothing to read.
func (r *Registry) Scrub(ctx context.Context, id string, progress Progress) error {
	t, err := r.Get(id)
	if err != nil {
		return err
	}
	var errs []error
	read := 0
	for _, c := range t.Copies {
		if c.State != StateReady {
			continue
		}
		read++
		errs = append(errs, r.verify(ctx, place{id, c.Pool}, nil, progress))
	}
	if read == 0 {
		return fmt.Errorf("template %q: %w", id, ErrNotReady)
	}
	return errors.Join(errs...)
}

// verify reads a copy whole and says what it is from now on. The error is that
// of the copy, or that it could not be read.
func (r *Registry) verify(ctx context.Context, p place, limit *rate.Limiter, progress Progress) error {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return wrap(p, context.Cause(ctx))
	}
	t, err := r.Get(p.id)
	if err != nil {
		return err
	}
	c := t.copyOn(p.pool)
	if c.State != StateReady && !r.suspected(t, c) {
		return nil // a fetch has taken it over
	}
	sum, info, err := r.read(ctx, c, t.Size, limit, progress)
	switch {
	case ctx.Err() != nil:
		return wrap(p, context.Cause(ctx))
	case errors.Is(err, errElsewhere):
		// Somebody is writing to it: the next look will tell.
		return wrap(p, err)
	case err != nil:
		state, why := verdict(c, unchanged, err)
		r.lost(p.id, c, state, why)
		return wrap(p, why)
	case sum != t.Digest:
		why := fault.New(fault.Changed, "the file %q was changed: it was %s, and is %s", c.Path, t.Digest, sum)
		r.tending.Checked(CheckChanged)
		r.degrade(p.id, c, StateFailed, why)
		return wrap(p, why)
	}
	r.tending.Checked(CheckVerified)
	return wrap(p, r.verified(p, c, StampOf(info), allocated(info)))
}

// verified has the copy ready with a new stamp.
func (r *Registry) verified(p place, was Copy, stamp Stamp, bytes int64) error {
	_, err := r.change(p.id, func(t *Template) error {
		c := t.copyOn(p.pool)
		if c.Inode != was.Inode || c.State != was.State {
			return errElsewhere
		}
		to := t.on(p.pool, r.now().UTC())
		to.Stamp, to.Allocated = stamp, bytes
		if was.State == StateVerifying {
			to.State, to.Progress, to.Message, to.UpdatedAt = StateReady, 100, "", r.now().UTC()
		}
		return nil
	})
	if errors.Is(err, errElsewhere) {
		return nil
	}
	return err
}

// hashBuffer is how much is read at once.
const hashBuffer = 1 << 20

// read takes the digest of a copy's file, and how it looked before and after.
// errElsewhere: it did not look the same, or is another file.
func (r *Registry) read(ctx context.Context, c Copy, size int64, limit *rate.Limiter, progress Progress) (string, fs.FileInfo, error) {
	file, err := r.tending.Open(c.Path)
	if err != nil {
		return "", nil, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return "", nil, err
	}
	if compare(c, size, before) == replaced {
		return "", nil, errElsewhere
	}
	sums := digest.For()
	if err := hashFile(ctx, &paced{ctx, file, limit, progress, 0, before.Size()}, sums); err != nil {
		return "", nil, err
	}
	after, err := file.Stat()
	if err != nil {
		return "", nil, err
	}
	if StampOf(after) != StampOf(before) {
		return "", nil, errElsewhere
	}
	return sums.Sum(digest.SHA256), after, nil
}
