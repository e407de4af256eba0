package hook

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

// Listener is the agent's ear for the hook, and for libvirt's own events: one
// may be missing where the other is heard.
type Listener struct {
	Ending
	Records record.Dir
	// Operation gives the kind of the operation that holds the instance, or "".
	Operation func(ref api.Ref) string
	Migration string // is that kind
	// Lock takes an instance for short work.
	Lock func(ctx context.Context, ref api.Ref, who string) (unlock func(), err error)
	Log  *slog.Logger
	// Work ends with the agent.
	Work context.Context //nolint:containedctx // of what outlives the requests

	busy sync.WaitGroup
}

// lockWait is for short work on the instance.
const lockWait = 10 * time.Second

// Ended hears that an instance has ended. It returns at once.
func (l *Listener) Ended(_ context.Context, r api.HookRequest) error {
	if r.Operation != opRelease || r.Reason == reasonMigrated {
		return nil
	}
	l.busy.Go(func() { l.handle(r) })
	return nil
}

// Wait returns when nothing is being done.
func (l *Listener) Wait() { l.busy.Wait() }

func (l *Listener) handle(r api.HookRequest) {
	rec, ok := find(l.Records, r.Name, r.UUID)
	if !ok {
		return
	}
	ref := api.Ref{Project: rec.Project, Name: rec.Name}
	// An operation knows what the end means to it, and does what is owed; but a
	// migration that lost its instance is over, and knows of no clean-up.
	if kind := l.Operation(ref); kind != "" {
		if kind == l.Migration {
			l.owe(ref, rec.UUID)
		}
		return
	}
	// Without the lock: where it runs again, somebody may want to act on it.
	if !l.gone(rec.Name, rec.UUID) {
		return
	}
	ctx, cancel := context.WithTimeout(l.Work, lockWait)
	unlock, err := l.Lock(ctx, ref, "clean-up")
	cancel()
	if err != nil {
		return // likewise
	}
	defer unlock()
	if err := l.Cleaner.Clean(l.Work, l.owe(ref, rec.UUID)); err != nil {
		l.Log.Warn("something is left to be cleaned up; it is tried again", "instance", ref.String(), "error", err)
	}
}

func (l *Listener) owe(ref api.Ref, uuid string) cleanup.Note {
	n, err := l.Owe(ref, uuid)
	if err != nil {
		l.Log.Warn("what is owed to an instance is not noted", "instance", ref.String(), "error", err)
	}
	return n
}

// gone waits for the process to end; false where it was started again.
func (l *Listener) gone(name, uuid string) bool {
	ctx, cancel := context.WithTimeout(l.Work, goneWait)
	defer cancel()
	tick := time.NewTicker(goneLook)
	defer tick.Stop()
	for {
		if runs, err := l.Cleaner.Runs(name, uuid); err != nil || !runs {
			return err == nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}
