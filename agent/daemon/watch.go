package daemon

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/agent/metrics"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
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

func (s stats) Handles() int64 { return s.hv.Handles() }

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
