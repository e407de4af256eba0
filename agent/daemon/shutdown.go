package daemon

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/agent/boot"
	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/drain"
	"github.com/wherry-kvm/wherry/agent/hook"
	"github.com/wherry-kvm/wherry/agent/instance"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/rebuild"
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
	return drain.New(drain.Options{Operations: d.ops, Place: d.place(), Log: log, Back: []operation.Claim{operation.ClaimRestart, rebuild.Kind}, Runner: shutdown.Runner{
		Libvirt: d.hv, Ladder: shutdown.HostLadder{Client: d.hv, Log: log}, Cleaner: d.cleaner(s), Records: d.records,
		Processes: process.Finder{}.All, Log: log}})
}

func (d *daemon) listener(ctx context.Context, s *services) *hook.Listener {
	toRun := func(end hook.End) bool { return s.drain.Draining() || boot.Owes(d.place(), end.UUID, end.At) }
	return &hook.Listener{Ending: hook.Ending{Cleaner: d.cleaner(s), ToRun: toRun, Since: process.Finder{}.Since}, Records: d.records,
		Operation: func(ref api.Ref) string {
			if k := d.ops.LockOf(ref); k != nil && k.Operation != "" {
				return k.Kind
			}
			return ""
		},
		Migration: migrate.Kind, Lock: d.ops.Lock, Log: d.log.With("part", "hook"), Work: ctx}
}

// hear cleans up after instances that end by themselves, by libvirt's events:
// its hook may not be installed, or libvirt not have been started since. It
// notes those that somebody else starts.
func (d *daemon) hear(ctx context.Context, l *hook.Listener) {
	for e := range d.hv.Subscribe(ctx) {
		if e.Kind == hypervisor.KindLifecycle && e.Action == "stopped" {
			r := api.HookRequest{Name: e.Name, UUID: e.UUID, Operation: "release", Reason: e.Detail}
			if up, err := process.Uptime(); err == nil {
				r.Called = api.Duration(max(up-time.Since(e.At), 0))
			}
			_ = l.Ended(ctx, r) // never fails
		}
		// One that arrives runs where it comes from, as yet.
		if e.Kind == hypervisor.KindLifecycle && e.Action == "started" && e.Detail != "migrated" {
			l.Began(e.Name, e.UUID)
		}
	}
	l.Wait()
}

// connectors are the configured connectors of targets.
func connectors(c config.Config) agenttarget.Connectors {
	return agenttarget.Connectors{FileFolders: c.Targets.FileFolders, ISCSITimeout: c.ISCSI.Timeout,
		PowerFlexRoot: c.PowerFlex.Root, PowerFlexRescan: c.PowerFlex.Rescan, PowerFlexTimeout: c.PowerFlex.Timeout}
}
