package template

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// collectTimeout bounds what a caller waits for whose ref was the last one.
const collectTimeout = 10 * time.Second

// Collect deletes the copies that [Decide] says go: those of removed templates
// when nothing stands on them any more, and unused ones by age and for want of
// space. Where the store knows of no volume, the chains of the instances are
// read; while they cannot be, all of them, nothing is deleted. The error says
// so, or what could not be deleted.
func (r *Registry) Collect(ctx context.Context) error {
	c := collection{Registry: r, now: r.now().UTC()}
	c.survey(ctx)
	if len(c.decide()) == 0 {
		return nil
	}
	if err := c.readChains(ctx); err != nil {
		for _, v := range c.decide() {
			c.stays(v, err.Error())
		}
		return err
	}
	c.spared()
	var errs []error
	for _, v := range c.decide() {
		if err := c.carryOut(v); err != nil {
			c.stays(v, err.Error())
			errs = append(errs, fmt.Errorf("template %q on pool %q: %w", v.Template, v.Pool, err))
		}
	}
	return errors.Join(errs...)
}

// collection is one pass of collecting.
type collection struct {
	*Registry
	now    time.Time
	spaces map[string]Space
	shared map[string]bool // pools; nil: they are not known
	chains Chains
	found  map[string]int // by path
}

// survey takes what is known of the pools. Without it nothing goes for want of
// space, and only what was removed goes at all.
func (c *collection) survey(ctx context.Context) {
	if c.tending.Keep.forEver() {
		return
	}
	pools, err := c.pools(ctx)
	if err != nil {
		c.log.Debug("pools are not known", "error", err)
		return
	}
	c.shared, c.spaces = map[string]bool{}, map[string]Space{}
	for _, p := range pools {
		c.shared[p.Name] = p.Shared
		if space, err := c.tending.Space(p.Path); err == nil {
			c.spaces[p.Name] = space
		}
	}
}

// readChains reads what really stands on what, and gives the reason why it is
// not known.
func (c *collection) readChains(ctx context.Context) error {
	if c.tending.Chains == nil {
		return nil
	}
	var err error
	if c.chains, err = c.tending.Chains(ctx); err != nil {
		return fmt.Errorf("what the instances stand on cannot be read: %w", err)
	}
	if n := len(c.chains.Unread); n > 0 {
		return fmt.Errorf("not every disk can be followed to what it stands on: %s", strings.Join(c.chains.Unread[:min(n, 3)], "; "))
	}
	c.found = map[string]int{}
	for _, t := range c.List() {
		for _, copied := range t.Copies {
			if copied.Path != "" {
				c.found[copied.Path] = len(c.chains.On(FileAt(copied.Path)))
			}
		}
	}
	return nil
}

func (c *collection) decide() []Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decideLocked()
}

func (c *collection) decideLocked() []Verdict {
	return Decide(c.candidates(), c.spaces, c.tending.Keep, c.now)
}

// candidates are all copies as they are now. Needs mu.
func (c *collection) candidates() []Candidate {
	var out []Candidate
	for _, id := range slices.Sorted(maps.Keys(c.templates)) {
		t := c.templates[id]
		recorded := map[string]int{}
		for _, ref := range c.refsOf(id) {
			recorded[ref.Pool]++
		}
		f := c.flights[keyOf(t)]
		for _, copied := range t.Copies {
			shared, known := c.shared[copied.Pool]
			used := copied.UpdatedAt
			if copied.LastUsed != nil {
				used = *copied.LastUsed
			}
			out = append(out, Candidate{
				Template: id, Pool: copied.Pool, Path: copied.Path, Removed: t.Removed(),
				// A file that was to be deleted when the agent stopped is whole.
				Ready: copied.State == StateReady || copied.Collected && copied.Path != "",
				// What somebody else laid there is not ours to delete.
				Fetchable: t.URL != "" && copied.Owned,
				Busy:      f != nil || c.removing[id] && !t.Removed(),
				Shared:    shared || !known,
				Recorded:  recorded[copied.Pool], Found: c.found[copied.Path],
				LastUsed: used, Bytes: copied.Allocated,
			})
		}
	}
	return out
}

// carryOut deletes one copy, if that is still the verdict. The lock keeps
// whoever puts a volume on a copy from doing it between the look and the
// unlink.
func (c *collection) carryOut(v Verdict) error {
	c.mu.Lock()
	if !slices.Contains(c.decideLocked(), v) {
		c.mu.Unlock()
		return nil
	}
	t, err := c.carryOutLocked(v)
	c.mu.Unlock()
	if t.ID != "" {
		c.notify(t)
	}
	if err == nil {
		c.tending.Collected(v.Reason)
	}
	return err
}

