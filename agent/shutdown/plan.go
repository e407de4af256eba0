package shutdown

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/http/api"
)

const (
	// forceReserve is kept of each priority's time for what follows where a
	// guest does not obey: QEMU has to quit and its storage to be released.
	forceReserve = 20 * time.Second
	// mostBudget is the deadline of a shutdown that names none, however long
	// the instances would like to have.
	mostBudget = 5 * time.Minute
	// leastBudget is for a host with nothing to ask: processes may still end.
	leastBudget = 30 * time.Second
)

// Instance is one instance that is to go down.
type Instance struct {
	Project, Name, UUID string
	// Policy is the record's; zero where there is none.
	Policy api.StopPolicy
	// Managed: the host has a record of it.
	Managed bool
}

// Ref names it.
func (i Instance) Ref() api.Ref { return api.Ref{Project: i.Project, Name: i.Name} }

// wants is how long its guest is to have, if there is as much.
func (i Instance) wants() time.Duration {
	if i.Policy.Action == api.StopForce {
		return 0
	}
	return i.Policy.Timeout.Or(power.DefaultTimeout)
}

// group is what goes down together.
type group []Instance

func (g group) wants() (longest time.Duration) {
	for _, i := range g {
		longest = max(longest, i.wants())
	}
	return longest
}

// order puts instances into groups, the highest priority first.
func order(all []Instance) (out []group) {
	sorted := slices.SortedStableFunc(slices.Values(all), func(a, b Instance) int {
		return cmp.Or(cmp.Compare(b.Policy.Priority, a.Policy.Priority), strings.Compare(a.Project, b.Project), strings.Compare(a.Name, b.Name))
	})
	for _, i := range sorted {
		if n := len(out); n > 0 && out[n-1][0].Policy.Priority == i.Policy.Priority {
			out[n-1] = append(out[n-1], i)
			continue
		}
		out = append(out, group{i})
	}
	return out
}

// budget is the time of a shutdown that names none: what the priorities ask for
// one after the other, within bounds.
func budget(groups []group) time.Duration {
	var sum time.Duration
	for _, g := range groups {
		sum += g.wants() + forceReserve
	}
	return min(max(sum, leastBudget), mostBudget)
}

// share decides how long the guests of the first of some groups are given, by
// what is left for all of them and what each wants. Where there is not enough
// all get less, in proportion: one that may take long must not starve those of
// a lower priority, for nobody comes to ask them later. 0 means that there is
// no time to ask.
func share(left time.Duration, wants []time.Duration) time.Duration {
	if left <= 0 || len(wants) == 0 {
		return 0
	}
	n := time.Duration(len(wants))
	free := left - n*min(forceReserve, left/(2*n))
	var sum time.Duration
	for _, w := range wants {
		sum += w
	}
	if sum <= free {
		return wants[0]
	}
	// As fractions of a second: the product of two durations does not fit.
	return time.Duration(float64(free) * (float64(wants[0]) / float64(sum)))
}

// leastAsked is the least that is worth asking a guest with.
const leastAsked = time.Second

// options are those of one instance of a group that was given some time.
func (i Instance) options(given time.Duration) power.Options {
	timeout := min(i.wants(), given)
	if timeout < leastAsked {
		return power.Options{Force: true}
	}
	return power.Options{Timeout: timeout, ForceAfter: true}
}
