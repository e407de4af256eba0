package hook

import (
	"context"
	"errors"
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
	if r.Operation != opRelease {
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
	end := End{Ref: api.Ref{Project: rec.Project, Name: rec.Name}, UUID: rec.UUID, At: r.Called.Std(), Moved: r.Reason == reasonMigrated}
	// An operation knows what the end means to it, and does what is owed; but a
	// migration that lost its instance is over, and knows of no clean-up. What was
	// moved under none was moved by hand.
	if kind := l.Operation(end.Ref); kind != "" {
		if kind == l.Migration && !end.Moved {
			l.owe(end)
		}
		return
	}
	// Without the lock: where it runs again, somebody may want to act on it.
	if !l.gone(end) {
		return
	}
	ctx, cancel := context.WithTimeout(l.Work, lockWait)
	unlock, err := l.Lock(ctx, end.Ref, "clean-up")
	cancel()
	if err != nil {
		return // likewise
	}
	defer unlock()
	// Under the lock: whoever had it may have started it again.
	o, owed := l.owe(end)
	if !owed {
		return
	}
	err = l.Cleaner.Clean(l.Work, o.Note)
	if errors.Is(err, cleanup.ErrRuns) {
		err = l.takeBack(o)
	}
	if err != nil {
		l.Log.Warn("something is left to be cleaned up; it is tried again", "instance", end.Ref.String(), "error", err)
	}
}

func (l *Listener) owe(end End) (Owed, bool) {
	o, owed, err := l.Owe(end)
	if err != nil {
		l.Log.Warn("what is owed to an instance is not noted", "instance", end.Ref.String(), "error", err)
	}
	return o, owed
}

// gone waits for the process to end; false where it was started again.
func (l *Listener) gone(end End) bool {
	ctx, cancel := context.WithTimeout(l.Work, goneWait)
	defer cancel()
	tick := time.NewTicker(goneLook)
	defer tick.Stop()
	for {
		if runs, err := l.Cleaner.Runs(end.Ref.Name, end.UUID); err != nil || !runs {
			return err == nil
		}
		if l.runsAgain(end) {
			return false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}
