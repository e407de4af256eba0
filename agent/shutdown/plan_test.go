package shutdown

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/http/api"
)

func ask(name string, priority int, timeout time.Duration) Instance {
	return Instance{Project: "default", Name: name, UUID: "u-" + name, Managed: true, Policy: api.StopPolicy{Priority: priority, Timeout: api.Duration(timeout)}}
}

func cut(name string, priority int) Instance {
	i := ask(name, priority, 0)
	i.Policy.Action = api.StopForce
	return i
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []Instance
		want string
	}{
		{"none", nil, "[]"},
		{"one", []Instance{ask("a", 0, 0)}, "[[a]]"},
		{"highest first", []Instance{ask("low", -5, 0), ask("none", 0, 0), ask("high", 10, 0)}, "[[high] [none] [low]]"},
		{"equal together, by name", []Instance{ask("c", 1, 0), ask("x", 2, 0), ask("a", 1, 0), ask("b", 1, 0)}, "[[x] [a b c]]"},
		{"of all projects", []Instance{{Project: "z", Name: "a"}, {Project: "b", Name: "z"}}, "[[z a]]"},
	} {
		var got [][]string
		for _, g := range order(c.in) {
			var names []string
			for _, i := range g {
				names = append(names, i.Name)
			}
			got = append(got, names)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v; want %s", c.name, got, c.want)
		}
	}
}

func TestShare(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name  string
		left  time.Duration
		wants []time.Duration
		want  time.Duration
	}{
		{"nobody", time.Minute, nil, 0},
		{"enough for all", 5 * time.Minute, []time.Duration{60 * s, 60 * s}, 60 * s},
		{"just enough", 100 * s, []time.Duration{60 * s}, 60 * s},
		{"what the force needs is kept", 60 * s, []time.Duration{60 * s}, 40 * s},
		{"half of little", 10 * s, []time.Duration{60 * s}, 5 * s},
		{"in proportion", 100 * s, []time.Duration{90 * s, 30 * s}, 45 * s},
		{"those to come keep theirs", 120 * s, []time.Duration{600 * s, 0, 0}, 60 * s},
		{"who is not asked takes none", 120 * s, []time.Duration{0, 60 * s}, 0},
		{"late", 0, []time.Duration{60 * s}, 0},
		{"too late", -s, []time.Duration{60 * s, 60 * s}, 0},
		{"a day each", 5 * time.Minute, []time.Duration{24 * time.Hour, 24 * time.Hour}, 130 * s},
	} {
		if got := share(c.left, c.wants); got.Round(time.Millisecond) != c.want {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
	}
}

// However long everybody takes of what is given: all are asked and forced
// before the time is over, and nobody is given more than wanted.
func TestShareProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		second := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(0, 900).Draw(t, "s")) * time.Second
		})
		wants := rapid.SliceOfN(second, 1, 8).Draw(t, "wants")
		left := second.Draw(t, "left")
		for len(wants) > 0 {
			reserve := min(forceReserve, left/time.Duration(2*len(wants)))
			given := share(left, wants)
			if given < 0 || given > wants[0] {
				t.Fatalf("%s of %s left for %v", given, left, wants)
			}
			if wants[0] > 0 && left >= time.Minute && given == 0 {
				t.Fatalf("nothing of %s for %v", left, wants)
			}
			used := time.Duration(rapid.Float64Range(0, 1).Draw(t, "used") * float64(given+reserve))
			if left -= used; left < 0 {
				t.Fatalf("%s beyond the end, %v still to come", -left, wants[1:])
			}
			wants = wants[1:]
		}
	})
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		name  string
		i     Instance
		given time.Duration
		want  power.Options
	}{
		{"its own time", ask("a", 0, 30*time.Second), time.Minute, power.Options{Timeout: 30 * time.Second, ForceAfter: true}},
		{"less is left", ask("a", 0, 30*time.Second), 10 * time.Second, power.Options{Timeout: 10 * time.Second, ForceAfter: true}},
		{"nothing is left", ask("a", 0, 30*time.Second), 0, power.Options{Force: true}},
		{"next to nothing is left", ask("a", 0, 30*time.Second), time.Millisecond, power.Options{Force: true}},
		{"nobody says", ask("a", 0, 0), time.Hour, power.Options{Timeout: power.DefaultTimeout, ForceAfter: true}},
		{"not to be asked", cut("a", 0), time.Hour, power.Options{Force: true}},
		{"no record", Instance{Name: "a"}, time.Hour, power.Options{Timeout: power.DefaultTimeout, ForceAfter: true}},
	} {
		if got := c.i.options(c.given); got != c.want {
			t.Errorf("%s: %+v; want %+v", c.name, got, c.want)
		}
	}
}

func TestBudget(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []Instance
		want time.Duration
	}{
		{"nothing to stop", nil, leastBudget},
		{"what they ask for", []Instance{ask("a", 1, time.Minute), ask("b", 1, time.Second), ask("c", 0, time.Minute)}, 2*time.Minute + 2*forceReserve},
		{"more than there is", []Instance{ask("a", 1, time.Hour)}, mostBudget},
		{"nobody is asked", []Instance{cut("a", 1)}, leastBudget},
	} {
		if got := budget(order(c.in)); got != c.want {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
	}
}
