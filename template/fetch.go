package template

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Content is an image being read. Size is -1 where it is not known.
type Content struct {
	io.ReadCloser
	Size int64
}

// Opener begins to read an image; ctx covers the reading too.
type Opener func(ctx context.Context) (Content, error)

// Progress is told how many bytes are done, of how many (-1: not known).
type Progress func(done, total int64)

// flightKey is what is downloaded once at a time, however many ask.
type flightKey struct{ checksum, format, pool string }

// flight is one download with those who wait for it.
type flight struct {
	template  string
	done      chan struct{}
	err       error // valid once done is closed
	abandoned bool  // its leader was told to stop; valid once done is closed
	listeners map[*Progress]struct{}
}

// Fetch makes every copy of the template ready that is not: it downloads,
// verifies, looks into and publishes the image. It returns nil when all are.
// Whatever went wrong is returned, and is the copy's message with state
// failed. progress may be nil; it is called from this goroutine or another
// that fetches the same bytes.
func (r *Registry) Fetch(ctx context.Context, id string, progress Progress) error {
	t, err := r.Get(id)
	if err != nil {
		return err
	}
	if t.Removed() {
		return fmt.Errorf("template %q was removed: %w", id, ErrNotFound)
	}
	open := func(ctx context.Context) (Content, error) {
		return r.fetcher.Open(ctx, Source{URL: t.URL, Headers: t.Headers})
	}
	var errs []error
	for _, c := range t.Copies {
		errs = append(errs, r.bring(ctx, id, c.Pool, StateDownloading, open, progress))
	}
	return errors.Join(errs...)
}

// Import registers a template if it is not, and makes its copy on s.Pool ready
// from bytes that somebody else has: a peer, or a file of this host. The
// checksum and the rules of intake are the same as for a download. s.URL may
// be empty.
func (r *Registry) Import(ctx context.Context, s Spec, open Opener, progress Progress) (Template, error) {
	t, err := r.register(ctx, s, true)
	if err != nil {
		return t, err
	}
	pool := s.Pool
	if pool == "" {
		pool = r.defaultPool
	}
	err = r.bring(ctx, t.ID, pool, StateSyncing, open, progress)
	t, _ = r.Lookup(t.ID)
	return t, err
}

// bring makes one copy ready, or waits for who is doing it.
func (r *Registry) bring(ctx context.Context, id, pool, state string, open Opener, progress Progress) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	for {
		f, leads, err := r.join(id, pool, &progress)
		if err != nil {
			return err
		}
		if leads {
			err := r.makeReady(ctx, id, pool, state, open, f)
			r.leave(f, err, ctx.Err() != nil)
			return wrap(id, pool, err)
		}
		select {
		case <-ctx.Done():
			r.unlisten(f, &progress)
			return wrap(id, pool, context.Cause(ctx))
		case <-f.done:
		}
		switch {
		case f.abandoned:
			// Somebody stopped their request, not ours: go on in their place.
		case f.template == id:
			return wrap(id, pool, f.err)
		case f.err != nil:
			return wrap(id, pool, errors.Join(f.err, r.failed(id, pool, f.err)))
		}
		// The same bytes under another id are published now: adopt them.
	}
}

func wrap(id, pool string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("template %q on pool %q: %w", id, pool, err)
}

// join makes the caller the leader of a download, or a listener of one that
// is under way.
func (r *Registry) join(id, pool string, progress *Progress) (f *flight, leads bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, known := r.templates[id]
	if !known || t.Removed() {
		return nil, false, fmt.Errorf("template %q: %w", id, ErrNotFound)
	}
	key := flightKey{t.Checksum, t.Format, pool}
	f, busy := r.flights[key]
	if !busy {
		f = &flight{template: id, done: make(chan struct{}), listeners: map[*Progress]struct{}{}}
		r.flights[key] = f
	}
	f.listeners[progress] = struct{}{}
	return f, !busy, nil
}

func (r *Registry) leave(f *flight, err error, abandoned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, other := range r.flights {
		if other == f {
			delete(r.flights, key)
		}
	}
	f.err, f.abandoned = err, abandoned && err != nil
	close(f.done)
}

func (r *Registry) unlisten(f *flight, p *Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(f.listeners, p)
}

// report shows progress to readers of the registry and to all who wait.
func (r *Registry) report(f *flight, pool string, done, total int64) {
	r.mu.Lock()
	t := r.templates[f.template].clone()
	if total > 0 {
		t.on(pool, r.now().UTC()).Progress = int(min(done*100/total, 100))
		r.templates[f.template] = t
	}
	all := make([]Progress, 0, len(f.listeners))
	for p := range f.listeners {
		all = append(all, *p)
	}
	r.mu.Unlock()
	for _, p := range all {
		p(done, total)
	}
}

// failed notes why a copy is not ready.
func (r *Registry) failed(id, pool string, why error) error {
	r.log.Warn("template copy failed", "template", id, "pool", pool, "error", why)
	return r.changeCopy(id, pool, func(_ *Template, c *Copy) {
		c.State, c.Message = StateFailed, why.Error()
		c.forgetAbsent()
	})
}
