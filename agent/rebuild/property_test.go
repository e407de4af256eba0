package rebuild_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/durable/durabletest"
	"github.com/wherry-kvm/wherry/http/api"
)

// Whatever is asked of whatever instance, however often the agent is killed on
// the way and whatever fails once: in the end the instance has its old disk or
// its new one, whole, and everything says the same.
func TestRebuildsAndDeaths(t *testing.T) {
	disks := newDisksIn(t, durabletest.Dir(t))
	rapid.Check(t, func(rt *rapid.T) {
		s := scenario{r: rapid.SampledFrom([]api.RebuildRequest{original(), from("two"), from("large"), empty()}).Draw(rt, "source")}
		if rapid.Bool().Draw(rt, "full clone") {
			s.host = append(s.host, alone)
		}
		s.r.Start = rapid.Bool().Draw(rt, "start")
		ran := rapid.Bool().Draw(rt, "runs")
		if ran {
			s.host = append(s.host, running)
			s.r.Force = true
		}
		s.r.DiskSize = rapid.SampledFrom([]int64{0, 16 * mib}).Draw(rt, "size")
		s.fail = rapid.SampledFrom([]string{"", "", "down", "reserve", "put ref", "digest", "format", "fill", "finish", "define", "record"}).Draw(rt, "fails")
		s.times = 1
		at := rapid.SliceOfN(rapid.IntRange(0, 90), 1, 3).Draw(rt, "killed at")
		h := newHostOn(t, disks, s.host...)
		s.killed(t, h, at)
		if ran && !h.domain.Active() {
			t.Error("it ran, and does not run")
		}
		if t.Failed() {
			rt.Fatalf("%s", fmt.Sprintf("%+v killed at %v", s.r, at))
		}
	})
}
