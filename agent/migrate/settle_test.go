package migrate_test

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func (l *libvirt) state(name string) hypervisor.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.domains[name].State
}

func (l *libvirt) to(name string, s hypervisor.State, reason string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.domains[name]
	if !ok || d.State == s {
		return hypervisor.ErrInvalidState
	}
	d.State, d.Reason = s, reason
	l.domains[name] = d
	return nil
}

func (l *libvirt) SentMark(context.Context, string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.sent {
		return "", l.unsure
	}
	return cmp.Or(l.mark, "this one"), l.unsure
}

func (l *libvirt) Suspend(_ context.Context, name string) error {
	return l.to(name, hypervisor.Paused, "user")
}

func (l *libvirt) Resume(_ context.Context, name string) error {
	if l.resumes != nil {
		l.resumes()
	}
	return l.to(name, hypervisor.Running, "unpaused")
}

func (l *libvirt) Destroy(_ context.Context, name string) error {
	return l.to(name, hypervisor.Shutoff, "destroyed")
}

func (l *libvirt) Undefine(_ context.Context, name string) error { l.gone(name); return nil }

// Libvirt started the source again after it had handed the guest over, and the
// destination is silent: the source holds still until it is known that the
// destination did not start it, and then goes on.
func TestHoldsStillWhileTheDestinationIsSilent(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.sent = true
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
			if asked++; asked < 3 {
				return in, api.NewProblem("peer-unreachable", "no route to host")
			}
			if asked == 3 && w.libvirt.state("vm") != hypervisor.Paused {
				t.Error("the source ran on while the other copy may have run")
			}
			return in, nil
		}
		return errors.New("connection reset")
	}
	w.fails(api.MigrateRequest{}, api.StatusFailed, "migration-failed", "perform")
	if got := w.libvirt.state("vm"); got != hypervisor.Running {
		t.Errorf("the instance is %q; want it to run on", got)
	}
}

// It was handed over once before, and went on here. QEMU tells of that until it
// sends memory again: a migration that fails before does not pause the guest.
func TestEarlierHandoverPausesNobody(t *testing.T) {
	w := newWorld(t)
	w.libvirt.sent, w.libvirt.mark = true, "the first"
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
			if w.libvirt.state("vm") != hypervisor.Running {
				t.Errorf("it is %q; want it to run on", w.libvirt.state("vm"))
			}
			return in, api.NewProblem("peer-unreachable", "no route to host")
		}
		return errors.New("connection reset")
	}
	if op := w.migrated(api.MigrateRequest{}); op.Status != api.StatusFailed || op.Error.Code != "peer-lost" {
		t.Errorf("operation %s, %+v; want the peer lost", op.Status, op.Error)
	}
}

// Nobody knows whether it was handed over, and the destination is silent: that it
// runs at the source alone would be a guess.
func TestUnsureWhetherItWasHandedOver(t *testing.T) {
	w := newWorld(t)
	w.options.DecisionTimeout = time.Millisecond
	w.restart()
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.unsure = errors.New("cannot acquire state change lock")
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
			return in, api.NewProblem("peer-unreachable", "no route to host")
		}
		return errors.New("connection reset")
	}
	op := w.migrated(api.MigrateRequest{})
	if op.Status != api.StatusNeedsDecision || w.libvirt.state("vm") != hypervisor.Running {
		t.Errorf("operation %s, %+v, the instance is %q", op.Status, op.Error, w.libvirt.state("vm"))
	}
}

// A destination that takes its time to answer: the copy that may be a second one
// does not run meanwhile. That it is whole and runs is what is said at last.
func TestPausedBeforeTheDestinationIsAsked(t *testing.T) {
	w := newWorld(t)
	asked := false
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.sent = true
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
			if !asked && w.libvirt.state("vm") != hypervisor.Paused {
				t.Errorf("it is %q while the destination is asked; want it paused", w.libvirt.state("vm"))
			}
			asked = true
			return in, nil
		}
		return errors.New("connection reset")
	}
	p := w.fails(api.MigrateRequest{}, api.StatusFailed, "migration-failed", "perform")
	if got := w.libvirt.state("vm"); got != hypervisor.Running || !asked {
		t.Errorf("the instance is %q, the destination was asked: %v; want it to run on", got, asked)
	}
	if strings.Contains(p.Hint, "paused") {
		t.Errorf("hint %q; want where it is now", p.Hint)
	}
}

