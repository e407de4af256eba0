package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/boot"
	"github.com/wherry-kvm/wherry/agent/drain"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/process"
	"github.com/wherry-kvm/wherry/template"
)

// shutdownLook is how often is looked whether a shutdown that an earlier run of
// the agent began is over.
const shutdownLook = 200 * time.Millisecond

// startAgain starts what ran when the host went down. Where the host still
// goes down, by this agent or by a command, that is for the next start.
func (d *daemon) startAgain(ctx context.Context, s *services) {
	tick := time.NewTicker(shutdownLook)
	defer tick.Stop()
	for d.ops.InFlight()[drain.Kind] > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	release, err := d.place().Hold()
	if errors.Is(err, shutdown.ErrHeld) || s.drain.Began() {
		return
	}
	if err == nil {
		release()
	}
	log := d.log.With("part", "boot")
	repaired := newBell()
	events, err := d.ops.Events(ctx, operation.LiveOnly)
	if err == nil {
		d.work.Go(func() { repaired.onReady(events) })
	}
	err = boot.Run(ctx, boot.Options{Enabled: d.config.Host.StartAgain, Place: d.place(), Ledger: d.starts, Records: d.records, Domains: d.hv.Domains,
		Notes: d.cleaner(s).Pending, Repaired: repaired.next, Draining: s.drain.Draining, BootID: shutdown.BootID, Uptime: process.Uptime, Log: log,
		Start: func(ctx context.Context, ref api.Ref) error { return d.startAndWait(ctx, s, ref) },
		Tell: func(a boot.Again, err error, last bool) {
			d.metrics.StartAgain(err == nil, last)
			detail := toldOfStart(err, last)
			log.Info("after the host was down", "instance", a.Ref().String(), "what", detail)
			d.ops.Publish(api.Event{Kind: "instance", Project: a.Project, Instance: a.Name, Detail: detail})
		}})
	if err != nil && ctx.Err() == nil {
		log.Error("starting again what ran before the host was down", "error", err)
	}
}

// toldOfStart is what became of a start after the host was down.
func toldOfStart(err error, last bool) string {
	switch {
	case err == nil:
		return "started again after the host was down"
	case last:
		return "could not be started again, and is not tried any more: " + err.Error()
	case api.CodeOf(err) == "precondition":
		return "is started again when what it stands on was repaired: " + err.Error()
	}
	return "could not be started again yet: " + err.Error()
}

// bell rings for all who wait.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBell() *bell { return &bell{ch: make(chan struct{})} }

// next gives what is closed when it rings next.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// onReady rings when a template's copy has become ready, until the events end.
func (b *bell) onReady(events <-chan api.Event) {
	for e := range events {
		if e.Template != nil && e.Template.State == template.StateReady {
			b.ring()
		}
	}
}

// startLook bounds one wait for a start, which is looked at again then.
const startLook = time.Minute

func (d *daemon) startAndWait(ctx context.Context, s *services, ref api.Ref) error {
	op, err := s.instances.Start(ctx, ref, api.Idempotency{})
	for err == nil && !op.Ended() && ctx.Err() == nil {
		op, err = d.ops.Wait(ctx, op.ID, startLook)
	}
	switch {
	case err != nil:
		return err
	case op.Error != nil:
		return op.Error
	}
	return context.Cause(ctx)
}
