package migrate_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/budget"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// set waits until these limits were set, in this order.
func (w *world) set(want ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		w.mover.mu.Lock()
		got := slices.Clone(w.mover.limits)
		w.mover.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("limits %q; want %q", got, want)
		}
	}
}

// A migration has what others leave of the host's bandwidth, from its beginning
// and whatever changes meanwhile, its disks and its memory included.
func TestShareOfTheHostsBandwidth(t *testing.T) {
	w := newWorld(t)
	b := budget.New(100 * mib)
	w.options.Budget = b
	w.restart()
	other := b.Join("another", 0)
	jobs, job := make(chan []hypervisor.BlockJob, 1), make(chan string, 1)
	looked, phase := []hypervisor.BlockJob{{Target: "vda", ID: "drive-vda", Total: mib}}, hypervisor.PhaseDisk
	w.mover.blocks = func() []hypervisor.BlockJob {
		select {
		case looked = <-jobs:
		default:
		}
		return looked
	}
	over := make(chan struct{})
	w.mover.job = func() hypervisor.Job {
		select {
		case <-over:
			return hypervisor.Job{Kind: hypervisor.JobNone}
		case phase = <-job:
		default:
		}
		return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: phase, Iteration: 1}
	}
	good := w.mover.migrate
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		<-over
		return good(ctx, p)
	}
	op := w.begin(api.MigrateRequest{})
	w.set("drive-vda 52428800")
	other()
	w.set("drive-vda 52428800", "drive-vda 104857600")
	b.Set(40 * mib)
	w.set("drive-vda 52428800", "drive-vda 104857600", "drive-vda 41943040")
	jobs <- []hypervisor.BlockJob{{Target: "vda", ID: "drive-vda", Total: mib, Ready: true}}
	job <- hypervisor.PhaseMemory
	memory := []string{"drive-vda 52428800", "drive-vda 104857600", "drive-vda 41943040", "drive-vda 8388608", "memory 32 MiB/s"}
	w.set(memory...)
	b.Set(0)
	w.set(append(memory, "drive-vda 0", "memory 1099511627776 MiB/s")...)
	close(over)
	w.result(w.ended(op.ID))
	if w.mover.params[0].BandwidthMiB != 50 || len(b.Shares()) != 0 {
		t.Errorf("it began with %d MiB/s, and takes part still: %v", w.mover.params[0].BandwidthMiB, b.Shares())
	}
}

// In post-copy memory is within the share too, whatever changes meanwhile.
func TestShareInPostCopy(t *testing.T) {
	w := newWorld(t)
	b := budget.New(100 * mib)
	w.options.Budget = b
	w.restart()
	op, _, arrive := w.postCopy(api.MigrateRequest{})
	w.set("memory 100 MiB/s", "post-copy 100 MiB/s")
	b.Set(40 * mib)
	w.set("memory 100 MiB/s", "post-copy 100 MiB/s", "memory 40 MiB/s", "post-copy 40 MiB/s")
	arrive()
	w.result(w.ended(op.ID))
}

// Without a budget nothing is set, and a limit of its own is what it begins with.
func TestNoBudget(t *testing.T) {
	w := newWorld(t)
	w.succeeds(api.MigrateRequest{Bandwidth: 7 * mib})
	if len(w.mover.limits) != 0 || w.mover.params[0].BandwidthMiB != 7 {
		t.Errorf("limits %q, began with %d MiB/s", w.mover.limits, w.mover.params[0].BandwidthMiB)
	}
}
