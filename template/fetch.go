package template

import (
	"context"
	"errors"
	"fmt"
)

// Progress is told how many bytes are done, of how many (-1: not known). While
// none are, what a fetch waits for is in the copy's message.
type Progress func(done, total int64)

// job is a wish to have a copy.
type job struct {
	place
	// asked: by somebody, so that a row of failures begins anew.
	asked    bool
	progress Progress
}

// Fetch makes every copy of the template ready that is not, whatever became of
// earlier attempts: it finds the bytes, verifies, looks into and publishes
// them. It returns nil when all are ready. What went wrong is returned as a
// *fault.Fault in the chain, and is shown in the copy, with state failed;
// [Registry.Run] tries again unless it is permanent.
//
// When ctx ends and nobody else waits for the same bytes, the fetch ends too.
// If its cause is Options.Stopping, what came is kept, and the copy is pending
// until the next start goes on with it. With any other cause the partial file
// is gone, and the copy is failed with code "interrupted" until somebody asks
// again: who cancelled does not expect it to begin by itself.
//
// progress may be nil; it is called from another goroutine.
func (r *Registry) Fetch(ctx context.Context, id string, progress Progress) error {
	t, err := r.Get(id)
	if err != nil {
		return err
	}
	if t.Removed() {
		return fmt.Errorf("template %q was removed: %w", id, ErrNotFound)
	}
	var errs []error
	for _, c := range t.Copies {
		errs = append(errs, r.bring(ctx, job{place: place{id, c.Pool}, asked: true, progress: progress}))
	}
	return errors.Join(errs...)
}

// Import registers a template if it is not, and makes its copy on s.Pool ready
// from the peers that have it, s.SyncFrom before others; if they fail, from
// s.URL, which may be empty. s.Digest is what somebody knows of the file, and
// is insisted on. The checksum and the rules of intake are the same as for a
// download. An import that is cancelled leaves no template that was not there.
func (r *Registry) Import(ctx context.Context, s Spec, progress Progress) (Template, error) {
	t, err := r.register(ctx, s, true)
	if err != nil {
		return t, err
	}
	pool := s.Pool
	if pool == "" {
		pool = r.defaultPool
	}
	err = r.bring(ctx, job{place: place{t.ID, pool}, asked: true, progress: progress})
	err = errors.Join(err, r.imported(ctx, t.ID, err))
	t, _ = r.Lookup(t.ID)
	return t, err
}
