package template

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// AddRef notes that a volume stands on a template. A ref that the volume
// already has is replaced. Add it before the volume is made: from then on the
// copy is kept. ErrNotFound for a template that is unknown, or removed with no
// copy left on the pool.
func (r *Registry) AddRef(ctx context.Context, id string, ref Ref) error {
	return r.UpdateRef(ctx, ref.Volume, id, ref)
}

// UpdateRef moves the ref of oldVolume to ref.Volume, where there is one, and
// inserts it where there is none.
//
// A volume that has no ref yet may only come to stand on a copy that is ready:
// ErrNotReady.
func (r *Registry) UpdateRef(ctx context.Context, oldVolume, id string, ref Ref) error {
	ref.Template, ref.Volume, oldVolume = id, filepath.Clean(ref.Volume), filepath.Clean(oldVolume)
	if !filepath.IsAbs(ref.Volume) {
		return fmt.Errorf("template %q: volume %q is no absolute path", id, ref.Volume)
	}
	r.mu.Lock()
	before, err := r.updateRef(oldVolume, id, ref)
	r.mu.Unlock()
	if err == nil && before {
		r.collectNow(ctx)
	}
	return err
}

// updateRef tells whether a ref went, with which a copy may go. Needs mu.
func (r *Registry) updateRef(oldVolume, id string, ref Ref) (went bool, err error) {
	t, known := r.templates[id]
	if !known {
		return false, fmt.Errorf("template %q: %w", id, ErrNotFound)
	}
	if ref.Pool == "" {
		ref.Pool = t.Pool
	}
	_, ready := t.Ready(ref.Pool)
	before, had := r.refs[ref.Volume]
	_, moves := r.refs[oldVolume]
	switch {
	case ready:
	case t.Removed():
		return false, fmt.Errorf("template %q was removed: %w", id, ErrNotFound)
	case !had && !moves:
		return false, fmt.Errorf("template %q on pool %q: %w", id, ref.Pool, ErrNotReady)
	}
	value, err := json.Marshal(ref)
	if err != nil {
		return false, err
	}
	// The new ref first: a crash between may keep a copy too long, never lose
	// it too early.
	if err := r.store.Put(bucketRefs, ref.Volume, value); err != nil {
		return false, fmt.Errorf("reference of volume %q: %w", ref.Volume, err)
	}
	r.refs[ref.Volume] = ref
	r.used(ref)
	if had && before.Template != id {
		r.used(before)
	}
	if oldVolume != ref.Volume {
		_, err = r.removeRef(oldVolume)
	}
	return had || moves, err
}

// used notes that the ref's copy is used, or was until now. What is not stored
// of that only makes the copy seem older.
func (r *Registry) used(ref Ref) {
	_, err := r.changeLocked(ref.Template, func(t *Template) error {
		for i := range t.Copies {
			if t.Copies[i].Pool == ref.Pool {
				now := r.now().UTC()
				t.Copies[i].LastUsed = &now
			}
		}
		if t.ID == "" {
			return errElsewhere
		}
		return nil
	})
	if err != nil && !errors.Is(err, errElsewhere) {
		r.log.Warn("when a template copy was used was not stored", "template", ref.Template, "error", err)
	}
}

// RemoveRef forgets the ref of a volume that is gone; none is no error. The
// last ref of a removed template takes its copy with it.
func (r *Registry) RemoveRef(ctx context.Context, volume string) error {
	r.mu.Lock()
	went, err := r.removeRef(filepath.Clean(volume))
	r.mu.Unlock()
	if went {
		r.collectNow(ctx)
	}
	return err
}

// removeRef tells whether there was one. Needs mu.
func (r *Registry) removeRef(volume string) (went bool, err error) {
	ref, ok := r.refs[volume]
	if !ok {
		return false, nil
	}
	if err := r.store.Delete(bucketRefs, volume); err != nil {
		return false, fmt.Errorf("reference of volume %q: %w", volume, err)
	}
	delete(r.refs, volume)
	r.used(ref)
	return true, nil
}

// wanted tells whether a copy is to be brought when it is not there: of a removed
// template only while the store knows of volumes that stand on it. Needs mu.
func (r *Registry) wanted(t Template, pool string) bool {
	if !t.Removed() {
		return true
	}
	for _, ref := range r.refs {
		if ref.Template == t.ID && ref.Pool == pool {
			return true
		}
	}
	return false
}

// RefByVolume gives the ref of a volume, by its whole path.
func (r *Registry) RefByVolume(volume string) (Ref, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ref, ok := r.refs[filepath.Clean(volume)]
	return ref, ok
}

// RefsOf gives the refs of a template, by volume.
func (r *Registry) RefsOf(id string) []Ref {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refsOf(id)
}

func (r *Registry) refsOf(id string) []Ref {
	out := []Ref{}
	for ref := range maps.Values(r.refs) {
		if ref.Template == id {
			out = append(out, ref)
		}
	}
	slices.SortFunc(out, func(a, b Ref) int { return cmp.Compare(a.Volume, b.Volume) })
	return out
}
