package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/budget"
	"github.com/wherry-kvm/wherry/agent/chains"
	"github.com/wherry-kvm/wherry/agent/drain"
	"github.com/wherry-kvm/wherry/agent/hook"
	"github.com/wherry-kvm/wherry/agent/host"
	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/instance"
	"github.com/wherry-kvm/wherry/agent/metrics"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/agent/queue"
	"github.com/wherry-kvm/wherry/agent/rebuild"
	agenttarget "github.com/wherry-kvm/wherry/agent/target"
	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/process"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/intake"
	"github.com/wherry-kvm/wherry/template/source"
)

// services are the agent's answers to its callers.
type services struct {
	host       *host.Service
	budget     *budget.Kept // of migrations from this host
	instances  *instance.Service
	migrations *migrate.Service
	rebuilds   *rebuild.Service
	incoming   *incoming.Service
	templates  *templates.Service
	targets    *agenttarget.Service
	events     *templates.Events
	chains     *chains.Reader
	drain      *drain.Service
	listener   *hook.Listener
}

func (d *daemon) services(ctx context.Context) (*services, error) {
	c, now := d.config, time.Now
	s := &services{events: &templates.Events{Publish: d.ops.Publish, Counter: d.metrics}}
	identities := map[string]string{}
	for _, p := range c.Pools {
		identities[p.Name] = p.Identity
	}
	s.host = &host.Service{Hypervisor: d.hv, Version: d.version, Name: c.Host.Name, Identities: identities}
	s.targets = connectors(c).Service(d.runner, d.hv)
	s.drain = d.drain(s)
	s.host.Draining = s.drain.Draining
	s.chains = d.chains(s)
	siblings := d.siblings()
	registry, err := d.registry(s, siblings)
	if err != nil {
		return nil, err
	}
	// What the registry has read need not be read again, by no one.
	d.digester.Vouched(registry.Vouch)
	s.events.Known(registry.List())
	refs := templates.NewRefs(templates.RefsOptions{Registry: registry, Chains: s.chains, Records: d.records,
		Publish: d.ops.Publish, Log: d.log.With("part", "template")})
	s.templates = templates.New(templates.Service{Registry: registry, Operations: d.ops, Refs: refs, Peers: siblings,
		Log: d.log.With("part", "template")})
	d.metrics.Templates(func() metrics.TemplateState { return templateState(s.templates) })
	inspector := &inspect.Service{Hypervisor: d.hv, Templates: s.templates, Records: d.records}
	s.instances = instance.New(instance.Options{Hypervisor: d.hv, Power: gatedPower{d.hv, s.drain.Refuse}, Inspector: inspector, Host: s.host, Templates: s.templates, Chains: s.chains,
		Ladder: power.New(d.hv, d.log.With("part", "power")), Cleaner: d.cleaner(s),
		Targets: s.targets, Observer: d.metrics, Records: d.records, Operations: d.ops, Runner: d.runner,
		Log: d.log.With("part", "instance"), Now: now, DefaultPool: c.Templates.Pool, Refuse: s.drain.Refuse})
	line := queue.New(c.Migration.MaxOutgoing)
	if s.budget, err = budget.Open(d.store, c.Migration.HostBandwidth); err != nil {
		d.log.Error("the bandwidth of migrations is as configured, whatever was set", "error", err)
	}
	s.migrations = migrate.New(migrate.Options{Hypervisor: d.hv, Mover: d.hv, Power: d.hv, Inspector: inspector, Host: s.host, Templates: s.templates,
		Targets: s.targets, Records: d.records, Digester: d.digester, Operations: d.ops, Line: line, Budget: s.budget.Budget, Runs: process.Finder{}.Runs, Events: d.hv.Subscribe, Guards: d.guards(), Dial: d.peers.migration, Observer: d.metrics,
		Log: d.log.With("part", "migrate"), Now: now, SelfURL: d.selfURL(), TLS: c.Migration.TLS, Timeout: c.Migration.Timeout,
		StallTimeout: c.Migration.StallTimeout, MaxDowntime: c.Migration.MaxDowntime, Patience: c.Migration.Patience, LastPatience: c.Migration.LastPatience, Bandwidth: c.Migration.Bandwidth, Lease: c.Migration.Lease, DecisionTimeout: c.Migration.DecisionTimeout})
	s.rebuilds = rebuild.New(rebuild.Options{Hypervisor: d.hv, Definer: d.hv, Power: s.instances, Templates: s.templates, Bases: s.templates,
		Chains: s.chains, Digester: d.digester, Host: s.host, Volumes: rebuild.Files{Runner: d.runner}, Records: d.records,
		Operations: d.ops, Refuse: s.drain.Refuse, Log: d.log.With("part", "rebuild"), Now: now})
	s.incoming, err = incoming.New(ctx, incoming.Options{Hypervisor: d.hv, Host: s.host, Templates: s.templates, Targets: s.targets, Power: d.hv, Runs: process.Finder{}.Runs,
		Store: d.store, Records: d.records, Digester: d.digester, Runner: d.runner, Log: d.log.With("part", "incoming"), Now: now,
		Busy: d.ops.Holder, LibvirtURI: c.Migration.LibvirtURI, Address: c.Migration.Address, Graphics: c.Migration.Address,
		AtOnce: c.Migration.MaxIncoming, Lease: c.Migration.Lease})
	if err != nil {
		return nil, err
	}
	d.metrics.Queued(func() map[string]int {
		return map[string]int{api.QueueOutgoing: line.Waiting(), api.QueueIncoming: s.incoming.Waiting()}
	})
	return s, nil
}

