package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

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
	Detach func(end End) error
	// Called is when libvirt called, as the time since the host was booted: it
	// tells this end from a later one.
	Called time.Duration
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
		err = h.Tell(ctx, api.HookRequest{Name: c.Name, UUID: rec.UUID, Operation: c.Operation, Reason: c.Extra, Called: api.Duration(h.Called)})
	}
	if err == nil {
		return nil
	}
	h.Log.Info("the agent does not answer, it is done without it", "instance", c.Name, "error", err)
	end := End{Ref: api.Ref{Project: rec.Project, Name: rec.Name}, UUID: rec.UUID, At: h.Called}
	if err := h.Detach(end); err != nil {
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
