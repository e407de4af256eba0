// Package offline shuts a host down without its agent: from libvirt, or the
// processes, and the records, within the process that asks. It is for an agent
// that is dead, hangs or cannot open its store, and for a host on which nothing
// but itself can be reached.
package offline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/agent/target"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
	"github.com/wherry-kvm/wherry/volume"
)

// Options say where things are on this host.
type Options struct {
	StateDir   string
	URI        string // of libvirt
	Connectors target.Connectors
	Log        *slog.Logger
	// Tell hears of every change; nil = nobody.
	Tell func(api.ShutdownResult)
	// Patience is for somebody else who shuts the host down already; 0 = a minute
	// longer than that one's own deadline.
	Patience time.Duration
}

const (
	joinLook  = 200 * time.Millisecond
	joinGrace = time.Minute
	// hungAgent is how long an agent that answers nobody is waited for although
	// it holds the shutdown: it may hang, and so hold it for ever.
	hungAgent = 10 * time.Second
)

// Shutdown stops every instance of this host within the timeout, 0 = as long
// as they ask for, or joins whoever does already.
func Shutdown(ctx context.Context, o Options, timeout time.Duration) (api.ShutdownResult, error) {
	place := shutdown.Place{Dir: o.StateDir}
	release, result, err := o.hold(ctx, place)
	if err != nil || result != nil {
		if result == nil {
			result = &api.ShutdownResult{}
		}
		return *result, err
	}
	defer release()
	client := hypervisor.New(hypervisor.Options{URI: o.URI, Log: o.Log})
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := client.Run(running); err != nil {
			o.Log.Error("libvirt cannot be spoken to", "error", err)
		}
	}()
	records := record.Dir(filepath.Join(o.StateDir, "records"))
	runner := shutdown.Runner{
		By: "command", Libvirt: client, Ladder: shutdown.HostLadder{Client: client, Log: o.Log}, Records: records, Place: place,
		Processes: process.Finder{}.All, Tell: o.Tell, Log: o.Log,
		Cleaner: cleanup.Cleaner{Dir: filepath.Join(o.StateDir, "cleanup"), Records: records, Runs: process.Finder{}.Runs, Log: o.Log, Now: time.Now,
			Targets: o.Connectors.Service(volume.Exec{}, client)},
	}
	out := runner.Run(ctx, timeout)
	if ctx.Err() != nil {
		// Called off: the host stays up.
		return out, errors.Join(context.Cause(ctx), place.Remove())
	}
	return out, nil
}

// hold takes the place. Where somebody has it, it waits for that one, and gives
// what came of it. One that does not let go in its time is not waited for any
// longer: asking a guest twice does no harm, leaving it up may.
func (o Options) hold(ctx context.Context, place shutdown.Place) (release func(), joined *api.ShutdownResult, err error) {
	tick := time.NewTicker(joinLook)
	defer tick.Stop()
	var since time.Time
	for {
		release, err := place.Hold()
		switch {
		case err == nil:
			if m, marked, readErr := place.Read(); readErr == nil && marked && m.Result != nil && !since.IsZero() {
				release()
				return nil, m.Result, nil
			}
			return release, nil, nil
		case !errors.Is(err, shutdown.ErrHeld):
			o.Log.Warn("whether somebody else shuts the host down cannot be told", "error", err)
			return func() {}, nil, nil
		}
		if since.IsZero() {
			since = time.Now()
			o.Log.Info("a shutdown is under way already; waiting for it")
		}
		if o.late(place, time.Since(since)) {
			o.Log.Warn("who shuts the host down hangs; going on without")
			return func() {}, nil, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("waiting for the shutdown that is under way: %w", context.Cause(ctx))
		}
	}
}

// late tells whether whoever has the place has had it for too long. Its
// deadline is by a clock that somebody may have set since.
func (o Options) late(place shutdown.Place, waited time.Duration) bool {
	if o.Patience > 0 {
		return waited > o.Patience
	}
	m, marked, err := place.Read()
	if err != nil || !marked || m.By == "agent" {
		return waited > hungAgent
	}
	// A deadline that is over may be that of an earlier shutdown.
	over := waited > hungAgent && time.Until(m.Deadline)+joinGrace < 0
	return over || waited > m.Deadline.Sub(m.Began)+joinGrace
}
