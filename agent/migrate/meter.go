package migrate

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// meter turns libvirt's and QEMU's figures into one progress. Disks are counted
// from QEMU's block jobs, which know allocated bytes disk by disk; libvirt's sum
// is only taken where they were not seen.
//
// A copy of whole disks is the exception: QEMU counts their holes as work, so
// what the destination has allocated is shown in place of that.
type meter struct {
	whole             bool
	mu                sync.Mutex
	arrived           map[string]int64 // guarded by mu
	disks             []api.PartProgress
	diskSum           int64 // libvirt's own count of all disks
	memDone, memTotal int64
	percent           float64
	rate              float64 // bytes per second
	begun, movedAt    time.Time
	at                time.Time
	last, worked      int64
}

// newMeter begins with the plan's estimate, so that a total is there before
// libvirt knows one.
func newMeter(p api.Plan, memory int64) *meter {
	m := &meter{memTotal: memory, whole: !Incremental(p), arrived: map[string]int64{}}
	for _, d := range p.Disks {
		if d.Action == api.ActionCopy {
			m.disks = append(m.disks, api.PartProgress{Target: d.Target, BytesTotal: d.Bytes})
		}
	}
	return m
}

// resume goes on from what an earlier run of the agent has shown of this
// migration. What was shown before, of volumes being filled, is told by its
// lack of memory: those bytes did not cross.
func (m *meter) resume(p api.Progress) {
	if p.Memory == nil {
		return
	}
	m.percent = p.Percent
	for _, shown := range p.Disks {
		for i := range m.disks {
			if m.disks[i].Target == shown.Target {
				m.disks[i].BytesDone = shown.BytesDone
				m.disks[i].BytesTotal = max(m.disks[i].BytesTotal, shown.BytesTotal)
			}
		}
	}
}

// rateMemory is how long a sample counts in the moving average of the rate.
const rateMemory = 3 * time.Second

func (m *meter) add(now time.Time, j hypervisor.Job, jobs []hypervisor.BlockJob) {
	for _, b := range jobs {
		for i := range m.disks {
			// The first figures of a job are zeroes, before it has counted.
			if d := &m.disks[i]; d.Target == b.Target && b.Total > 0 && m.whole {
				m.addWhole(d, b)
			} else if d.Target == b.Target && b.Total > 0 {
				d.BytesDone, d.BytesTotal = max(d.BytesDone, b.Done), b.Total
			}
		}
	}
	m.diskSum = max(m.diskSum, j.DiskDone)
	if j.Phase == hypervisor.PhaseMemory && len(jobs) == 0 {
		m.disksDone()
	}
	if j.MemTotal > 0 {
		m.memTotal, m.memDone = max(j.MemDone+j.MemRemaining, 1), max(m.memDone, j.MemDone)
	}
	disk, memory := m.moved()
	sum := disk + memory
	if m.at.IsZero() {
		m.begun = now
	}
	// QEMU working through holes is no stall, though nothing arrives.
	if work := max(disk, m.diskSum) + memory; m.at.IsZero() || work > m.worked {
		m.movedAt, m.worked = now, work
	}
	if dt := now.Sub(m.at); !m.at.IsZero() && dt > 0 {
		weight := 1 - math.Exp(-dt.Seconds()/rateMemory.Seconds())
		// At the beginning there is no past to average with.
		weight = max(weight, dt.Seconds()/now.Sub(m.begun).Seconds())
		m.rate += weight * (float64(max(sum-m.last, 0))/dt.Seconds() - m.rate)
	}
	m.at, m.last = now, sum
}

// disksDone takes every disk as copied.
func (m *meter) disksDone() {
	for i := range m.disks {
		d := &m.disks[i]
		d.BytesTotal = max(d.BytesTotal, d.BytesDone)
		d.BytesDone = d.BytesTotal
	}
}

// finish is the last progress of a migration that came to a good end: a copy
// that was not seen to its end has reached it all the same.
func (m *meter) finish() api.Progress {
	m.disksDone()
	m.memTotal = m.memDone
	m.percent = 100
	return m.progress()
}

// moved gives the bytes of disks and memory that were seen to move.
func (m *meter) moved() (disk, memory int64) {
	for _, d := range m.disks {
		disk += d.BytesDone
	}
	if m.whole {
		return disk, m.memDone
	}
	return max(disk, m.diskSum), m.memDone
}

// arrive takes what the destination has allocated of each disk.
func (m *meter) arrive(disks []api.PartProgress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range disks {
		m.arrived[d.Target] = d.BytesDone
	}
}

// addWhole counts a disk that is copied with all its layers. The total is the
// plan's estimate, or more when more has come.
func (m *meter) addWhole(d *api.PartProgress, b hypervisor.BlockJob) {
	m.mu.Lock()
	here, told := m.arrived[d.Target]
	m.mu.Unlock()
	if !told { // a target whose allocation nobody can tell: a share of the estimate
		here = int64(float64(b.Done) / float64(b.Total) * float64(d.BytesTotal))
	}
	d.BytesDone = max(d.BytesDone, here)
	if b.Ready || b.Done >= b.Total {
		d.BytesTotal = max(d.BytesDone, d.BytesTotal)
		d.BytesDone = d.BytesTotal
		return
	}
	// Not done while QEMU is not: metadata may bring it over the estimate.
	d.BytesTotal = max(d.BytesTotal, d.BytesDone+1)
}

// hasMoved tells whether a first byte was seen to move.
func (m *meter) hasMoved() bool { return m.worked > 0 }

func (m *meter) lastMove(started time.Time) time.Time {
	if m.movedAt.After(started) {
		return m.movedAt
	}
	return started
}

// progress never goes back: totals grow while the guest writes.
func (m *meter) progress() api.Progress {
	var done, total int64
	for _, d := range m.disks {
		done += min(d.BytesDone, d.BytesTotal)
		total += d.BytesTotal
	}
	p := api.Progress{BytesDone: done + m.memDone, BytesTotal: total + m.memTotal, Rate: int64(m.rate),
		Disks:  slices.Clone(m.disks),
		Memory: &api.PartProgress{Target: "memory", BytesDone: m.memDone, BytesTotal: m.memTotal}}
	if p.BytesTotal > 0 {
		m.percent = max(m.percent, min(99.9, 100*float64(p.BytesDone)/float64(p.BytesTotal)))
	}
	p.Percent = m.percent
	if left := p.BytesTotal - p.BytesDone; m.rate > 1 && left > 0 {
		eta := api.Duration(time.Duration(float64(left) / m.rate * float64(time.Second)).Round(time.Second))
		p.ETA = &eta
	}
	return p
}