func (c *collection) carryOutLocked(v Verdict) (Template, error) {
	copied := c.templates[v.Template].copyOn(v.Pool)
	if inode, err := inodeOf(copied.Path); err == nil && copied.Owned && inode == copied.Inode && !c.otherUses(v.Template, copied.Path) {
		if err := writable(filepath.Dir(copied.Path)); err != nil {
			return Template{}, err
		}
		// Who uses it without anybody's knowledge has it open, perhaps.
		if held, err := heldOpen(copied.Path); held || err != nil {
			return Template{}, cmp.Or(err, errHeld)
		}
	}
	if v.Reason == ReasonRemoved {
		if err := c.deleteCopy(v.Template, copied); err != nil {
			return Template{}, err
		}
		return c.changeLocked(v.Template, func(t *Template) error {
			t.Copies = slices.DeleteFunc(t.Copies, func(o Copy) bool { return o.Pool == v.Pool })
			return nil
		})
	}
	// First the note: a file that is gone and not noted would be missed, and
	// brought again at once.
	_, err := c.changeLocked(v.Template, func(t *Template) error {
		to := t.on(v.Pool, c.now)
		to.clearFault()
		to.State, to.Progress, to.Collected, to.RetryAt, to.FailedSince, to.UpdatedAt = StatePending, 0, true, nil, nil, c.now
		to.Message = c.farewell(v.Reason, copied)
		return nil
	})
	if err != nil {
		return Template{}, err
	}
	deleted := c.deleteCopy(v.Template, copied)
	t, err := c.changeLocked(v.Template, func(t *Template) error {
		if deleted == nil {
			to := t.on(v.Pool, c.now)
			to.Path, to.Inode, to.Owned, to.Allocated = "", 0, false, 0
		}
		return nil
	})
	return t, errors.Join(deleted, err)
}

// errHeld: a file is open although nothing is known to stand on it.
var errHeld = errors.New("the file is open somewhere, although nothing is known to stand on it")

// farewell says when and why a copy was deleted.
func (c *collection) farewell(reason string, copied Copy) string {
	why := "the pool was nearly full"
	if reason == ReasonAge {
		why = fmt.Sprintf("it is kept for %s", c.tending.Keep.UnusedAge)
	}
	since := copied.UpdatedAt
	if copied.LastUsed != nil {
		since = *copied.LastUsed
	}
	return fmt.Sprintf("deleted at %s: nothing has stood on it since %s, and %s; it is fetched again when it is needed",
		c.now.Format(time.RFC3339), since.UTC().Format(time.RFC3339), why)
}

// spared looks at those that only what was found keeps: of what was removed it
// says so, and of the others it notes that they are used.
func (c *collection) spared() {
	found := c.found
	c.found = nil
	without := c.decide()
	c.found = found
	with := c.decide()
	for _, v := range without {
		switch users := c.chains.On(FileAt(v.Path)); {
		case slices.Contains(with, v):
		case v.Reason == ReasonRemoved && len(users) > 0:
			c.stays(v, fmt.Sprintf("volume %q stands on it", users[0].Volume))
		default:
			c.mu.Lock()
			c.used(Ref{Template: v.Template, Pool: v.Pool})
			c.mu.Unlock()
		}
	}
}

// stays tells those who look at a removed template why its file is still there.
func (c *collection) stays(v Verdict, why string) {
	text := "the file stays: " + why
	if v.Reason != ReasonRemoved || v.Path == "" {
		return
	}
	if t, _ := c.Lookup(v.Template); t.copyOn(v.Pool).Message == text {
		return
	}
	_, err := c.change(v.Template, func(t *Template) error {
		if !t.Removed() || t.copyOn(v.Pool).Path != v.Path {
			return errElsewhere
		}
		t.on(v.Pool, c.now).Message = text
		return nil
	})
	if err != nil && !errors.Is(err, errElsewhere) {
		c.log.Error("template copy", "template", v.Template, "pool", v.Pool, "error", err)
	}
}

const (
	// lookTakes is how long somebody who looks into a file has it open: libvirt
	// when it lists a pool, and this agent when it reads chains.
	lookTakes = 100 * time.Millisecond
	// looks is how many of them are waited for.
	looks = 5
)

// collectNow is Collect for who has taken away what may have been the last
// thing in the way. What fails is tried again by Tend, and no fault of theirs.
func (r *Registry) collectNow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, collectTimeout)
	defer cancel()
	err := r.Collect(ctx)
	for n := 0; errors.Is(err, errHeld) && n < looks && ctx.Err() == nil; n++ {
		select {
		case <-ctx.Done():
		case <-r.after(lookTakes):
			err = r.Collect(ctx)
		}
	}
	if err != nil {
		r.log.Warn("template copies that nothing stands on were not deleted; it is tried again", "error", err)
	}
}