// The same, and the destination had started it.
func TestTwoCopiesOneOfThemPaused(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.here(true, "running")
		return errors.New("connection reset")
	}
	op := w.migrated(api.MigrateRequest{})
	if op.Status != api.StatusNeedsDecision || !strings.Contains(op.Error.Detail, "at the source, where the agent paused it") {
		t.Errorf("operation %s, %+v; want the facts", op.Status, op.Error)
	}
	if w.libvirt.state("vm") != hypervisor.Paused || !w.exists(w.disk) {
		t.Errorf("the source is %q, its volume exists: %v; want it paused, and whole", w.libvirt.state("vm"), w.exists(w.disk))
	}
}

// A full disk under the journal: two copies do not run on for that.
func TestPausedThoughTheJournalTakesNothing(t *testing.T) {
	w := newWorld(t)
	full := &fullStore{Store: w.store}
	w.store = full
	w.restart()
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.here(true, "running")
		full.is.Store(true)
		return errors.New("connection reset")
	}
	op := w.migrated(api.MigrateRequest{})
	full.is.Store(false)
	if op.Status != api.StatusNeedsDecision || w.libvirt.state("vm") != hypervisor.Paused {
		t.Errorf("operation %s, %+v, the instance is %q; want it paused", op.Status, op.Error, w.libvirt.state("vm"))
	}
}

// fullStore takes no data of operations once it is full.
type fullStore struct {
	store.Store
	is atomic.Bool
}

func (f *fullStore) Put(bucket, key string, value []byte) error {
	if f.is.Load() {
		return errors.New("no space left on device")
	}
	return f.Store.Put(bucket, key, value)
}

// Libvirt lost its way after the switchover and left the source paused. The
// instance has moved; nothing of it stays here.
func TestCopyThatLibvirtLeftIsDismissed(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		must(t, w.libvirt.to("vm", hypervisor.Paused, "migration"))
		w.here(true, "running")
		return hypervisor.ErrDown
	}
	if r := w.succeeds(api.MigrateRequest{}); len(r.Warnings) != 1 {
		t.Errorf("warnings %q; want what libvirt said", r.Warnings)
	}
	if _, err := w.libvirt.Domain(t.Context(), "vm"); !errors.Is(err, hypervisor.ErrNoDomain) || w.exists(w.disk) {
		t.Errorf("the copy at the source: %v, its volume exists: %v; want both gone", err, w.exists(w.disk))
	}
}

// A destination that is gone in the middle: the guest runs on here, and that the
// peer was lost is the reason, whether libvirt or the stall timeout found out.
func TestPeerLost(t *testing.T) {
	for name, c := range map[string]struct {
		request api.MigrateRequest
		moves   func(context.Context, hypervisor.MigrateParams) error
		silent  bool
		code    string
	}{
		"libvirt noticed":             {moves: func(context.Context, hypervisor.MigrateParams) error { return errors.New("keepalive timeout") }, silent: true, code: "peer-lost"},
		"nothing moved":               {request: api.MigrateRequest{StallTimeout: api.Duration(time.Millisecond)}, moves: untilStopped, silent: true, code: "peer-lost"},
		"it was stopped":              {request: api.MigrateRequest{Timeout: api.Duration(time.Millisecond)}, moves: untilStopped, silent: true, code: "timeout"},
		"it answers, but has stalled": {request: api.MigrateRequest{StallTimeout: api.Duration(time.Millisecond)}, moves: untilStopped, code: "stalled"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
				w.peer.mu.Lock()
				w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
					if c.silent {
						return in, api.NewProblem("peer-unreachable", "no route to host")
					}
					return in, nil
				}
				w.peer.mu.Unlock()
				return c.moves(ctx, p)
			}
			op := w.migrated(c.request)
			if op.Status != api.StatusFailed || op.Error.Code != c.code || op.Error.Phase != "perform" || op.Error.Hint == "" {
				t.Errorf("ended as %s, %+v; want %s", op.Status, op.Error, c.code)
			}
			if w.libvirt.state("vm") != hypervisor.Running || !w.exists(w.disk) {
				t.Errorf("the instance is %q", w.libvirt.state("vm"))
			}
		})
	}
}
