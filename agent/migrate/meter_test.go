package migrate

import (
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func copying(target string, bytes int64) api.PlanDisk {
	return api.PlanDisk{Target: target, Action: api.ActionCopy, Bytes: bytes}
}

// A small disk is copied before anybody looks: what moved is known all the same.
func TestMeterCountsACopyThatNobodySaw(t *testing.T) {
	m := newMeter(api.Plan{Disks: []api.PlanDisk{copying("vda", 8<<20), {Target: "vdb", Action: api.ActionSkip, Bytes: 5}}}, 64<<20)
	m.add(time.Unix(1, 0), hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory, MemTotal: 64 << 20, MemDone: 3 << 20}, nil)
	end := m.finish()
	disk, memory := m.moved()
	if disk != 8<<20 || memory != 3<<20 {
		t.Errorf("moved %d and %d; want the plan's bytes and the memory seen", disk, memory)
	}
	if end.Percent != 100 || end.BytesDone != end.BytesTotal || len(end.Disks) != 1 || end.Disks[0].BytesDone != 8<<20 {
		t.Errorf("last progress %+v; want everything done", end)
	}
}

// QEMU's own figures replace the estimate, in either direction.
func TestMeterTakesTheBlockJobsFigures(t *testing.T) {
	m := newMeter(api.Plan{Disks: []api.PlanDisk{copying("vda", 100), copying("vdb", 100)}}, 1000)
	at := time.Unix(1, 0)
	m.add(at, hypervisor.Job{Phase: hypervisor.PhaseDisk}, []hypervisor.BlockJob{{Target: "vda", Done: 0, Total: 0}, {Target: "vdb", Done: 30, Total: 60}})
	p := m.progress()
	if p.Disks[0] != (api.PartProgress{Target: "vda", BytesTotal: 100}) || p.Disks[1] != (api.PartProgress{Target: "vdb", BytesDone: 30, BytesTotal: 60}) {
		t.Errorf("disks %+v", p.Disks)
	}
	// The guest wrote: there is more to do, and nothing goes back.
	m.add(at.Add(time.Second), hypervisor.Job{Phase: hypervisor.PhaseDisk}, []hypervisor.BlockJob{{Target: "vdb", Done: 40, Total: 600}})
	next := m.progress()
	if next.Percent < p.Percent || next.Disks[1].BytesTotal != 600 {
		t.Errorf("progress %+v after %+v", next, p)
	}
	if next.Rate != 10 || next.ETA == nil {
		t.Errorf("rate %d, eta %v; want 10 bytes a second and an estimate", next.Rate, next.ETA)
	}
	m.finish()
	if disk, _ := m.moved(); disk != 700 {
		t.Errorf("moved %d; want 700", disk)
	}
}

// After the agent was restarted the bar goes on where it stood.
func TestMeterGoesOnAfterARestart(t *testing.T) {
	m := newMeter(api.Plan{Disks: []api.PlanDisk{copying("vda", 100)}}, 100)
	m.resume(api.Progress{Disks: []api.PartProgress{{Target: "vda", BytesDone: 1 << 40, BytesTotal: 1 << 40}}})
	if disk, _ := m.moved(); disk != 0 {
		t.Errorf("%d bytes of a volume that was being filled count as moved", disk)
	}
	m.resume(api.Progress{Percent: 40, Memory: &api.PartProgress{}, Disks: []api.PartProgress{{Target: "vda", BytesDone: 80, BytesTotal: 120}}})
	m.add(time.Unix(1, 0), hypervisor.Job{Phase: hypervisor.PhaseDisk}, nil)
	if p := m.progress(); p.Percent < 40 || p.Disks[0].BytesDone != 80 || p.Disks[0].BytesTotal != 120 {
		t.Errorf("progress %+v; want no step back", p)
	}
}

// Time without a byte is counted from the last one.
func TestMeterTellsWhenTheLastByteMoved(t *testing.T) {
	start := time.Unix(100, 0)
	m := newMeter(api.Plan{Disks: []api.PlanDisk{copying("vda", 100)}}, 100)
	if got := m.lastMove(start); !got.Equal(start) {
		t.Errorf("before the first look: %s; want the start", got)
	}
	for s, done := range []int64{0, 10, 20, 20, 20} {
		m.add(start.Add(time.Duration(s)*time.Second), hypervisor.Job{Phase: hypervisor.PhaseDisk}, []hypervisor.BlockJob{{Target: "vda", Done: done, Total: 100}})
	}
	if got := m.lastMove(start); !got.Equal(start.Add(2 * time.Second)) {
		t.Errorf("last move at %s; want two seconds after the start", got)
	}
}

// A copy of whole disks shows what has arrived, not QEMU's way through holes,
// which still is no stall.
func TestMeterOfWholeDisksCountsWhatArrived(t *testing.T) {
	disk := copying("vda", 100)
	disk.Chain = []api.Layer{{Path: "top"}, {Path: "base"}}
	m := newMeter(api.Plan{Disks: []api.PlanDisk{disk}}, 0)
	at := time.Unix(1, 0)
	look := func(done int64, ready bool) api.PartProgress {
		at = at.Add(time.Second)
		m.add(at, hypervisor.Job{Phase: hypervisor.PhaseDisk, DiskDone: done}, []hypervisor.BlockJob{{Target: "vda", Done: done, Total: 1000, Ready: ready}})
		return m.progress().Disks[0]
	}
	m.arrive([]api.PartProgress{{Target: "vda", BytesDone: 60}})
	if got := look(70, false); got.BytesDone != 60 || got.BytesTotal != 100 {
		t.Errorf("disk %+v; want 60 of the plan's 100", got)
	}
	if got := look(900, false); got.BytesDone != 60 || m.lastMove(time.Unix(0, 0)) != at {
		t.Errorf("disk %+v, last move %v; want 60 and a move just now", got, m.lastMove(time.Unix(0, 0)))
	}
	m.arrive([]api.PartProgress{{Target: "vda", BytesDone: 120}})
	if got := look(950, false); got.BytesDone != 120 || got.BytesTotal != 121 {
		t.Errorf("disk %+v; want it not done yet", got)
	}
	if got := look(1000, true); got.BytesDone != got.BytesTotal {
		t.Errorf("disk %+v; want it done", got)
	}
}
