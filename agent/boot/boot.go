package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/durable"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Options are the collaborators.
type Options struct {
	// Enabled: what ran is started again. Otherwise only notes are taken.
	Enabled bool
	Place   shutdown.Place
	Ledger  *Ledger
	Records record.Dir
	// Notes lists what is owed to instances that were stopped.
	Notes func() ([]cleanup.Note, error)
	// Domains lists what libvirt has; it fails while that is away.
	Domains func(ctx context.Context) ([]hypervisor.Domain, error)
	// Start starts one instance and returns when that is done. A problem
	// "precondition" means that it cannot be started before something else is
	// repaired, which is waited for.
	Start func(ctx context.Context, ref api.Ref) error
	// Repaired gives a channel that is closed when something was repaired that
	// instances wait for; nil = nobody tells.
	Repaired func() <-chan struct{}
	// Draining: the host is being shut down, and starts nothing. What is owed
	// then is for the next start of the host.
	Draining func() bool
	// Tell hears of every attempt; nil = it worked. Last: there is none after it.
	Tell func(a Again, err error, last bool)
	// BootID is the kernel's, and Uptime the time since it began.
	BootID func() (string, error)
	Uptime func() (time.Duration, error)
	Log    *slog.Logger
}

const (
	look = time.Second // at a libvirt that is away

	bootName = "boot-id"
)

// Run starts again what ran, where the host was down, and returns when the
// last attempt was made. The note of the shutdown is taken up at once: the host
// takes instances again. Those of the next priority begin when each of those
// before them was tried once. What is owed is on disk before: a later start of
// the agent does what this one did not live to do, and nothing twice.
func Run(ctx context.Context, o Options) error {
	if err := o.note(ctx); err != nil {
		return err
	}
	if !o.Enabled {
		return nil
	}
	return o.startAll(ctx)
}

// note puts into the ledger what is to be started, and takes out what is not
// any more.
func (o Options) note(ctx context.Context) error {
	boot, err := o.BootID()
	if err != nil {
		return fmt.Errorf("the run of the kernel cannot be told: %w", err)
	}
	up, err := o.Uptime()
	if err != nil {
		return err
	}
	facts, err := o.gather(ctx, boot)
	if err != nil {
		return err
	}
	found := Decide(facts)
	if !o.Enabled {
		if len(found) > 0 {
			o.Log.Info("instances ran when the host went down, and are not started again: host.start_again is false", "instances", found)
		}
		facts.Domains, found = nil, nil
	}
	err = o.Ledger.change(func(all []Entry) []Entry {
		return merge(all, found, facts.Domains, Entry{BootID: boot, Noted: up, Since: time.Now().UTC().Round(0)})
	})
	if err != nil {
		return err
	}
	// Only now: until the ledger has it, these tell that the host was down.
	if err := o.Place.Done(); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(o.Place.Dir, bootName), []byte(boot+"\n"))
}

// gather waits for libvirt as long as that takes: without it nothing can be
// started.
func (o Options) gather(ctx context.Context, boot string) (Facts, error) {
	f := Facts{}
	known, err := os.ReadFile(filepath.Join(o.Place.Dir, bootName))
	switch {
	case err == nil:
		f.Rebooted = strings.TrimSpace(string(known)) != boot
	case !errors.Is(err, fs.ErrNotExist):
		return f, err
	}
	m, marked, err := o.Place.Take()
	if err != nil {
		o.Log.Warn("what was noted of the shutdown cannot be read; the records tell what ran", "error", err)
	}
	if marked && err == nil {
		f.Marker = &m
		f.Rebooted = f.Rebooted || m.BootID != boot
	}
	if !f.Rebooted && f.Marker == nil && len(o.Ledger.All()) == 0 {
		return f, nil
	}
	if f.Stopped, err = o.stopped(); err != nil {
		o.Log.Warn("some notes of clean-ups cannot be read", "error", err)
	}
	if f.Records, err = o.Records.List(); err != nil {
		o.Log.Warn("some records cannot be read; their instances are not started again", "error", err)
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if f.Domains, err = o.Domains(ctx); err == nil {
			return f, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return f, context.Cause(ctx)
		}
	}
}

func (o Options) stopped() (map[string]bool, error) {
	out := map[string]bool{}
	notes, err := o.Notes()
	for _, n := range notes {
		out[n.UUID] = out[n.UUID] || n.PowerState == "stopped"
	}
	return out, err
}
