package converge_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/converge"
)

// A pass ends when the next begins; what it had to send is the most that was
// seen of it, and its rate what crossed from its first look to its end.
func TestHistory(t *testing.T) {
	var h converge.History
	for i, s := range []struct {
		converge.Sample
		boundary bool
	}{
		{converge.Sample{Iteration: 1, Remaining: 100, Transferred: 0, Elapsed: 0}, false},
		{converge.Sample{Iteration: 1, Remaining: 40, Transferred: 60, Elapsed: time.Second}, false},
		{converge.Sample{Iteration: 2, Remaining: 30, Transferred: 100, Elapsed: 2 * time.Second, DirtyRate: 15, Bandwidth: 9}, true},
		{converge.Sample{Iteration: 2, Remaining: 35, Transferred: 100, Elapsed: 2 * time.Second, Throttle: 20}, false},
		{converge.Sample{Iteration: 5, Remaining: 20, Transferred: 105, Elapsed: 2100 * time.Millisecond, DirtyRate: 16, Bandwidth: 9, Throttle: 30}, true},
		{converge.Sample{Iteration: 5, Remaining: 10, Transferred: 110, Elapsed: 3 * time.Second}, false},
	} {
		if got := h.Add(s.Sample); got != s.boundary {
			t.Errorf("look %d: boundary is %v", i, got)
		}
	}
	want := []converge.Iteration{
		{Number: 1, Remaining: 100, DirtyRate: 15, Bandwidth: 50, Elapsed: 2 * time.Second},
		// Too short for a rate of its own: QEMU's is taken.
		{Number: 2, Remaining: 35, DirtyRate: 16, Bandwidth: 9, Throttle: 20, Elapsed: 2100 * time.Millisecond},
	}
	if diff := cmp.Diff(want, h.Passes); diff != "" {
		t.Errorf("passes (-want +got):\n%s", diff)
	}
}

func TestDowntimeOfAPass(t *testing.T) {
	for _, c := range []struct {
		it   converge.Iteration
		want time.Duration
	}{
		{converge.Iteration{Remaining: 50, Bandwidth: 100}, 500 * time.Millisecond},
		{converge.Iteration{Remaining: 50}, 0},
		{converge.Iteration{Remaining: 1 << 60, Bandwidth: 1}, 2000 * time.Second},
	} {
		if got := c.it.Downtime(); got != c.want {
			t.Errorf("%+v: %s; want %s", c.it, got, c.want)
		}
	}
}
