package migrate

import (
	"cmp"
	"context"

	"github.com/wherry-kvm/wherry/agent/budget"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// pace keeps a migration within its share of the host's bandwidth. The share
// changes with every migration that begins or ends, and on request.
type pace struct {
	m       *migration
	limited bool             // a limit was ever set
	copies  map[string]int64 // by block job, as set; bytes per second
	memory  uint64           // MiB/s, as set
	post    uint64           // MiB/s in post-copy, as set
}

func (m *migration) newPace() *pace { return &pace{m: m, copies: map[string]int64{}} }

// takePart has the migration share the host's bandwidth until leave is called.
func (m *migration) takePart() (leave func()) {
	return m.Budget.Join(m.op.ID(), m.streamLimit()*int64(max(m.copies(), 1)))
}

// copies counts the disks that are copied.
func (m *migration) copies() (n int) {
	for _, d := range m.state.Plan.Disks {
		if d.Action == api.ActionCopy {
			n++
		}
	}
	return n
}

// streamLimit is that of each stream, by request or configuration; 0 = none.
func (m *migration) streamLimit() int64 { return cmp.Or(m.state.Request.Bandwidth, m.Bandwidth) }

// firstLimit is the one that every stream begins with.
func (m *migration) firstLimit() int64 {
	disks := m.copies()
	each, _, memory := budget.Streams(m.Budget.Shares()[m.op.ID()], disks, 0, disks == 0)
	return least(m.streamLimit(), max(each, memory))
}

// least is the smaller of two limits, of which 0 is none.
func least(a, b int64) int64 {
	if a <= 0 || b <= 0 {
		return max(a, b)
	}
	return min(a, b)
}

// look sets the limits that have changed. What cannot be set is tried again at
// the next look: a copy may just have ended.
func (p *pace) look(ctx context.Context, job hypervisor.Job, jobs []hypervisor.BlockJob) {
	share := p.m.Budget.Shares()[p.m.op.ID()]
	if share <= 0 && !p.limited {
		return
	}
	p.limited = true
	copying, inStep := 0, 0
	for _, j := range jobs {
		if j.Ready {
			inStep++
		} else {
			copying++
		}
	}
	each, following, memory := budget.Streams(share, copying, inStep, job.Phase == hypervisor.PhaseMemory)
	for _, j := range jobs {
		limit := each
		if j.Ready {
			limit = following
		}
		limit = least(limit, p.m.streamLimit())
		if had, ok := p.copies[j.ID]; ok && had == limit {
			continue
		}
		if p.m.Mover.SetCopySpeed(ctx, p.m.ref.Name, j.ID, limit) == nil {
			p.copies[j.ID] = limit
		}
	}
	if job.Phase != hypervisor.PhaseMemory {
		return
	}
	limit := cmp.Or(mebibytes(least(memory, p.m.streamLimit())), noLimit)
	if limit != p.memory && p.m.Mover.SetBandwidth(ctx, p.m.ref.Name, limit) == nil {
		p.memory = limit
	}
	// QEMU has a limit of its own for post-copy, which holds from its beginning.
	if p.m.state.Request.PostCopy && limit != p.post && p.m.Mover.SetPostCopyBandwidth(ctx, p.m.ref.Name, limit) == nil {
		p.post = limit
	}
}

// noLimit lifts a limit on memory, in MiB/s: libvirt takes no 0 for it, and no
// more bytes than fit into 63 bits.
const noLimit = 1 << 40
