package operation

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// holder is who holds the lock of an instance, or waits for it: an operation,
// or short work that has only a name.
type holder struct {
	operation, kind, who string
	claim                Claim
	since                time.Time     // when it got the lock, or began to wait
	granted              chan struct{} // closed when it has the lock
	released             chan struct{} // closed when it no longer has
}

func newHolder(h holder) *holder {
	h.granted, h.released = make(chan struct{}), make(chan struct{})
	return &h
}

func (h *holder) busy(ref api.Ref) *api.Problem {
	if h.operation == "" {
		return api.NewProblem("busy", "instance %q is held by %s", ref, h.who)
	}
	return api.NewProblem("busy", "instance %q is held by operation %s (%s)", ref, h.operation, h.kind).
		WithOperation(h.operation).WithHint("wait for that operation, or cancel it")
}

// lock is the lock of one instance. At most one operation waits for it: a
// newer one has to be stronger than that too, and ends it.
type lock struct {
	holder *holder
	next   *holder
	others map[*holder]struct{} // short work that waits, whoever comes first
}

// locks are keyed by project and name: a number from a database would be
// another one on the other host. They are in memory only, so a crash leaves
// none; and nothing but its holder lets go of one, however long it takes: an
// expired lock would let two work on one instance.
type locks struct {
	mu   sync.Mutex
	held map[api.Ref]*lock
}

// try takes the lock, or gives who has it and which operation is next.
func (l *locks) try(ref api.Ref, h *holder, now time.Time) (by, next *holder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.held[ref]; k != nil {
		return k.holder, k.next
	}
	l.take(ref, h, now)
	return nil, nil
}

// take needs mu, and that the lock is free.
func (l *locks) take(ref api.Ref, h *holder, now time.Time) {
	if l.held == nil {
		l.held = map[api.Ref]*lock{}
	}
	if l.held[ref] == nil {
		l.held[ref] = &lock{others: map[*holder]struct{}{}}
	}
	h.since = now
	l.held[ref].holder = h
	close(h.granted)
}

// queue takes the lock, or waits for it as the next, in the place of who was.
func (l *locks) queue(ref api.Ref, h *holder, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[ref]
	if k == nil {
		l.take(ref, h, now)
		return
	}
	h.since, k.next = now, h
}

// by gives who has the lock; nil when it is free.
func (l *locks) by(ref api.Ref) *holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.held[ref]; k != nil {
		return k.holder
	}
	return nil
}

// linger notes short work that waits, until the returned function is called.
func (l *locks) linger(ref api.Ref, h *holder, now time.Time) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[ref]
	if k == nil {
		return func() {}
	}
	h.since = now
	k.others[h] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(k.others, h)
	}
}

// releaser gives the function that lets go, of the lock or of the place in the
// queue; calling it again does nothing. The next operation has the lock before
// anybody else can see it free.
func (l *locks) releaser(ref api.Ref, h *holder, now func() time.Time) func() {
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		defer close(h.released)
		k := l.held[ref]
		switch {
		case k == nil:
		case k.next == h:
			k.next = nil
		case k.holder == h && k.next != nil:
			next := k.next
			k.next = nil
			l.take(ref, next, now())
		case k.holder == h:
			delete(l.held, ref)
		}
	})
}

func normal(ref api.Ref) api.Ref {
	if ref.Project == "" {
		ref.Project = api.DefaultProject
	}
	return ref
}

// Holder gives the id of the operation that holds the instance, or "".
func (e *Engine) Holder(ref api.Ref) string {
	if k := e.LockOf(ref); k != nil {
		return k.Operation
	}
	return ""
}

// LockOf shows who holds the instance, since when, and who waits for it; nil
// while nobody does.
func (e *Engine) LockOf(ref api.Ref) *api.Lock {
	e.locks.mu.Lock()
	defer e.locks.mu.Unlock()
	k := e.locks.held[normal(ref)]
	if k == nil {
		return nil
	}
	return k.show()
}

// Locks shows the locks of all instances that are held.
func (e *Engine) Locks() []api.Lock {
	e.locks.mu.Lock()
	defer e.locks.mu.Unlock()
	out := make([]api.Lock, 0, len(e.locks.held))
	for _, k := range e.locks.held {
		out = append(out, *k.show())
	}
	return out
}

// show needs mu.
func (k *lock) show() *api.Lock {
	out := &api.Lock{Operation: k.holder.operation, Kind: k.holder.name(), Since: k.holder.since.UTC(), Waiters: []api.Waiter{}}
	waiting := slices.SortedFunc(maps.Keys(k.others), func(a, b *holder) int { return a.since.Compare(b.since) })
	if k.next != nil {
		waiting = slices.Insert(waiting, 0, k.next)
	}
	for _, w := range waiting {
		out.Waiters = append(out.Waiters, api.Waiter{Operation: w.operation, Kind: w.name(), Since: w.since.UTC()})
	}
	return out
}

func (h *holder) name() string {
	if h.kind != "" {
		return h.kind
	}
	return h.who
}

// Lock takes an instance's lock for short exclusive work without an operation.
// It waits until ctx ends, then returns a "busy" problem that names the
// holder. who is shown to others that find the instance busy.
func (e *Engine) Lock(ctx context.Context, ref api.Ref, who string) (unlock func(), err error) {
	ref = normal(ref)
	h := newHolder(holder{who: who})
	defer e.lockWaited(e.now())
	for {
		by, _ := e.locks.try(ref, h, e.now())
		if by == nil {
			return e.locks.releaser(ref, h, e.now), nil
		}
		if !e.lingers(ctx, ref, h, by) {
			return nil, by.busy(ref)
		}
	}
}

// lingers waits for the holder to let go; false when ctx ended first.
func (e *Engine) lingers(ctx context.Context, ref api.Ref, h, by *holder) bool {
	defer e.locks.linger(ref, h, e.now())()
	select {
	case <-by.released:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *Engine) lockWaited(since time.Time) {
	if e.onLockWait != nil {
		e.onLockWait(max(0, e.now().Sub(since)))
	}
}
