package metrics

import (
	"cmp"
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The defaults of CollectorOptions.
const (
	gatherEvery   = 10 * time.Second
	gatherTimeout = 8 * time.Second
)

// CollectorOptions are the collector's dependencies; the zero value is fit for
// an agent, except that it logs nowhere.
type CollectorOptions struct {
	Ticks   <-chan time.Time // when to gather, after the first time; nil = every 10 s
	Timeout time.Duration    // of one gathering
	Now     func() time.Time
	Log     *slog.Logger
}

// Collector gathers the counters of all instances now and then, and shows the
// last good ones to every scrape, with their age.
type Collector struct {
	source  Source
	options CollectorOptions
	last    atomic.Pointer[gathering]
	errors  prometheus.Counter
}

// gathering is what was read at one time. It is not changed any more.
type gathering struct {
	at    time.Time
	stats []Stat
}

// Collector registers a collector of the source's instances. Nothing is
// gathered before its Run. Call it once.
func (m *Metrics) Collector(source Source, o CollectorOptions) *Collector {
	o.Timeout = cmp.Or(o.Timeout, gatherTimeout)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Collector{source: source, options: o, errors: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: namespace, Name: "instance_stats_errors_total", Help: "Times that the counters of the instances could not be gathered.",
	})}
	m.registry.MustRegister(c, c.errors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "libvirt_up", Help: "Whether the agent is connected to libvirt.",
	}, func() float64 {
		if source.Up() {
			return 1
		}
		return 0
	}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "libvirt_handles", Help: "Objects of libvirt, connections included, that the agent has not freed. A few connections stay.",
	}, func() float64 { return float64(source.Handles()) }))
	return c
}

// Run gathers at once and then at every tick, until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	ticks := c.options.Ticks
	if ticks == nil {
		ticker := time.NewTicker(gatherEvery)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		c.gather(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
	}
}

// gather replaces the last values, or leaves them as they are.
func (c *Collector) gather(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	stats, err := c.source.Stats(bounded)
	if err != nil {
		if ctx.Err() == nil {
			c.errors.Inc()
			c.options.Log.Warn("the counters of the instances could not be gathered", "error", err)
		}
		return
	}
	c.last.Store(&gathering{c.options.Now(), stats})
}
