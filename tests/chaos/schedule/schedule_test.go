package schedule_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

// many is enough for whatever happens in one of fifty schedules to happen.
const many = 600

func TestEqualSeedsGiveEqualSchedules(t *testing.T) {
	different := map[string]bool{}
	for seed := range uint64(many) {
		s := schedule.Generate(seed)
		if diff := cmp.Diff(s, schedule.Generate(seed)); diff != "" {
			t.Fatalf("seed %d twice: %s", seed, diff)
		}
		_, text, _ := strings.Cut(s.String(), "\n") // without the seed itself
		different[text] = true
	}
	if len(different) < many*9/10 {
		t.Errorf("%d seeds gave %d schedules", many, len(different))
	}
}

func TestSchedulesAreLegalAndBounded(t *testing.T) {
	for seed := range uint64(20 * many) {
		s := schedule.Generate(seed)
		if err := s.Legal(); err != nil {
			t.Fatalf("%s%v", s, err)
		}
		if len(s.Acts) > 25 || len(s.Instances) > 2 {
			t.Errorf("%d acts on %d instances:\n%s", len(s.Acts), len(s.Instances), s)
		}
	}
}

// What no seed brings about is tested by none.
func TestEverythingOccurs(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(many) {
		s := schedule.Generate(seed)
		for _, i := range s.Instances {
			seen["maker "+string(i.Maker)]++
			seen["pool "+i.Pool]++
			seen["disks "+strings.Repeat("I", len(i.Disks))]++
			for _, d := range i.Disks {
				seen["disk "+d.Format+" "+string(d.Stands)]++
			}
		}
		for _, a := range s.Acts {
			seen["act "+string(a.Do)]++
			seen["option "+string(a.Do)+" "+a.Option]++
			seen["when "+string(a.When.Moment)]++
		}
	}
	want := []string{"maker agent", "maker xml", "maker virsh", "pool default", "pool chaos", "disks I", "disks II", "disks III",
		"disk qcow2 alone", "disk raw alone", "disk qcow2 full", "disk qcow2 linked", "disk qcow2 direct", "disk qcow2 lone",
		"disk qcow2 shared", "disk raw cdrom", "option migrate auto", "option migrate full", "option migrate linked",
		"option migrate stage", "option stop ask", "option stop force"}
	for _, a := range schedule.Actions {
		want = append(want, "act "+string(a))
	}
	for _, m := range schedule.Moments {
		want = append(want, "when "+string(m))
	}
	for _, what := range want {
		if seen[what] < many/100 {
			t.Errorf("%q occurs %d times in %d schedules", what, seen[what], many)
		}
	}
}

// The seeds that are run when nothing is said: each action and each moment is had often, and faults where both sides have
// to agree on what is so.
func TestTwoHundredSeedsHaveEnoughOfEach(t *testing.T) {
	actions, moments, between := map[schedule.Action]int{}, map[schedule.Moment]int{}, map[schedule.Action]int{}
	for seed := range uint64(200) {
		s := schedule.Generate(seed + 1)
		if len(s.Acts) > 14 {
			t.Errorf("a long story:\n%s", s)
		}
		for _, a := range s.Acts {
			actions[a.Do]++
			moments[a.When.Moment]++
			if a.When.Moment.Held() {
				between[a.Do]++
			}
		}
	}
	for _, a := range schedule.Actions {
		if actions[a] < 20 {
			t.Errorf("%q occurs %d times", a, actions[a])
		}
	}
	for _, m := range schedule.Moments {
		if moments[m] < 15 || m.Held() && moments[m] < 50 {
			t.Errorf("%q occurs %d times", m, moments[m])
		}
	}
	for _, a := range []schedule.Action{schedule.Cancel, schedule.Stop, schedule.Rebuild, schedule.KillAgent, schedule.KillLibvirt, schedule.KillQEMU, schedule.Cut, schedule.Lose} {
		if between[a] < 7 {
			t.Errorf("%q occurs %d times while a guest is handed over", a, between[a])
		}
	}
}

