package template

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/template/digest"
)

// Register adds a template, without fetching it; its copy on the pool is
// pending. The same id with the same checksum, format and direct_download is
// the same template: where it comes from is updated, and another pool adds a
// copy. Other content is ErrConflict, and so is other content than that of a
// tombstone whose file is still there or whose direct_download differs. A bad
// field is FieldErrors.
func (r *Registry) Register(ctx context.Context, s Spec) (Template, error) {
	return r.register(ctx, s, false)
}

func (r *Registry) register(ctx context.Context, s Spec, imported bool) (Template, error) {
	if s.Pool == "" {
		s.Pool = r.defaultPool
	}
	s, bad := s.check(imported)
	if s.Pool == "" {
		bad = append(bad, FieldError{"pool", "is missing, and there is no default"})
	} else if _, err := r.poolPath(ctx, s.Pool); errors.Is(err, ErrPool) {
		bad = append(bad, FieldError{"pool", err.Error()})
	} else if err != nil {
		return Template{}, fmt.Errorf("template %q: %w", s.ID, err)
	}
	if len(bad) > 0 {
		return Template{}, bad
	}
	r.mu.Lock()
	old, known := r.templates[s.ID]
	next, err := merge(old, known, len(r.refsOf(s.ID))+len(old.Copies) > 0, s)
	if err != nil {
		r.mu.Unlock()
		return Template{}, fmt.Errorf("template %q: %w", s.ID, err)
	}
	next.on(s.Pool, r.now().UTC())
	t, err := r.changeLocked(s.ID, func(t *Template) error { *t = next; return nil })
	if err == nil {
		r.noteImport(s.ID, old, known, imported)
	}
	r.mu.Unlock()
	if err == nil {
		r.notify(t)
	}
	return t, err
}

// merge decides what a registration makes of what is known under its id.
func merge(old Template, known, referred bool, s Spec) (Template, error) {
	fresh := Template{
		ID: s.ID, URL: s.URL, Checksum: s.Checksum, Format: s.Format, Pool: s.Pool,
		DirectDownload: s.DirectDownload, SyncFrom: s.SyncFrom, Headers: s.Headers, Copies: []Copy{},
	}
	// The checksum is over the bytes as served; the digest over the file.
	if name, _ := digest.Split(s.Checksum); name == digest.SHA256 && !packed(s.URL) {
		fresh.Digest = s.Checksum
	}
	if s.Digest != "" {
		fresh.Digest = s.Digest
	}
	fresh = fresh.clone()
	if !known {
		return fresh, nil
	}
	same := old.Format == s.Format && (old.Checksum == s.Checksum || old.Digest == s.Checksum) &&
		(s.Digest == "" || old.Digest == "" || old.Digest == s.Digest)
	switch {
	case old.DirectDownload != s.DirectDownload:
		// Volumes that migrated away or are unknown here may stand on it.
		return old, fmt.Errorf("%w: direct_download is %t", ErrConflict, old.DirectDownload)
	case !same && old.Removed() && !referred:
		return fresh, nil
	case !same:
		return old, fmt.Errorf("%w: %s, %s", ErrConflict, old.Checksum, old.Format)
	}
	next := old.clone()
	next.RemovedAt = nil
	if next.Digest == "" {
		next.Digest = s.Digest
	}
	if s.URL != "" {
		next.URL, next.Headers = fresh.URL, fresh.Headers
	}
	if s.SyncFrom != "" {
		next.SyncFrom = s.SyncFrom
	}
	return next, nil
}
