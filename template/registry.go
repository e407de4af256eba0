package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

const (
	bucketTemplates = "templates"     // id -> Template without Refs
	bucketRefs      = "template-refs" // volume -> Ref
)

// Registry knows the templates of this host. Its methods may be called at the
// same time. Reading never waits for a download or the network.
type Registry struct {
	store       Store
	pools       func(ctx context.Context) ([]Pool, error)
	fetcher     Fetcher
	intake      Intake
	peers       func(ctx context.Context, t Template) []source.Origin
	log         *slog.Logger
	now         func() time.Time
	after       func(time.Duration) <-chan time.Time
	defaultPool string
	maxSize     int64
	backoff     Backoff
	stopping    error
	notify      func(Template)
	received    func(from string, bytes int64)
	mounted     func(folder string) bool
	tending     Tending

	limiter *rate.Limiter // nil: no limit
	slots   chan struct{} // one for each download that runs
	poke    chan struct{} // something changed that Run may have to look at
	tend    chan struct{} // the same for Tend
	reading chan struct{} // one copy is read whole at a time

	halting atomic.Bool // Run has ended: the agent stops

	mu        sync.Mutex
	templates map[string]Template // without Refs
	refs      map[string]Ref      // by volume
	flights   map[flightKey]*flight
	retrying  map[place]bool // by Run
	removing  map[string]bool
	imports   map[string]imports // by id: what is known for imports under way alone
	unowned   []Unowned          // as of the last look
}

// place is where a copy belongs.
type place struct{ id, pool string }

// Open reads the registry and brings it in line with the disk: a copy that was
// being fetched becomes pending again and keeps its partial file, a ready one
// whose file is gone becomes missing. Both are fetched by [Registry.Run].
func Open(o Options) (*Registry, error) {
	if o.Store == nil || o.Pools == nil || o.Fetcher == nil || o.Intake == nil {
		return nil, errors.New("template registry: store, pools, fetcher and intake are required")
	}
	o.defaults()
	r := &Registry{
		store: o.Store, pools: o.Pools, fetcher: o.Fetcher, intake: o.Intake, peers: o.Peers, log: o.Log, now: o.Now,
		after: o.After, defaultPool: o.DefaultPool, maxSize: o.MaxSize, backoff: o.Backoff, stopping: o.Stopping,
		notify: o.Notify, received: o.Received, mounted: o.Mounted, tending: o.Tending,
		slots: make(chan struct{}, o.Downloads), poke: make(chan struct{}, 1), tend: make(chan struct{}, 1), reading: make(chan struct{}, 1),
		templates: map[string]Template{}, refs: map[string]Ref{}, flights: map[flightKey]*flight{},
		retrying: map[place]bool{}, removing: map[string]bool{},
	}
	if o.Bandwidth > 0 {
		r.limiter = rate.NewLimiter(rate.Limit(o.Bandwidth), int(min(o.Bandwidth, 1<<20)))
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
	r.wake()
	return r.shown(t), nil
}

// wake has Run look again.
func (r *Registry) wake() {
	select {
	case r.poke <- struct{}{}:
	default: // it was told already
	}
}

// changeCopy is change for one copy of a template.
func (r *Registry) changeCopy(id, pool string, fn func(*Template, *Copy)) error {
	_, err := r.change(id, func(t *Template) error {
		// What was removed meanwhile must not come back, but for those that
		// stand on it.
		if t.ID == "" || !r.wanted(*t, pool) {
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
		return "", &fault.Fault{Code: fault.Pool, Class: fault.Local, Err: fmt.Errorf("pools: %w", err)}
	}
	for _, p := range pools {
		if p.Name == name && p.Path != "" {
			return filepath.Clean(p.Path), nil
		}
	}
	return "", &fault.Fault{Code: fault.Pool, Class: fault.Local, Err: fmt.Errorf("pool %q: %w", name, ErrPool)}
}