func TestSampleHasOneOfEach(t *testing.T) {
	seen := map[any]bool{}
	for n := range uint64(schedule.SampleSize) {
		for _, a := range schedule.Generate(schedule.SampleBase + n).Acts {
			seen[a.Do], seen[a.When.Moment] = true, true
		}
	}
	for _, a := range schedule.Actions {
		if !seen[a] {
			t.Errorf("no seed has %q", a)
		}
	}
	for _, m := range schedule.Moments {
		if !seen[m] {
			t.Errorf("no seed has %q", m)
		}
	}
}

func TestDrivesAreNotWritten(t *testing.T) {
	i := schedule.Instance{Disks: []schedule.Disk{{Target: "vda", Stands: schedule.Alone}, {Target: "sdb", Stands: schedule.CDROM}, {Target: "vdc", Stands: schedule.Shared}}}
	got := map[string]string{}
	for _, d := range i.Written() {
		got[d.Target] = d.Guest
	}
	if diff := cmp.Diff(map[string]string{"vda": "vda", "vdc": "vdb"}, got); diff != "" {
		t.Error(diff)
	}
}

// A schedule that a host could not follow is refused.
func TestIllegalSchedules(t *testing.T) {
	one := schedule.Instance{Name: "i1", Host: "a", Pool: schedule.DefaultPool, Maker: schedule.ByXML,
		Disks: []schedule.Disk{{Target: "vda", Format: "qcow2", Stands: schedule.Alone}}}
	now := schedule.Trigger{Moment: schedule.AtOnce}
	moves := schedule.Act{Do: schedule.Migrate, Label: "m1", Instance: "i1", When: now}
	kill := schedule.Act{Do: schedule.KillAgent, Host: "a", When: now}
	for name, acts := range map[string][]schedule.Act{
		"nothing":                     {},
		"no such instance":            {{Do: schedule.Stop, Label: "s1", Instance: "i2", When: now}},
		"no such operation":           {{Do: schedule.Cancel, Of: "m1", When: now}},
		"a label twice":               {moves, moves},
		"a trigger of nothing":        {{Do: schedule.Cut, Host: "a", When: schedule.Trigger{Moment: schedule.Perform, Of: "m1"}}},
		"a moment that is none":       {{Do: schedule.Cut, Host: "a", When: schedule.Trigger{Moment: "later"}}},
		"no such host":                {{Do: schedule.Cut, Host: "c", When: now}},
		"killed twice":                {kill, kill},
		"started while it runs":       {{Do: schedule.StartAgent, Host: "a", When: now}},
		"joined while it is":          {{Do: schedule.Join, Host: "b", When: now}},
		"a dead agent is asked":       {moves, kill, {Do: schedule.Cut, Host: "b", When: schedule.Trigger{Moment: schedule.Perform, Of: "m1"}}},
		"more than all of it":         {moves, {Do: schedule.Cut, Host: "b", When: schedule.Trigger{Moment: schedule.Percent, Of: "m1", N: 100}}},
		"a stop has no such phase":    {{Do: schedule.Stop, Label: "s1", Instance: "i1", When: now}, {Do: schedule.Cut, Host: "a", When: schedule.Trigger{Moment: schedule.Commit, Of: "s1"}}},
		"a pool that cannot be full":  {moves, {Do: schedule.Fill, Of: "m1", When: now}},
		"freed where nothing is full": {{Do: schedule.Free, When: now}},
		"lost when nothing is said":   {moves, {Do: schedule.Lose, Of: "m1", When: now}},
		"no migration's qemu":         {{Do: schedule.KillQEMU, Of: "m1", Option: "source", When: now}},
	} {
		s := schedule.Schedule{Instances: []schedule.Instance{one}, Acts: acts}
		if err := s.Legal(); err == nil {
			t.Errorf("%s: it is called legal:\n%s", name, s)
		}
	}
	if err := (schedule.Schedule{Instances: []schedule.Instance{one}, Acts: []schedule.Act{moves, kill}}).Legal(); err != nil {
		t.Errorf("a legal one: %v", err)
	}
}
