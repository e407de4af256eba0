package metrics

import (
	"context"
	"time"
)

// Source is where the counters of the instances come from.
type Source interface {
	// Stats reads all instances in bulk. It returns when ctx ends. An instance
	// that is arriving or does not answer has its names and state only.
	Stats(ctx context.Context) ([]Stat, error)
	// Up tells whether libvirt is connected. It is called at every scrape and
	// must answer from memory.
	Up() bool
	// Handles is how many of libvirt's objects and connections are not freed. It
	// answers as Up does.
	Handles() int64
}

// Stat is what one instance has used. Counters are since it started.
type Stat struct {
	Project, Name, UUID string
	State               string

	CPU   time.Duration
	VCPUs int // 0 = the CPU's counters are not known now

	Memory         int64 // bytes the guest has now, by its balloon; 0 = not known
	MemoryMax      int64 // bytes it may have
	MemoryResident int64 // bytes of the QEMU process
	MemoryUnused   int64 // bytes the guest does not use, as it says; 0 = it does not say

	Block []BlockStat
	Net   []NetStat
}

// BlockStat is what one disk has done.
type BlockStat struct {
	Target                                     string
	ReadBytes, WriteBytes                      uint64
	ReadRequests, WriteRequests, FlushRequests uint64
	ReadTime, WriteTime                        time.Duration
	Capacity, Allocation, Physical             uint64 // bytes
}

// NetStat is what one interface has done.
type NetStat struct {
	Device                                                        string
	ReceiveBytes, ReceivePackets, ReceiveErrors, ReceiveDrops     uint64
	TransmitBytes, TransmitPackets, TransmitErrors, TransmitDrops uint64
}
