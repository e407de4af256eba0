package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/wherry-kvm/wherry/agent/boot"
	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/drain"
	"github.com/wherry-kvm/wherry/agent/hook"
	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/agent/instance"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	agenttarget "github.com/wherry-kvm/wherry/agent/target"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// shutdowns are the agent's answers about the host's end.
type shutdowns struct {
	*drain.Service
	*hook.Listener
	instances *instance.Service
}

// Policy sets how an instance goes down with the host.
func (s shutdowns) Policy(ctx context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error) {
	return s.instances.Policy(ctx, ref, p)
}

func (d *daemon) place() shutdown.Place { return shutdown.Place{Dir: d.config.StateDir} }

func (d *daemon) drain(s *services) *drain.Service {
	log := d.log.With("part", "shutdown")
	return drain.New(drain.Options{Operations: d.ops, Place: d.place(), Log: log, Runner: shutdown.Runner{
		Libvirt: d.hv, Ladder: shutdown.HostLadder{Client: d.hv, Log: log}, Cleaner: d.cleaner(s), Records: d.records,
		Processes: process.Finder{}.All, Log: log}})
}

func (d *daemon) listener(ctx context.Context, s *services) *hook.Listener {
	return &hook.Listener{Ending: hook.Ending{Cleaner: d.cleaner(s), Draining: s.drain.Draining}, Records: d.records,
		Operation: func(ref api.Ref) string {
			if k := d.ops.LockOf(ref); k != nil && k.Operation != "" {
				return k.Kind
			}
			return ""
		},
		Migration: migrate.Kind, Lock: d.ops.Lock, Log: d.log.With("part", "hook"), Work: ctx}
}

// hear cleans up after instances that end by themselves, by libvirt's events:
// its hook may not be installed, or libvirt not have been started since.
func (d *daemon) hear(ctx context.Context, l *hook.Listener) {
	for e := range d.hv.Subscribe(ctx) {
		if e.Kind == hypervisor.KindLifecycle && e.Action == "stopped" {
			_ = l.Ended(ctx, api.HookRequest{Name: e.Name, UUID: e.UUID, Operation: "release", Reason: e.Detail}) // never fails
		}
	}
	l.Wait()
}

// gatedPower starts nothing while the host is draining, whatever operation
// wants it: one that began before may come to its start now.
type gatedPower struct {
	*hypervisor.Client
	refuse func() error
}

// Start refuses while the host is draining.
func (g gatedPower) Start(ctx context.Context, name string, paused bool) error {
	if err := g.refuse(); err != nil {
		return err
	}
	return g.Client.Start(ctx, name, paused)
}

// gatedActions refuses at once what would be refused later.
type gatedActions struct {
	*instance.Service
	refuse func() error
}

func (g gatedActions) Create(ctx context.Context, project string, r api.CreateRequest, k api.Idempotency) (api.Operation, error) {
	if err := g.refuse(); err != nil {
		return api.Operation{}, err
	}
	return g.Service.Create(ctx, project, r, k)
}

func (g gatedActions) Start(ctx context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error) {
	if err := g.refuse(); err != nil {
		return api.Operation{}, err
	}
	return g.Service.Start(ctx, ref, k)
}

func (g gatedActions) Restart(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	if err := g.refuse(); err != nil {
		return api.Operation{}, err
	}
	return g.Service.Restart(ctx, ref, r, k)
}

// gatedMigrations: what leaves may not be there in time.
type gatedMigrations struct {
	*migrate.Service
	refuse func() error
}

func (g gatedMigrations) Migrate(ctx context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error) {
	if err := g.refuse(); err != nil {
		return api.Operation{}, err
	}
	return g.Service.Migrate(ctx, ref, r, k)
}

// gatedIncoming takes no instance in. What was reserved before goes on: its
// source finds out when it is given back.
type gatedIncoming struct {
	*incoming.Service
	refuse func() error
}

func (g gatedIncoming) Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error) {
	if err := g.refuse(); err != nil {
		return api.Incoming{}, err
	}
	return g.Service.Reserve(ctx, r)
}

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
	err = boot.Run(ctx, boot.Options{Enabled: d.config.Host.StartAgain, Place: d.place(), Records: d.records, Domains: d.hv.Domains,
		BootID: shutdown.BootID, Log: log,
		Start: func(ctx context.Context, ref api.Ref) error { return d.startAndWait(ctx, s, ref) },
		Tell: func(a boot.Again, err error, last bool) {
			d.metrics.StartAgain(err == nil, last)
			detail := "started again after the host was down"
			switch {
			case err != nil && last:
				detail = "could not be started again, and is not tried any more: " + err.Error()
			case err != nil:
				detail = "could not be started again yet: " + err.Error()
			}
			log.Info("after the host was down", "instance", a.Ref().String(), "what", detail)
			d.ops.Publish(api.Event{Kind: "instance", Project: a.Project, Instance: a.Name, Detail: detail})
		}})
	if err != nil && ctx.Err() == nil {
		log.Error("starting again what ran before the host was down", "error", err)
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

// connectors are the configured connectors of targets.
func connectors(c config.Config) agenttarget.Connectors {
	return agenttarget.Connectors{FileFolders: c.Targets.FileFolders, ISCSITimeout: c.ISCSI.Timeout,
		PowerFlexRoot: c.PowerFlex.Root, PowerFlexRescan: c.PowerFlex.Rescan, PowerFlexTimeout: c.PowerFlex.Timeout}
}
