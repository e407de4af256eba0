package hook

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

// Listener is the agent's ear for the hook, and for libvirt's own events: one
// may be missing where the other is heard.
type Listener struct {
	Ending
	Records record.Dir
	// Holder gives the operation that holds the instance, or "".
	Holder func(ref api.Ref) string
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
	n, err := l.Owe(ref, rec.UUID)
	if err != nil {
		l.Log.Warn("what is owed to an instance is not noted", "instance", ref.String(), "error", err)
	}
	// An operation knows what the end means to it: a stop, or a migration whose
	// source is to be cleaned when its destination has confirmed. What it leaves
	// undone is noted, and done when it has ended.
	if l.Holder(ref) != "" {
		return
	}
	ctx, cancel := context.WithTimeout(l.Work, lockWait)
	unlock, err := l.Lock(ctx, ref, "clean-up")
	cancel()
	if err != nil {
		return // likewise
	}
	defer unlock()
	if err := l.Clean(l.Work, n); err != nil {
		l.Log.Warn("something is left to be cleaned up; it is tried again", "instance", ref.String(), "error", err)
	}
}
