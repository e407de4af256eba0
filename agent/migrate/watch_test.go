package migrate

import (
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestStallLimit(t *testing.T) {
	for _, c := range []struct {
		name           string
		timeout        time.Duration
		moved, answers bool
		want           time.Duration
	}{
		{"the destination comes up", 20 * time.Second, false, true, time.Minute},
		{"the destination is silent", 20 * time.Second, false, false, 20 * time.Second},
		{"on its way", 20 * time.Second, true, true, 20 * time.Second},
		{"on its way, the destination is silent", 20 * time.Second, true, false, 20 * time.Second},
		{"no limit", 0, false, true, 0},
	} {
		if got := stallLimit(c.timeout, c.moved, c.answers); got != c.want {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
	}
}

// A look at a migration that has not begun to move anything is no move.
func TestMeterKnowsTheFirstByte(t *testing.T) {
	m := newMeter(api.Plan{}, 64<<20)
	job := hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory, MemTotal: 64 << 20}
	for i, done := range []int64{0, 0, 1} {
		job.MemDone = done
		m.add(time.Unix(int64(i+1), 0), job, nil)
		if m.hasMoved() != (done > 0) {
			t.Errorf("look %d, %d bytes: has moved is %v", i+1, done, m.hasMoved())
		}
	}
}
