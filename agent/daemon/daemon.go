package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/wherry-kvm/wherry/agent/boot"
	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/metrics"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

const (
	storeTimeout    = 5 * time.Second  // for the lock of the store's file
	shutdownTimeout = 20 * time.Second // for operations to leave at a stop
	sweepEvery      = 2 * time.Second  // looks at leases
)

// daemon is a running agent.
type daemon struct {
	config   config.Config
	version  string
	log      *slog.Logger
	hv       *hypervisor.Client
	store    *store.Bolt
	ops      *operation.Engine
	metrics  *metrics.Metrics
	records  record.Dir
	digester *volume.Digester
	runner   volume.Runner
	peers    *peers
	starts   *boot.Ledger // what has yet to be started again
	work     sync.WaitGroup
}

// Run runs the agent until ctx ends, and returns after an orderly stop.
// Migrations that are under way go on without it, and the next start adopts
// them.
func Run(ctx context.Context, c config.Config, version string, log *slog.Logger) error {
	d := &daemon{config: c, version: version, log: log, metrics: metrics.New(version),
		records: record.Dir(filepath.Join(c.StateDir, "records")), digester: volume.NewDigester(), runner: volume.Exec{}}
	d.peers = newPeers(c, log, d.metrics.SyncReceived)
	defer d.peers.close()
	if err := d.open(); err != nil {
		return err
	}
	defer func() {
		if err := d.store.Close(); err != nil {
			log.Error("closing the store", "error", err)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer d.work.Wait()
	defer cancel()
	d.hv = hypervisor.New(hypervisor.Options{URI: c.Hypervisor.URI, Log: log.With("part", "hypervisor")})
	d.work.Go(func() {
		if err := d.hv.Run(ctx); err != nil && ctx.Err() == nil {
			log.Error("the connection to libvirt ended", "error", err)
		}
	})
	defer func() {
		if err := d.hv.Close(); err != nil {
			log.Warn("closing libvirt", "error", err)
		}
	}()
	return d.serve(ctx)
}

func (d *daemon) open() error {
	if err := os.MkdirAll(d.config.StateDir, 0o700); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	path := filepath.Join(d.config.StateDir, "wherry.db")
	var err error
	if d.store, err = store.Open(path, storeTimeout); err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	d.ops, err = operation.Open(operation.Options{Store: d.store, Log: d.log.With("part", "operation"),
		Keep: d.config.Operations.Keep, OnLockWait: d.metrics.LockWait})
	if err != nil {
		return errors.Join(err, d.store.Close())
	}
	d.metrics.InFlight(d.ops.InFlight)
	d.metrics.Locks(d.locks, time.Now)
	return nil
}

// serve wires the services, opens the doors, and resumes what an earlier run
// left. Recovery begins after the doors are open: the peer may be recovering
// too, and asks.
func (d *daemon) serve(ctx context.Context) error {
	s, err := d.services(ctx)
	if err != nil {
		return err
	}
	defer s.incoming.Close()
	if d.starts, err = boot.OpenLedger(d.place()); err != nil {
		d.log.Error("some instances that ran before the host was down may not be started again", "error", err)
	}
	s.listener = d.listener(ctx, s)
	gate := gate{draining: s.drain.Refuse, arriving: s.incoming.Arriving, undecided: s.incoming.Unsettled, earlier: d.ops.Earlier}
	server, err := http.New(http.Options{
		Instances: s.instances, Actions: gatedActions{s.instances, gate, d.starts}, Migrations: gatedMigrations{s.migrations, gate}, Rebuilds: gatedRebuilds{s.rebuilds, gate},
		Incoming: gatedIncoming{s.incoming, s.drain.Refuse}, Operations: operations{d.ops, s.migrations, s.incoming}, Shutdowns: shutdowns{s.drain, s.listener, s.instances}, Leftovers: d.leftovers(s),
		Templates: s.templates, Targets: s.targets, Hosts: hosts{s.host, s.budget, time.Now, d.log}, Log: d.log.With("part", "http"),
		Share:   func(content string) http.Share { return s.budget.Stream(content) },
		Senders: d.config.Templates.Senders, Sent: d.metrics.SyncSent,
		Metrics: d.metrics.Handler(), Version: d.version, Observe: d.metrics.HTTP,
	})
	if err != nil {
		return err
	}
	if err := server.Listen(d.listeners()); err != nil {
		return err
	}
	defer func() {
		if err := server.Close(); err != nil {
			d.log.Warn("closing listeners", "error", err)
		}
	}()
	d.background(ctx, s)
	if err := d.ops.Resume(ctx); err != nil {
		return fmt.Errorf("resuming operations: %w", err)
	}
	notify(d.log, systemd.SdNotifyReady)
	d.log.Info("ready", "version", d.version, "socket", d.config.Listen.Socket, "tcp", d.config.Listen.TCP, "metrics", d.config.Listen.Metrics)
	err = server.Serve(ctx)
	notify(d.log, systemd.SdNotifyStopping)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if closeErr := d.ops.Close(end); closeErr != nil {
		d.log.Warn("operations did not leave in time; the next start recovers them", "error", closeErr)
	}
	return err
}

// background starts what runs beside the requests.
func (d *daemon) background(ctx context.Context, s *services) {
	collector := d.metrics.Collector(stats{d.hv, d.records}, metrics.CollectorOptions{Log: d.log.With("part", "metrics")})
	d.work.Go(func() { collector.Run(ctx) })
	d.work.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		s.incoming.Run(ctx, tick.C)
	})
	d.work.Go(func() { d.publishEvents(ctx, s.templates.Refs.Changed) })
	d.work.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		// A disagreement is told when it has lasted: instances come and go.
		s.templates.Refs.Run(ctx, tick.C, template.DefaultCollectInterval)
	})
	d.work.Go(func() { d.cleanUp(ctx, d.cleaner(s)) })
	d.work.Go(func() { d.hear(ctx, s.listener) })
	d.work.Go(func() { d.startAgain(ctx, s) })
	d.work.Go(func() { s.templates.Registry.Run(ctx) })
	d.work.Go(func() { s.templates.Registry.Tend(ctx) })
}

func (d *daemon) listeners() http.Listeners {
	c := d.config
	return http.Listeners{Socket: c.Listen.Socket, Address: c.Listen.TCP, Insecure: c.Listen.Insecure, Probes: c.Listen.Metrics,
		Files: files(c)}
}

// notify tells systemd; without systemd it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		log.Warn("telling systemd", "state", state, "error", err)
	}
}
