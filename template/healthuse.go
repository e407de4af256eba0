package template

import (
	"fmt"
	"io/fs"
	"path/filepath"
)

// usable tells whether a copy that is ready still looks as it did, and has it
// read or brought again if not. It reads nothing itself.
func (r *Registry) usable(id string, c Copy, became change, err error) bool {
	if state, why := verdict(c, became, err); why != nil {
		r.lost(id, c, state, why)
		return false
	}
	switch became {
	case altered:
		r.suspect(id, c)
		r.tendSoon()
		return false
	case touched:
		r.tendSoon()
	}
	return true
}

// Usable gives a template with a copy that may be used now: it is ready, and
// looks as it did. ErrNotFound, also for a tombstone; ErrNotReady.
func (r *Registry) Usable(id string) (Template, Copy, error) {
	t, err := r.Get(id)
	if err != nil {
		return t, Copy{}, err
	}
	if t.Removed() {
		return t, Copy{}, fmt.Errorf("template %q was removed: %w", id, ErrNotFound)
	}
	for _, c := range t.Copies {
		if c.State == StateReady && r.looksUsable(t, c) {
			return t, c, nil
		}
	}
	t, _ = r.Lookup(id) // with what became of it
	return t, Copy{}, fmt.Errorf("template %q: %w", id, ErrNotReady)
}

// LookAt gives the copy whose file lies at a path, or is to lie there, after a
// look at it: one that was ready and does not look as it did is none any more,
// and is read or brought again. It reads nothing itself. Of several templates
// in one file it gives one whose copy is ready, if there is any.
func (r *Registry) LookAt(path string) (Template, Copy, bool) {
	path = filepath.Clean(path)
	at := func(_ Template, c Copy) bool { return c.Path == path }
	t, c, ok := r.find(func(t Template, c Copy) bool { return at(t, c) && c.State == StateReady && r.looksUsable(t, c) })
	if ok {
		return t, c, true
	}
	return r.find(at)
}

func (r *Registry) looksUsable(t Template, c Copy) bool {
	became, _, err := look(c, t.Size)
	return r.usable(t.ID, c, became, err)
}

// opened is usable for a file that was opened.
func (r *Registry) opened(t Template, c Copy, info fs.FileInfo) bool {
	return r.usable(t.ID, c, compare(c, t.Size, info), nil)
}