// siblings are the hosts that templates may come from.
func (d *daemon) siblings() *templates.Peers {
	return &templates.Peers{Self: d.selfURL(), Known: d.config.Peers, Dial: d.peers.template, Log: d.log.With("part", "template")}
}

// registry opens the templates of this host. Pools come from libvirt when they
// are needed: at the start it may not answer yet.
func (d *daemon) registry(s *services, siblings *templates.Peers) (*template.Registry, error) {
	c := d.config.Templates
	allow, err := addresses(c.AllowAddresses)
	if err != nil {
		return nil, err
	}
	authorities, err := authorities(c.CA)
	if err != nil {
		return nil, err
	}
	return template.Open(template.Options{
		Store: d.store, DefaultPool: c.Pool, MaxSize: c.MaxSize, Downloads: c.Downloads, Bandwidth: c.Bandwidth,
		Backoff: template.Backoff{First: c.RetryFirst, Max: c.RetryMax}, Stopping: operation.ErrShutdown,
		Peers: siblings.Origins, Log: d.log.With("part", "template"),
		Pools:   templatePools(s.host.Host, d.hv.Up),
		Fetcher: source.NewDownload(source.Options{IdleTimeout: c.IdleTimeout, AllowAddress: allow, Authorities: authorities, Files: c.FileFolders}),
		Intake:  intake.New(intake.Options{MaxVirtualSize: c.MaxVirtualSize}),
		// Bytes from peers are counted where they travel: holes are no bytes there.
		Received: func(from string, bytes int64) {
			if from == template.FromURL {
				d.metrics.DownloadBytes(bytes)
			}
		},
		Tending: template.Tending{
			Interval: c.CheckInterval, Keep: template.Keeping{UnusedAge: c.UnusedAge, MinFree: c.MinFree, AtLeast: c.KeepAtLeast},
			Chains:  func(ctx context.Context) (template.Chains, error) { return s.chains.ReadAll(ctx) },
			Checked: d.metrics.TemplateCheck, Collected: d.metrics.TemplateCollected,
		},
		Notify: s.events.Changed,
	})
}

// addresses allows public addresses and the configured networks.
func addresses(cidrs []string) (func(netip.Addr) bool, error) {
	var nets []netip.Prefix
	for _, s := range cidrs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("templates.allow_addresses: %w", err)
		}
		nets = append(nets, p)
	}
	return func(a netip.Addr) bool {
		a = a.WithZone("").Unmap()
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) }) || source.Public(a)
	}, nil
}

// selfURL is where peers reach this agent; "" when it does not listen.
func (d *daemon) selfURL() string {
	_, port, err := net.SplitHostPort(d.config.Listen.TCP)
	if err != nil || d.config.Host.Name == "" || !d.config.TLS.Configured() {
		return ""
	}
	return "https://" + net.JoinHostPort(d.config.Host.Name, port)
}
