package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

// tellTimeout is how long the agent may take to answer. It answers at once, or
// hangs, and libvirt waits.
const tellTimeout = 1500 * time.Millisecond

// Hook is what libvirt calls.
type Hook struct {
	Records record.Dir
	// Tell tells the agent; nil = there is none.
	Tell func(ctx context.Context, r api.HookRequest) error
	// Detach has the work done by a process that libvirt does not wait for.
	Detach func(ref api.Ref, uuid string) error
	Log    *slog.Logger
}

// Run answers one call of libvirt. It returns in a few seconds, whatever hangs,
// and writes nothing: what a hook writes may replace the XML of a migration.
// Its error is for the log alone.
func (h Hook) Run(ctx context.Context, c Call, stdin io.Reader) error {
	if !c.Released() {
		return nil
	}
	uuid, err := uuidOf(stdin)
	if err != nil {
		h.Log.Warn("the XML from libvirt tells no UUID", "instance", c.Name, "error", err)
	}
	rec, ok := find(h.Records, c.Name, uuid)
	if !ok {
		return nil // without a record nothing is owed
	}
	err = errors.New("there is no agent")
	if h.Tell != nil {
		ctx, cancel := context.WithTimeout(ctx, tellTimeout)
		defer cancel()
		err = h.Tell(ctx, api.HookRequest{Name: c.Name, UUID: rec.UUID, Operation: c.Operation, Reason: c.Extra})
	}
	if err == nil {
		return nil
	}
	h.Log.Info("the agent does not answer, it is done without it", "instance", c.Name, "error", err)
	if err := h.Detach(api.Ref{Project: rec.Project, Name: rec.Name}, rec.UUID); err != nil {
		return fmt.Errorf("cleaning up after %q: %w", c.Name, err)
	}
	return nil
}

// find gives the record of the domain; by its name where the UUID is not known.
func find(records record.Dir, name, uuid string) (api.Record, bool) {
	all, _ := records.List() // a damaged record hides no other
	i := slices.IndexFunc(all, func(r api.Record) bool {
		return r.Name == name && r.UUID != "" && (r.UUID == uuid || uuid == "")
	})
	if i < 0 {
		return api.Record{}, false
	}
	return all[i], true
}

// Ending is what is known of the host when an instance ends.
type Ending struct {
	Cleaner cleanup.Cleaner
	// Draining: the host is being shut down, and what runs is to run again.
	Draining func() bool
}

// Owe notes what is owed to an instance that has ended. What is noted already
// stays: whoever ended it said what is to become of it.
func (e Ending) Owe(ref api.Ref, uuid string) (cleanup.Note, error) {
	if n, owed, err := e.Cleaner.Owed(ref); err == nil && owed && n.UUID == uuid {
		return n, nil
	}
	n := cleanup.Note{Project: ref.Project, Name: ref.Name, UUID: uuid, PowerState: "stopped", Since: e.Cleaner.Now().UTC()}
	if e.Draining() {
		n.PowerState = "" // as the shutdown noted it
	}
	return n, e.Cleaner.Owe(n)
}

const (
	// goneWait is for the process to end: libvirt takes it for ended before.
	goneWait = 30 * time.Second
	goneLook = 50 * time.Millisecond
)

// Clean does what is owed once the process is gone. What it cannot do stays
// noted, for the agent.
func (e Ending) Clean(ctx context.Context, n cleanup.Note) error {
	ctx, cancel := context.WithTimeout(ctx, goneWait)
	defer cancel()
	for {
		err := e.Cleaner.Clean(ctx, n)
		if !errors.Is(err, cleanup.ErrRuns) {
			return err
		}
		timer := time.NewTimer(goneLook)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			// It runs: it was started again, and is owed nothing.
			return e.Cleaner.Forget(n.Ref())
		}
	}
}
