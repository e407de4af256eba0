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
	"sync"
	"time"

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
	Records record.Dir
	// Domains lists what libvirt has; it fails while that is away.
	Domains func(ctx context.Context) ([]hypervisor.Domain, error)
	// Start starts one instance and returns when that is done.
	Start func(ctx context.Context, ref api.Ref) error
	// Tell hears of every attempt; nil = it worked. Last: there is none after it.
	Tell func(a Again, err error, last bool)
	// BootID is the kernel's.
	BootID func() (string, error)
	Log    *slog.Logger
}

const (
	// parallel is how many are started at once: all of them read from the same
	// storage then.
	parallel = 4
	// attempts, with a pause that doubles in between: storage may come up after
	// the host.
	attempts   = 6
	firstPause = 2 * time.Second
	look       = time.Second // at a libvirt that is away

	bootName = "boot-id"
)

// Run starts again what ran, where the host was down, and returns when the
// last attempt was made. The note of the shutdown is taken up at once: the host
// takes instances again. Those of the next priority begin when each of those
// before them was tried once. What it has done is not done again by a later
// start of the agent; what it did not live to do is.
func Run(ctx context.Context, o Options) error {
	boot, err := o.BootID()
	if err != nil {
		return fmt.Errorf("the run of the kernel cannot be told: %w", err)
	}
	facts, err := o.gather(ctx, boot)
	if err != nil {
		return err
	}
	groups := Decide(facts)
	if !o.Enabled && len(groups) > 0 {
		o.Log.Info("instances ran when the host went down, and are not started again: host.start_again is false", "groups", groups)
		groups = nil
	}
	var later sync.WaitGroup
	for _, g := range groups {
		o.start(ctx, g, &later)
	}
	later.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
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
	if !f.Rebooted && f.Marker == nil {
		return f, nil
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

// start tries each of a group once, and has those that failed tried again
// beside what follows.
func (o Options) start(ctx context.Context, g []Again, later *sync.WaitGroup) {
	slots := make(chan struct{}, parallel)
	var first sync.WaitGroup
	for _, a := range g {
		first.Go(func() {
			slots <- struct{}{}
			err := o.try(ctx, a, false)
			<-slots
			if err != nil {
				later.Go(func() { o.again(ctx, a) })
			}
		})
	}
	first.Wait()
}

func (o Options) again(ctx context.Context, a Again) {
	wait := firstPause
	for n := 2; n <= attempts; n++ {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if o.try(ctx, a, n == attempts) == nil {
			return
		}
		wait *= 2
	}
}

func (o Options) try(ctx context.Context, a Again, last bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := o.Start(ctx, a.Ref())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o.Tell(a, err, last || err == nil)
	return err
}
