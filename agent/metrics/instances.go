package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	statsAge = instanceDesc("stats_age_seconds", "Age of the counters of all instances: they are gathered now and then, not at a scrape.")

	instanceInfo  = instanceDesc("info", "Names of an instance; the value is always 1.", "uuid", "project", "name")
	instanceState = instanceDesc("state", "State of an instance: the series of its present state is 1, others do not exist.", "uuid", "state")

	cpuSeconds     = instanceDesc("cpu_seconds_total", "CPU time that an instance has used.", "uuid")
	vcpus          = instanceDesc("vcpus", "Virtual CPUs of an instance.", "uuid")
	memory         = instanceDesc("memory_bytes", "Memory that the guest has now.", "uuid")
	memoryMax      = instanceDesc("memory_max_bytes", "Memory that the guest may have.", "uuid")
	memoryResident = instanceDesc("memory_resident_bytes", "Memory that the process of the instance occupies.", "uuid")
	memoryUnused   = instanceDesc("memory_unused_bytes", "Memory that the guest does not use, as it says.", "uuid")

	blockReadBytes     = instanceDesc("block_read_bytes_total", "Bytes that an instance has read from a disk.", "uuid", "target")
	blockWriteBytes    = instanceDesc("block_write_bytes_total", "Bytes that an instance has written to a disk.", "uuid", "target")
	blockReadRequests  = instanceDesc("block_read_requests_total", "Reads of a disk.", "uuid", "target")
	blockWriteRequests = instanceDesc("block_write_requests_total", "Writes of a disk.", "uuid", "target")
	blockFlushRequests = instanceDesc("block_flush_requests_total", "Flushes of a disk.", "uuid", "target")
	blockReadSeconds   = instanceDesc("block_read_seconds_total", "Time that reads of a disk have taken.", "uuid", "target")
	blockWriteSeconds  = instanceDesc("block_write_seconds_total", "Time that writes of a disk have taken.", "uuid", "target")
	blockCapacity      = instanceDesc("block_capacity_bytes", "Size of a disk as the guest sees it.", "uuid", "target")
	blockAllocation    = instanceDesc("block_allocation_bytes", "Highest byte of a disk's volume that is in use.", "uuid", "target")
	blockPhysical      = instanceDesc("block_physical_bytes", "Size of a disk's volume on the host.", "uuid", "target")

	receiveBytes    = instanceDesc("network_receive_bytes_total", "Bytes that an instance has received.", "uuid", "device")
	receivePackets  = instanceDesc("network_receive_packets_total", "Packets that an instance has received.", "uuid", "device")
	receiveErrors   = instanceDesc("network_receive_errors_total", "Errors of an instance's receptions.", "uuid", "device")
	receiveDrops    = instanceDesc("network_receive_drops_total", "Packets dropped on the way to an instance.", "uuid", "device")
	transmitBytes   = instanceDesc("network_transmit_bytes_total", "Bytes that an instance has sent.", "uuid", "device")
	transmitPackets = instanceDesc("network_transmit_packets_total", "Packets that an instance has sent.", "uuid", "device")
	transmitErrors  = instanceDesc("network_transmit_errors_total", "Errors of an instance's transmissions.", "uuid", "device")
	transmitDrops   = instanceDesc("network_transmit_drops_total", "Packets dropped on the way from an instance.", "uuid", "device")
)

func instanceDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_instance_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		statsAge, instanceInfo, instanceState, cpuSeconds, vcpus, memory, memoryMax, memoryResident, memoryUnused,
		blockReadBytes, blockWriteBytes, blockReadRequests, blockWriteRequests, blockFlushRequests,
		blockReadSeconds, blockWriteSeconds, blockCapacity, blockAllocation, blockPhysical,
		receiveBytes, receivePackets, receiveErrors, receiveDrops, transmitBytes, transmitPackets, transmitErrors, transmitDrops,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	g := c.last.Load()
	if g == nil {
		return
	}
	e := emitter{out: out}
	e.gauge(statsAge, c.options.Now().Sub(g.at).Seconds())
	seen := map[string]bool{}
	for _, s := range g.stats {
		// A series told twice would fail the whole scrape.
		if seen[s.UUID] {
			continue
		}
		seen[s.UUID] = true
		e.instance(s)
	}
}

// emitter sends the series of one scrape.
type emitter struct{ out chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) counter(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.CounterValue, v, labels)
}

func (e emitter) send(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		// A domain's name may be any bytes, a label must be UTF-8.
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	e.out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}

// instance sends what is known: a counter that is not known now is left out,
// because a zero would look like a restart.
func (e emitter) instance(s Stat) {
	e.gauge(instanceInfo, 1, s.UUID, s.Project, s.Name)
	e.gauge(instanceState, 1, s.UUID, s.State)
	if s.VCPUs > 0 {
		e.counter(cpuSeconds, s.CPU.Seconds(), s.UUID)
		e.gauge(vcpus, float64(s.VCPUs), s.UUID)
	}
	for _, m := range []struct {
		desc  *prometheus.Desc
		bytes int64
	}{{memory, s.Memory}, {memoryMax, s.MemoryMax}, {memoryResident, s.MemoryResident}, {memoryUnused, s.MemoryUnused}} {
		if m.bytes > 0 {
			e.gauge(m.desc, float64(m.bytes), s.UUID)
		}
	}
	seen := map[string]bool{}
	for _, b := range s.Block {
		if !seen[b.Target] {
			seen[b.Target] = true
			e.block(b, s.UUID)
		}
	}
	clear(seen)
	for _, n := range s.Net {
		if !seen[n.Device] {
			seen[n.Device] = true
			e.network(n, s.UUID)
		}
	}
}

func (e emitter) block(b BlockStat, uuid string) {
	e.counter(blockReadBytes, float64(b.ReadBytes), uuid, b.Target)
	e.counter(blockWriteBytes, float64(b.WriteBytes), uuid, b.Target)
	e.counter(blockReadRequests, float64(b.ReadRequests), uuid, b.Target)
	e.counter(blockWriteRequests, float64(b.WriteRequests), uuid, b.Target)
	e.counter(blockFlushRequests, float64(b.FlushRequests), uuid, b.Target)
	e.counter(blockReadSeconds, b.ReadTime.Seconds(), uuid, b.Target)
	e.counter(blockWriteSeconds, b.WriteTime.Seconds(), uuid, b.Target)
	e.gauge(blockCapacity, float64(b.Capacity), uuid, b.Target)
	e.gauge(blockAllocation, float64(b.Allocation), uuid, b.Target)
	e.gauge(blockPhysical, float64(b.Physical), uuid, b.Target)
}

func (e emitter) network(n NetStat, uuid string) {
	e.counter(receiveBytes, float64(n.ReceiveBytes), uuid, n.Device)
	e.counter(receivePackets, float64(n.ReceivePackets), uuid, n.Device)
	e.counter(receiveErrors, float64(n.ReceiveErrors), uuid, n.Device)
	e.counter(receiveDrops, float64(n.ReceiveDrops), uuid, n.Device)
	e.counter(transmitBytes, float64(n.TransmitBytes), uuid, n.Device)
	e.counter(transmitPackets, float64(n.TransmitPackets), uuid, n.Device)
	e.counter(transmitErrors, float64(n.TransmitErrors), uuid, n.Device)
	e.counter(transmitDrops, float64(n.TransmitDrops), uuid, n.Device)
}
