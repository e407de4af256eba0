package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/http/api"
)

// End is one end of one run of an instance.
type End struct {
	Ref  api.Ref
	UUID string
	// At is when it was told of, as the time since the host was booted: by a
	// clock that nobody sets, and that processes' starts are told by. 0 = not
	// known.
	At time.Duration
	// Moved: another host has it now.
	Moved bool
}

// Ending is what is known of the host when an instance ends.
type Ending struct {
	Cleaner cleanup.Cleaner
	// Since gives when the process of the instance was started, as the time
	// since the host was booted; false where it has none.
	Since func(name, uuid string) (time.Duration, bool, error)
	// ToRun tells whether what ended then is to run again: the host was being
	// shut down, or has yet to start again what ran before.
	ToRun func(End) bool
}

// Owed is what is owed after an end.
type Owed struct {
	cleanup.Note
	ours bool // nobody else has noted it
}

// Owe notes what is owed to an instance that has ended; false where nothing is,
// since it runs again. What is noted already stays: whoever ended it said what
// is to become of it.
func (e Ending) Owe(end End) (Owed, bool, error) {
	if e.runsAgain(end) {
		return Owed{}, false, nil
	}
	if n, owed, err := e.Cleaner.Owed(end.Ref); err == nil && owed && n.UUID == end.UUID {
		return Owed{Note: n}, true, nil
	}
	n := cleanup.Note{Project: end.Ref.Project, Name: end.Ref.Name, UUID: end.UUID, PowerState: "stopped", Since: e.Cleaner.Now().UTC().Round(0)}
	if !end.Moved && e.ToRun(end) {
		n.PowerState = "" // as the shutdown noted it
	}
	return Owed{n, true}, true, e.Cleaner.Owe(n)
}

// runsAgain: its process was started after the end that was told of. Libvirt's
// word may come late: from a hook that outlived libvirt, or to an agent that
// was not there. What is not known is left to those who clean up, who look
// whether there is a process at all.
func (e Ending) runsAgain(end End) bool {
	if end.At == 0 {
		return false
	}
	since, runs, err := e.Since(end.Ref.Name, end.UUID)
	return err == nil && runs && since > end.At
}

const (
	// goneWait is for the process to end: libvirt takes it for ended before.
	goneWait = 30 * time.Second
	goneLook = 50 * time.Millisecond
)

// Clean does what is owed after an end, beside an agent that may not be there
// or may come any moment; so it keeps the agent from starting the instance
// meanwhile. What it cannot do stays noted, for the agent.
func (e Ending) Clean(ctx context.Context, end End) error {
	ctx, cancel := context.WithTimeout(ctx, goneWait)
	defer cancel()
	release, err := e.Cleaner.Guard(ctx, end.Ref)
	if err != nil {
		return err // whoever has it starts the instance, or cleans up
	}
	defer release()
	o, owed, err := e.Owe(end)
	if err != nil || !owed {
		return err
	}
	tick := time.NewTicker(goneLook)
	defer tick.Stop()
	for {
		err := e.Cleaner.Clean(ctx, o.Note)
		if !errors.Is(err, cleanup.ErrRuns) {
			return err
		}
		if e.runsAgain(end) {
			return e.takeBack(o)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return e.takeBack(o) // likewise, as far as can be told
		}
	}
}

// takeBack forgets what was noted here, and nothing that others have.
func (e Ending) takeBack(o Owed) error {
	n, owed, err := e.Cleaner.Owed(o.Ref())
	if err != nil || !owed || !o.ours || !n.Since.Equal(o.Since) {
		return err
	}
	if err := e.Cleaner.Forget(o.Ref()); err != nil {
		return fmt.Errorf("%q runs again: %w", o.Ref(), err)
	}
	return nil
}
