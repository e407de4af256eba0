package rebuild_test

import (
	"fmt"
	"testing"

	"github.com/wherry-kvm/wherry/agent/durable/durabletest"
	"github.com/wherry-kvm/wherry/http/api"
)

// scenario is a rebuild that is killed at each of its points.
type scenario struct {
	name string
	host []func(*host)
	r    api.RebuildRequest
	fail string // an act that fails in the first life, so that it is taken back
	// times is how often it fails; 0 = each time.
	times int
	// onDisk has the pool in an ordinary folder, not in memory.
	onDisk bool
}

func scenarios() []scenario {
	forced := from("two")
	forced.Force = true
	started := original()
	started.Start = true
	fetched := from("distant")
	fetched.Force = true
	distant := func(h *host) { h.known["distant"] = api.Template{ID: "distant", Format: "qcow2"} }
	return []scenario{
		{name: "original", r: original(), onDisk: true},
		{name: "original, started", r: started},
		{name: "empty", r: empty()},
		{name: "full clone", r: from("two"), host: []func(*host){alone}},
		{name: "forced", r: forced, host: []func(*host){running}},
		{name: "fetched and forced", r: fetched, host: []func(*host){running, distant}},
		{name: "failing to define", r: forced, host: []func(*host){running}, fail: "define"},
		{name: "failing to write the record", r: forced, host: []func(*host){running}, fail: "record"},
		{name: "failing to format", r: forced, host: []func(*host){running}, fail: "format"},
	}
}

// TestKilledAtEveryPoint kills the agent before and after each write to its
// journal and each thing it does to the world, in turn.
func TestKilledAtEveryPoint(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			pool := ""
			if s.onDisk {
				pool = t.TempDir()
			} else {
				pool = durabletest.Dir(t)
			}
			olds, news, at, disks := 0, 0, 0, newDisksIn(t, pool)
			for ; ; at++ {
				h := newHostOn(t, disks, s.host...)
				ran := h.domain.Active()
				old, killed := s.killed(t, h, []int{at})
				if t.Failed() {
					t.Fatalf("killed at point %d", at)
				}
				if ran && !h.domain.Active() {
					t.Fatalf("killed at point %d: it ran, and does not run", at)
				}
				if old {
					olds++
				} else {
					news++
				}
				if !killed {
					break
				}
			}
			t.Logf("%d points: %d with the old disk, %d with the new one", at, olds, news)
			if at < 20 || olds == 0 || news == 0 && s.fail == "" {
				t.Errorf("%d points: %d with the old disk, %d with the new one", at, olds, news)
			}
		})
	}
}

// killed runs the rebuild in one life after the other, each killed at its
// point, and a last one to the end. It tells which disk the instance has, and
// whether the last kill took place.
func (s scenario) killed(t *testing.T, h *host, at []int) (old, killed bool) {
	t.Helper()
	id := ""
	for life, point := range at {
		a := h.agent(func(a *agent) {
			a.killAt = point
			if s.fail != "" && life == 0 {
				a.fail[s.fail] = fmt.Errorf("%s: it failed", s.fail)
				a.times = s.times
			}
		})
		if life == 0 {
			// One that is killed before it is journalled was never asked for.
			if op, err := a.Rebuild(t.Context(), ref, s.r, api.Idempotency{}); err == nil {
				id = op.ID
			}
		} else if err := a.engine.Resume(t.Context()); err != nil && !a.isDead() {
			t.Error(err)
		}
		if id != "" {
			a.await(id)
		}
		killed = a.isDead()
		a.close()
	}
	last := h.agent()
	defer last.close()
	must(t, last.engine.Resume(t.Context()))
	// It may have been journalled, and whoever asked not have heard of it.
	all, err := last.engine.List(t.Context(), "", "")
	must(t, err)
	if len(all) == 1 {
		id = all[0].ID
	}
	if id != "" {
		op := last.ended(id)
		old = h.sound()
		if (op.Status == api.StatusSucceeded) == old {
			t.Errorf("%s (%v), and the disk is the old one: %t", op.Status, op.Error, old)
		}
	}
	if by := last.engine.Holder(ref); by != "" {
		t.Errorf("held by %q", by)
	}
	return h.sound(), killed
}

// await waits for the operation's end, or the process's.
func (a *agent) await(id string) {
	a.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = a.engine.Wait(a.t.Context(), id, 20e9)
	}()
	select {
	case <-ended:
	case <-a.died:
	}
	if a.isDead() {
		a.close() // which ends the waiting
	}
	<-ended
}
