package template

import (
	"context"
	"errors"
	"fmt"
)

// imports are those under way of a template that is known for them alone.
type imports struct {
	n int
	// tombstone is what was known before, if anything.
	tombstone *Template
}

// noteImport notes who wants a template: once anybody has registered it, no
// cancelled import takes that back. Needs mu.
func (r *Registry) noteImport(id string, old Template, known, imported bool) {
	now, under := r.imports[id]
	switch {
	case !imported:
		delete(r.imports, id)
		return
	case under:
	case !known:
	case old.Removed() && len(old.Copies) == 0:
		now.tombstone = &old
	default:
		return
	}
	now.n++
	if r.imports == nil {
		r.imports = map[string]imports{}
	}
	r.imports[id] = now
}

// imported ends an import. The last of those that were cancelled forgets the
// template with its failed copy, so that this host is as it was before. What
// failed by itself stays, to be seen and tried again, and so does what the end
// of the agent interrupts.
func (r *Registry) imported(ctx context.Context, id string, failed error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, under := r.imports[id]
	if !under {
		return nil
	}
	if failed == nil || ctx.Err() == nil || errors.Is(context.Cause(ctx), r.stopping) || r.halting.Load() {
		delete(r.imports, id)
		return nil
	}
	if now.n--; now.n > 0 {
		r.imports[id] = now
		return nil
	}
	delete(r.imports, id)
	if !r.bare(id) {
		return nil
	}
	if now.tombstone != nil {
		_, err := r.changeLocked(id, func(t *Template) error { *t = *now.tombstone; return nil })
		return err
	}
	if err := r.store.Delete(bucketTemplates, id); err != nil {
		return fmt.Errorf("forgetting template %q: %w", id, err)
	}
	delete(r.templates, id)
	return nil
}

// bare tells whether nothing is here of a template but its registration: no
// byte, no volume that stands on it, and nobody who fetches it. Needs mu.
func (r *Registry) bare(id string) bool {
	if len(r.refsOf(id)) > 0 {
		return false
	}
	for _, f := range r.flights {
		if f.id == id {
			return false
		}
	}
	for _, c := range r.templates[id].Copies {
		if c.State != StateFailed && c.State != StatePending || c.Partial != "" || c.Inode != 0 {
			return false
		}
	}
	return true
}
