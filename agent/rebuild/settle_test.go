package rebuild_test

import (
	"testing"

	"github.com/wherry-kvm/wherry/agent/rebuild"
)

func TestSettle(t *testing.T) {
	for _, row := range []struct {
		name string
		f    rebuild.Found
		want rebuild.Verdict
	}{
		{"before the switch", rebuild.Found{Names: rebuild.NamesOld}, rebuild.Back},
		{"before the switch, running still", rebuild.Found{Names: rebuild.NamesOld, Runs: true}, rebuild.Back},
		{"before the switch, failed", rebuild.Found{Names: rebuild.NamesOld, Failed: true}, rebuild.Back},
		{"switching, libvirt has not done it", rebuild.Found{Names: rebuild.NamesOld, Switching: true}, rebuild.Forward},
		{"switching, libvirt has done it", rebuild.Found{Names: rebuild.NamesNew, Switching: true}, rebuild.Forward},
		{"switched, runs on it", rebuild.Found{Names: rebuild.NamesNew, Switching: true, Runs: true}, rebuild.Forward},
		{"switching, started with the old one by somebody", rebuild.Found{Names: rebuild.NamesOld, Switching: true, Runs: true}, rebuild.Back},
		{"switching had failed, the old one is named", rebuild.Found{Names: rebuild.NamesOld, Switching: true, Failed: true}, rebuild.Back},
		{"switching had failed, the new one is named", rebuild.Found{Names: rebuild.NamesNew, Switching: true, Failed: true}, rebuild.Back},
		{"it had failed, and the guest runs on the new one", rebuild.Found{Names: rebuild.NamesNew, Switching: true, Failed: true, Runs: true}, rebuild.Forward},
		{"done", rebuild.Found{Names: rebuild.NamesNew, Switching: true, Done: true}, rebuild.Forward},
		{"done, and changed by somebody since", rebuild.Found{Names: rebuild.NamesOther, Switching: true, Done: true}, rebuild.Forward},
		{"done, and the old one named by somebody since", rebuild.Found{Names: rebuild.NamesOld, Switching: true, Done: true}, rebuild.Forward},
		{"another disk by somebody", rebuild.Found{Names: rebuild.NamesOther, Switching: true}, rebuild.Leave},
		{"another disk by somebody, before the switch", rebuild.Found{Names: rebuild.NamesOther}, rebuild.Leave},
		{"another disk by somebody, after a failure", rebuild.Found{Names: rebuild.NamesOther, Switching: true, Failed: true}, rebuild.Leave},
		{"the instance is gone", rebuild.Found{Gone: true}, rebuild.Leave},
		{"the instance is gone, after the switch", rebuild.Found{Gone: true, Switching: true}, rebuild.Leave},
	} {
		if got, why := rebuild.Settle(row.f); got != row.want || why == "" {
			t.Errorf("%s: %s because %q; want %s", row.name, got, why, row.want)
		}
	}
}

// Whatever is found, no verdict has nothing to start from: back only where the
// old disk can still be named, forward only where the new one is whole.
func TestSettleOverEverything(t *testing.T) {
	for i := range 1 << 5 {
		for _, names := range []rebuild.Names{rebuild.NamesOld, rebuild.NamesNew, rebuild.NamesOther} {
			f := rebuild.Found{Gone: i&1 > 0, Names: names, Runs: i&2 > 0, Switching: i&4 > 0, Done: i&8 > 0, Failed: i&16 > 0}
			if f.Done && !f.Switching || f.Names == rebuild.NamesNew && !f.Switching {
				continue // cannot be
			}
			got, _ := rebuild.Settle(f)
			switch {
			case got == rebuild.Forward && !f.Switching:
				t.Errorf("%+v: forward, and the new disk is not whole", f)
			case got == rebuild.Back && f.Done:
				t.Errorf("%+v: back, and the old disk may be gone", f)
			case got == rebuild.Back && f.Runs && f.Names == rebuild.NamesNew:
				t.Errorf("%+v: back, from under a guest", f)
			case got == rebuild.Forward && f.Runs && f.Names == rebuild.NamesOld && !f.Done:
				t.Errorf("%+v: forward, from under a guest", f)
			}
		}
	}
}
