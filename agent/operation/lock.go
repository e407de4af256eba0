package operation

import (
	"context"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// holder is who holds the lock of an instance: an operation, or short work
// that has only a name.
type holder struct {
	operation, kind, who string
	released             chan struct{}
}

func (h *holder) busy(ref api.Ref) *api.Problem {
	if h.operation == "" {
		return api.NewProblem("busy", "instance %q is held by %s", ref, h.who)
	}
	return api.NewProblem("busy", "instance %q is held by operation %s (%s)", ref, h.operation, h.kind).
		WithOperation(h.operation).WithHint("wait for that operation, or cancel it")
}

// locks are keyed by project and name: a number from a database would be
// another one on the other host.
type locks struct {
	mu   sync.Mutex
	held map[api.Ref]*holder
}

// try takes the lock, or tells who has it.
func (l *locks) try(ref api.Ref, h *holder) (by *holder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if by := l.held[ref]; by != nil {
		return by
	}
	if l.held == nil {
		l.held = map[api.Ref]*holder{}
	}
	h.released = make(chan struct{})
	l.held[ref] = h
	return nil
}

// releaser gives the function that lets go; calling it again does nothing.
func (l *locks) releaser(ref api.Ref, h *holder) func() {
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, ref)
		close(h.released)
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
	e.locks.mu.Lock()
	defer e.locks.mu.Unlock()
	if h := e.locks.held[normal(ref)]; h != nil {
		return h.operation
	}
	return ""
}

// Lock takes an instance's lock for short exclusive work without an operation.
// It waits until ctx ends, then returns a "busy" problem that names the
// holder. who is shown to others that find the instance busy.
func (e *Engine) Lock(ctx context.Context, ref api.Ref, who string) (unlock func(), err error) {
	ref = normal(ref)
	h := &holder{who: who}
	defer e.lockWaited(e.now())
	for {
		by := e.locks.try(ref, h)
		if by == nil {
			return e.locks.releaser(ref, h), nil
		}
		select {
		case <-by.released:
		case <-ctx.Done():
			return nil, by.busy(ref)
		}
	}
}

func (e *Engine) lockWaited(since time.Time) {
	if e.onLockWait != nil {
		e.onLockWait(max(0, e.now().Sub(since)))
	}
}
