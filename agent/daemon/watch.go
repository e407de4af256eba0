package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/wherry-kvm/wherry/agent/metrics"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

// publishEvents passes libvirt's events on to the agent's readers. changed is
// told of each: what an instance stands on may be something else from then on.
func (d *daemon) publishEvents(ctx context.Context, changed func()) {
	for e := range d.hv.Subscribe(ctx) {
		changed()
		switch e.Kind {
		case "lifecycle":
			d.ops.Publish(api.Event{Kind: "instance", At: e.At.UTC(), Project: d.project(e.Name), Instance: e.Name, Detail: told(e)})
		case "connection":
			d.ops.Publish(api.Event{Kind: "host", At: e.At.UTC(), Detail: "libvirt: " + e.Detail})
		}
	}
}

// told is what happened and why. The reason alone would not do: "migrated" is
// why an instance stopped on one host and why it started on the other.
func told(e hypervisor.Event) string {
	if e.Detail == "" {
		return e.Action
	}
	return e.Action + ": " + e.Detail
}

func (d *daemon) project(name string) string {
	records, _ := d.records.List() // a damaged record only costs the project's name
	for _, r := range records {
		if r.Name == name {
			return r.Project
		}
	}
	return api.DefaultProject
}

// stats gives the metrics libvirt's counters, read in bulk.
type stats struct {
	hv      *hypervisor.Client
	records record.Dir
}

func (s stats) Up() bool { return s.hv.Up() }

func (s stats) Stats(ctx context.Context) ([]metrics.Stat, error) {
	all, err := s.hv.Stats(ctx)
	if err != nil {
		return nil, err
	}
	projects := map[string]string{}
	records, _ := s.records.List()
	for _, r := range records {
		projects[r.UUID] = r.Project
	}
	out := make([]metrics.Stat, 0, len(all))
	for _, h := range all {
		m := metrics.Stat{Project: projects[h.UUID], Name: h.Name, UUID: h.UUID, State: string(h.State),
			CPU: time.Duration(h.CPUTime), VCPUs: h.VCPUs, Memory: h.MemoryCurrent, MemoryMax: h.MemoryMax,
			MemoryResident: h.RSS, MemoryUnused: h.MemoryUnused}
		if m.Project == "" {
			m.Project = api.DefaultProject
		}
		for _, b := range h.Block {
			m.Block = append(m.Block, metrics.BlockStat{Target: b.Target, ReadBytes: b.RdBytes, WriteBytes: b.WrBytes,
				ReadRequests: b.RdReqs, WriteRequests: b.WrReqs, FlushRequests: b.FlushReqs,
				ReadTime: time.Duration(b.RdTime), WriteTime: time.Duration(b.WrTime),
				Capacity: b.Capacity, Allocation: b.Allocation, Physical: b.Physical})
		}
		for _, n := range h.Net {
			m.Net = append(m.Net, metrics.NetStat{Device: n.Device,
				ReceiveBytes: n.RxBytes, ReceivePackets: n.RxPackets, ReceiveErrors: n.RxErrors, ReceiveDrops: n.RxDrop,
				TransmitBytes: n.TxBytes, TransmitPackets: n.TxPackets, TransmitErrors: n.TxErrors, TransmitDrops: n.TxDrop})
		}
		out = append(out, m)
	}
	return out, nil
}

// warmer reads the digests of ready templates ahead of the first migration
// that asks for them.
type warmer struct {
	digester *volume.Digester
	log      *slog.Logger
	paths    chan string
}

func newWarmer(d *volume.Digester, log *slog.Logger) *warmer {
	return &warmer{digester: d, log: log, paths: make(chan string, 64)}
}

// template notes a template's ready copies. It never blocks: what does not fit
// is read when it is asked for.
func (w *warmer) template(t template.Template) {
	for _, c := range t.Copies {
		if c.State != template.StateReady {
			continue
		}
		select {
		case w.paths <- c.Path:
		default:
		}
	}
}

func (w *warmer) all(ts []template.Template) {
	for _, t := range ts {
		w.template(t)
	}
}

func (w *warmer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case path := <-w.paths:
			if _, err := w.digester.Digest(ctx, path); err != nil && ctx.Err() == nil {
				w.log.Warn("reading a template's digest", "path", path, "error", err)
			}
		}
	}
}
