package daemon

import (
	"context"
	"path/filepath"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/metrics"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// cleanUpEvery is how often what is owed to instances is tried again.
const cleanUpEvery = time.Minute

func (d *daemon) cleaner(s *services) cleanup.Cleaner {
	return cleanup.Cleaner{Dir: filepath.Join(d.config.StateDir, "cleanup"), Records: d.records, Targets: s.targets,
		Runs: process.Finder{}.Runs, Log: d.log.With("part", "cleanup"), Now: time.Now}
}

// cleanUp does what is owed to instances: what earlier runs of the agent left,
// and what could not be done at once.
func (d *daemon) cleanUp(ctx context.Context, c cleanup.Cleaner) {
	tick := time.NewTicker(cleanUpEvery)
	defer tick.Stop()
	c.Run(ctx, d.ops.Lock, occasions(ctx, tick.C, d.hv.Subscribe(ctx)))
}

// occasions are when something that failed is worth another try: now and then,
// and as soon as libvirt is there, which is part of what may be owed. Those
// that come while nobody listens are one.
func occasions(ctx context.Context, tick <-chan time.Time, events <-chan hypervisor.Event) <-chan time.Time {
	out := make(chan time.Time, 1)
	tell := func(at time.Time) {
		select {
		case out <- at:
		default:
		}
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case at := <-tick:
				tell(at)
			case e, ok := <-events:
				switch {
				case !ok:
					events = nil
				case e.Kind == hypervisor.KindConnection && e.Detail == "up":
					tell(e.At)
				}
			}
		}
	}()
	return out
}

// locks gives the metrics the locks of instances.
func (d *daemon) locks() []metrics.Lock {
	var out []metrics.Lock
	for _, k := range d.ops.Locks() {
		out = append(out, metrics.Lock{Kind: k.Kind, Since: k.Since, Waiters: len(k.Waiters)})
	}
	return out
}
