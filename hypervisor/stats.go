package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Stats are the running counters of one domain. An arriving or stopped domain
// has only its name and state.
type Stats struct {
	Name, UUID    string
	State         State
	Reason        string
	CPUTime       uint64 // nanoseconds
	VCPUs         int
	MemoryCurrent int64 // bytes, balloon
	MemoryMax     int64 // bytes
	RSS           int64 // bytes of the QEMU process
	MemoryUnused  int64 // bytes the guest does not use; 0 when it does not say
	Block         []BlockStats
	Net           []NetStats
}

// BlockStats are one disk's counters; bytes, requests, nanoseconds.
type BlockStats struct {
	Target           string
	Path             string
	RdBytes, WrBytes uint64
	RdReqs, WrReqs   uint64
	RdTime, WrTime   uint64
	FlushReqs        uint64
	Allocation       uint64 // highest byte in use, for a block device
	Capacity         uint64
	Physical         uint64
}

// NetStats are one interface's counters.
type NetStats struct {
	Device                               string
	RxBytes, RxPackets, RxErrors, RxDrop uint64
	TxBytes, TxPackets, TxErrors, TxDrop uint64
}

const statsTypes = libvirt.DOMAIN_STATS_STATE | libvirt.DOMAIN_STATS_CPU_TOTAL | libvirt.DOMAIN_STATS_BALLOON |
	libvirt.DOMAIN_STATS_VCPU | libvirt.DOMAIN_STATS_INTERFACE | libvirt.DOMAIN_STATS_BLOCK

// Stats reads the counters of all domains in two bulk calls on a connection of
// its own, so that metrics never stand in the way of control. The first call
// asks only for states, which needs no QEMU; a domain that is arriving is left
// out of the second, for it would block that for half a minute. A domain that
// is busy is passed over (NOWAIT) and has what libvirt knows without QEMU.
func (c *Client) Stats(ctx context.Context) ([]Stats, error) {
	const op = "read statistics"
	if !c.Up() {
		return nil, wrap(op, "", ErrDown)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	select {
	case c.statsMu <- struct{}{}:
		defer func() { <-c.statsMu }()
	case <-ctx.Done():
		return nil, wrap(op, "", context.Cause(ctx))
	}
	l, err := c.open(ctx, &c.stats, op, "")
	if err != nil {
		return nil, err
	}
	return do(ctx, l, op, "", readStats)
}

func readStats(l *link) ([]Stats, error) {
	states, err := l.conn.GetAllDomainStats(nil, libvirt.DOMAIN_STATS_STATE, 0)
	if err != nil {
		return nil, err
	}
	for i := range states {
		defer l.own(states[i].Domain)()
	}
	out := make([]Stats, 0, len(states))
	at := make(map[string]int, len(states)) // place in out, by UUID
	var ask []*libvirt.Domain
	for _, s := range states {
		st := statsOf(s)
		at[st.UUID] = len(out)
		out = append(out, st)
		if s.State != nil && answers(s.State) {
			ask = append(ask, s.Domain)
		}
	}
	// An empty list would mean every domain.
	if len(ask) == 0 {
		return out, nil
	}
	full, err := l.conn.GetAllDomainStats(ask, statsTypes, libvirt.CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
	if err != nil {
		return nil, err
	}
	for i := range full {
		defer l.own(full[i].Domain)()
		st := statsOf(full[i])
		if n, ok := at[st.UUID]; ok {
			out[n] = st
		}
	}
	return out, nil
}

// answers tells whether a domain's QEMU may be asked.
func answers(s *libvirt.DomainStatsState) bool {
	switch s.State {
	case libvirt.DOMAIN_SHUTOFF, libvirt.DOMAIN_CRASHED, libvirt.DOMAIN_NOSTATE:
		return false
	}
	return !maybeIncoming(s.State, s.Reason)
}

func statsOf(s libvirt.DomainStats) Stats {
	var out Stats
	out.Name, _ = s.Domain.GetName()
	out.UUID, _ = s.Domain.GetUUIDString()
	if s.State != nil {
		out.State, out.Reason = stateOf(s.State.State), reasonOf(s.State.State, s.State.Reason)
	}
	if s.Cpu != nil {
		out.CPUTime = s.Cpu.Time
	}
	out.VCPUs = len(s.Vcpu)
	if b := s.Balloon; b != nil {
		out.MemoryCurrent, out.MemoryMax = int64(b.Current)*1024, int64(b.Maximum)*1024
		out.RSS, out.MemoryUnused = int64(b.Rss)*1024, int64(b.Unused)*1024
	}
	for _, b := range s.Block {
		if b.BackingIndexSet && b.BackingIndex > 0 && !b.NameSet {
			continue
		}
		out.Block = append(out.Block, BlockStats{
			Target: b.Name, Path: b.Path, RdBytes: b.RdBytes, WrBytes: b.WrBytes, RdReqs: b.RdReqs, WrReqs: b.WrReqs,
			RdTime: b.RdTimes, WrTime: b.WrTimes, FlushReqs: b.FlReqs,
			Allocation: b.Allocation, Capacity: b.Capacity, Physical: b.Physical,
		})
	}
	for _, n := range s.Net {
		out.Net = append(out.Net, NetStats{
			Device:  n.Name,
			RxBytes: n.RxBytes, RxPackets: n.RxPkts, RxErrors: n.RxErrs, RxDrop: n.RxDrop,
			TxBytes: n.TxBytes, TxPackets: n.TxPkts, TxErrors: n.TxErrs, TxDrop: n.TxDrop,
		})
	}
	return out
}
