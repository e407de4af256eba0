package template

import (
	"cmp"
	"context"
	"encoding/json"
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
func (r *Registry) UpdateRef(_ context.Context, oldVolume, id string, ref Ref) error {
	ref.Template, ref.Volume, oldVolume = id, filepath.Clean(ref.Volume), filepath.Clean(oldVolume)
	if !filepath.IsAbs(ref.Volume) {
		return fmt.Errorf("template %q: volume %q is no absolute path", id, ref.Volume)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t, known := r.templates[id]
	if !known {
		return fmt.Errorf("template %q: %w", id, ErrNotFound)
	}
	if ref.Pool == "" {
		ref.Pool = t.Pool
	}
	if _, ready := t.Ready(ref.Pool); t.Removed() && !ready {
		return fmt.Errorf("template %q was removed: %w", id, ErrNotFound)
	}
	value, err := json.Marshal(ref)
	if err != nil {
		return err
	}
	// The new ref first: a crash between may keep a copy too long, never lose
	// it too early.
	if err := r.store.Put(bucketRefs, ref.Volume, value); err != nil {
		return fmt.Errorf("reference of volume %q: %w", ref.Volume, err)
	}
	before := r.refs[ref.Volume].Template
	r.refs[ref.Volume] = ref
	if oldVolume != ref.Volume {
		if err := r.removeRef(oldVolume); err != nil {
			return err
		}
	}
	if before != "" && before != id {
		return r.collect(before)
	}
	return nil
}

// RemoveRef forgets the ref of a volume that is gone; none is no error. The
// last ref of a removed template takes its copy with it.
func (r *Registry) RemoveRef(_ context.Context, volume string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removeRef(filepath.Clean(volume))
}

func (r *Registry) removeRef(volume string) error {
	ref, ok := r.refs[volume]
	if !ok {
		return nil
	}
	if err := r.store.Delete(bucketRefs, volume); err != nil {
		return fmt.Errorf("reference of volume %q: %w", volume, err)
	}
	delete(r.refs, volume)
	return r.collect(ref.Template)
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
