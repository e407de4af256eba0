package hook

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
)

// Began hears that an instance has started, by virsh say. It returns at once.
// After a power cut nothing but its record tells that it ran.
func (l *Listener) Began(name, uuid string) { l.busy.Go(func() { l.began(name, uuid) }) }

func (l *Listener) began(name, uuid string) {
	rec, ok := find(l.Records, name, uuid)
	if !ok || rec.PowerState == "running" {
		return
	}
	ref := api.Ref{Project: rec.Project, Name: rec.Name}
	if l.Operation(ref) != "" {
		return // which writes what it is to be
	}
	ctx, cancel := context.WithTimeout(l.Work, lockWait)
	unlock, err := l.Lock(ctx, ref, "power state")
	cancel()
	if err != nil {
		return // likewise
	}
	defer unlock()
	// Under the lock: somebody may have stopped it meanwhile, or moved it away.
	rec, err = l.Records.Of(ref, uuid)
	if err != nil {
		return
	}
	if runs, err := l.Cleaner.Runs(name, uuid); err != nil || !runs {
		return
	}
	rec.PowerState, rec.UpdatedAt = "running", l.Cleaner.Now().UTC()
	if err := l.Records.Write(rec); err != nil {
		l.Log.Warn("that an instance runs is not noted", "instance", ref.String(), "error", err)
	}
}
