package template

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Get gives a template, also a tombstone; ErrNotFound.
func (r *Registry) Get(id string) (Template, error) {
	t, ok := r.Lookup(id)
	if !ok {
		return t, fmt.Errorf("template %q: %w", id, ErrNotFound)
	}
	return t, nil
}

// Lookup is Get for those to whom an unknown template is no error.
func (r *Registry) Lookup(id string) (Template, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.templates[id]
	return r.shown(t), ok
}

// List gives all templates by id, tombstones too.
func (r *Registry) List() []Template {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Template, 0, len(r.templates))
	for _, id := range slices.Sorted(maps.Keys(r.templates)) {
		out = append(out, r.shown(r.templates[id]))
	}
	return out
}

// DirectDownload tells whether the template was downloaded by the host itself,
// also after it was removed. known is false for an id never heard of.
func (r *Registry) DirectDownload(id string) (direct, known bool) {
	t, ok := r.Lookup(id)
	return t.DirectDownload, ok
}

// ByPath gives the copy that lies at a path, whatever its state.
func (r *Registry) ByPath(path string) (Template, Copy, bool) {
	path = filepath.Clean(path)
	return r.find(func(_ Template, c Copy) bool { return c.Path == path })
}

// Vouch gives the digest of the file at a path, if it is a ready copy's and is
// still what it was when its bytes were read.
func (r *Registry) Vouch(path string, info fs.FileInfo) (digest string, ok bool) {
	path = filepath.Clean(path)
	t, _, ok := r.find(func(t Template, c Copy) bool {
		return c.Path == path && c.State == StateReady && t.Digest != "" && !c.Stamp.IsZero() && c.Stamp == StampOf(info)
	})
	return t.Digest, ok
}

// ByDigest gives a ready copy with these bytes ("sha256:...") and format that
// still looks as it did. Any format will do for "".
func (r *Registry) ByDigest(digest, format string) (Template, Copy, bool) {
	digest = strings.ToLower(digest)
	return r.find(func(t Template, c Copy) bool {
		return digest != "" && t.Digest == digest && c.State == StateReady && (format == "" || t.Format == format) &&
			r.looksUsable(t, c)
	})
}

// find gives the first copy that matches, of a template that is not removed
// if there is one.
func (r *Registry) find(match func(Template, Copy) bool) (found Template, on Copy, ok bool) {
	for _, t := range r.List() {
		for _, c := range t.Copies {
			if !match(t, c) || ok && (t.Removed() || !found.Removed()) {
				continue
			}
			found, on, ok = t, c, true
		}
	}
	return found, on, ok
}

// shown adds what is not stored with a template: its refs, and how far a fetch
// is. Needs mu.
func (r *Registry) shown(t Template) Template {
	t = t.clone()
	t.Refs = r.refsOf(t.ID)
	for i := range t.Copies {
		c := &t.Copies[i]
		switch f := r.flights[keyOf(t)]; {
		case c.State == StateReady:
			c.BytesDone, c.BytesTotal = t.Size, t.Size
		case f != nil && f.place == place{t.ID, c.Pool}:
			c.BytesDone, c.BytesTotal = f.done.Load(), f.total.Load()
			c.Progress = percent(c.BytesDone, c.BytesTotal)
		default:
			c.BytesTotal = -1
		}
	}
	return t
}

func percent(done, total int64) int {
	if total <= 0 {
		return 0
	}
	return int(min(float64(done)/float64(total), 1) * 100)
}
