package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// Store is what the registry needs of a durable store: each write has reached
// the disk when it returns.
type Store interface {
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	List(bucket string, fn func(key string, value []byte) error) error
}

const (
	bucketTemplates = "templates"     // id -> Template without Refs
	bucketRefs      = "template-refs" // volume -> Ref
)

// Fetcher reads images from where a URL points.
type Fetcher interface {
	// Check refuses, without input or output, what would never be fetched.
	Check(Source) error
	// Open begins the download. ctx covers reading the content too.
	Open(ctx context.Context, src Source) (Content, error)
}

// Intake decides whether a file may become a template.
type Intake interface {
	// Check looks into the open file, which is declared to be of the given
	// format. What it refuses is a *fault.Fault of code "image" or
	// "not-an-image", with the rule that was broken; any other error says that
	// it could not look. It neither closes nor moves the file.
	Check(ctx context.Context, file *os.File, format string) (ImageInfo, error)
}

// Observer hears what the registry does, for metrics. Its methods must not
// block. from is [FromURL], [FromPeer] or [FromHost].
type Observer interface {
	// Received: so many more bytes have come.
	Received(from string, bytes int64)
	// Attempt: one origin was asked; why is nil where it gave the image.
	Attempt(from string, why *fault.Fault)
}

// Kinds of origins.
const (
	FromURL  = "url"
	FromPeer = "peer"
	FromHost = "host" // another pool of this host
)

// Options of a registry. Store, Pools, Fetcher and Intake are required.
type Options struct {
	Store   Store
	Pools   func(ctx context.Context) ([]Pool, error)
	Fetcher Fetcher
	Intake  Intake
	// Peers gives the hosts that may have the template: the one of SyncFrom
	// first, then those of the configuration. They are asked by its digest.
	Peers func(ctx context.Context, t Template) []source.Origin
	Log   *slog.Logger
	// Now and After are the clock.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// DefaultPool is for a Spec that names none.
	DefaultPool string
	// MaxSize bounds the bytes of an image file, unpacked; default 2 TiB.
	MaxSize int64
	// Backoff is from a failure to the next attempt.
	Backoff Backoff
	// Downloads is how many run at once, from URLs and peers; default 4.
	Downloads int
	// Bandwidth for all of them together, in bytes per second; 0 is no limit.
	Bandwidth int64
	// Stopping is the cause of contexts that end because the agent stops: what
	// was begun is then kept, and goes on at the next start. A context that
	// ends for any other reason was cancelled by somebody.
	Stopping error
	// Notify is told of every change of state, after it was stored and without
	// a lock held. It must not block.
	Notify   func(Template)
	Observer Observer
}

// Registry knows the templates of this host. Its methods may be called at the
// same time. Reading never waits for a download or the network.
type Registry struct {
	store       Store
	pools       func(ctx context.Context) ([]Pool, error)
	fetcher     Fetcher
	intake      Intake
	log         *slog.Logger
	now         func() time.Time
	defaultPool string
	maxSize     int64
	notify      func(Template)

	mu        sync.Mutex
	templates map[string]Template // without Refs
	refs      map[string]Ref      // by volume
	flights   map[flightKey]*flight
}

// Open reads the registry and brings it in line with the disk: a copy that was
// being fetched becomes pending again and its partial file is removed, a ready
// one whose file is gone becomes missing.
func Open(o Options) (*Registry, error) {
	if o.Store == nil || o.Pools == nil || o.Fetcher == nil || o.Intake == nil {
		return nil, errors.New("template registry: store, pools, fetcher and intake are required")
	}
	r := &Registry{
		store: o.Store, pools: o.Pools, fetcher: o.Fetcher, intake: o.Intake, log: o.Log, now: o.Now,
		defaultPool: o.DefaultPool, maxSize: o.MaxSize, notify: o.Notify,
		templates: map[string]Template{}, refs: map[string]Ref{}, flights: map[flightKey]*flight{},
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.maxSize <= 0 {
		r.maxSize = DefaultMaxSize
	}
	if r.notify == nil {
		r.notify = func(Template) {}
	}
	if err := load(r.store, bucketTemplates, r.templates); err != nil {
		return nil, fmt.Errorf("template registry: %w", err)
	}
	if err := load(r.store, bucketRefs, r.refs); err != nil {
		return nil, fmt.Errorf("template references: %w", err)
	}
	if err := r.reconcile(); err != nil {
		return nil, fmt.Errorf("template registry: %w", err)
	}
	return r, nil
}

// DefaultMaxSize bounds image files and virtual sizes: 2 TiB.
const DefaultMaxSize = 2 << 40

func load[T any](s Store, bucket string, into map[string]T) error {
	return s.List(bucket, func(key string, value []byte) error {
		var v T
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("entry %q: %w", key, err)
		}
		into[key] = v
		return nil
	})
}

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

// ByDigest gives a ready copy with these bytes ("sha256:...") and format. Any
// format will do for "".
func (r *Registry) ByDigest(digest, format string) (Template, Copy, bool) {
	digest = strings.ToLower(digest)
	return r.find(func(t Template, c Copy) bool {
		return digest != "" && t.Digest == digest && c.State == StateReady && (format == "" || t.Format == format)
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

// shown adds the refs to a copy of the template. Needs mu.
func (r *Registry) shown(t Template) Template {
	t = t.clone()
	t.Refs = r.refsOf(t.ID)
	return t
}

// change stores a changed template and tells about it. fn works on a copy; its
// error changes nothing.
func (r *Registry) change(id string, fn func(*Template) error) (Template, error) {
	r.mu.Lock()
	t, err := r.changeLocked(id, fn)
	r.mu.Unlock()
	if err == nil {
		r.notify(t)
	}
	return t, err
}

func (r *Registry) changeLocked(id string, fn func(*Template) error) (Template, error) {
	t := r.templates[id].clone()
	if err := fn(&t); err != nil {
		return Template{}, err
	}
	value, err := json.Marshal(t)
	if err == nil {
		err = r.store.Put(bucketTemplates, id, value)
	}
	if err != nil {
		return Template{}, fmt.Errorf("template %q: %w", id, err)
	}
	r.templates[id] = t
	return r.shown(t), nil
}

// changeCopy is change for one copy of a template.
func (r *Registry) changeCopy(id, pool string, fn func(*Template, *Copy)) error {
	_, err := r.change(id, func(t *Template) error {
		// What was removed meanwhile must not come back.
		if t.ID == "" || t.Removed() {
			return fmt.Errorf("template %q: %w", id, ErrNotFound)
		}
		now := r.now().UTC()
		c := t.on(pool, now)
		fn(t, c)
		c.UpdatedAt = now
		return nil
	})
	return err
}

func (r *Registry) poolPath(ctx context.Context, name string) (string, error) {
	pools, err := r.pools(ctx)
	if err != nil {
		return "", fmt.Errorf("pools: %w", err)
	}
	for _, p := range pools {
		if p.Name == name && p.Path != "" {
			return filepath.Clean(p.Path), nil
		}
	}
	return "", fmt.Errorf("pool %q: %w", name, ErrPool)
}
