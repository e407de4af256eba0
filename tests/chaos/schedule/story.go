package schedule

import (
	"fmt"
	"slices"
)

// story is a migration with what happens to it, in the order in which a migration passes through its moments.
func (g *generator) story() {
	i := g.s.Instances[g.IntN(len(g.s.Instances))]
	m := g.label("m")
	g.add(Act{Do: Migrate, Label: m, Instance: i.Name, Option: pick(g, "auto", "auto", "auto", "full", "full", "linked", "stage"), When: g.before()})
	g.ends = false
	var moments []Trigger
	for range 1 + g.IntN(3) {
		moments = append(moments, g.moment(i, m))
	}
	slices.SortStableFunc(moments, func(a, b Trigger) int { return a.passed() - b.passed() })
	for _, when := range moments {
		g.incident(i, m, g.seen(i, when))
	}
	// Most of what is broken is put right at some time, the rest at the end.
	for len(g.broken) > 0 && g.chance(75) {
		g.mend(g.IntN(len(g.broken)), i, m)
	}
}

// before is what a story waits for: the one before is over, or it is not.
func (g *generator) before() Trigger {
	if n := g.labels["m"] - 1; n > 0 && g.chance(80) && !g.blind() {
		return Trigger{Moment: Ended, Of: fmt.Sprintf("m%d", n)}
	}
	return Trigger{Moment: AtOnce}
}

// moment draws when something happens in the course of a migration: more often than not about the switchover, where
// both sides have to agree on what is so.
func (g *generator) moment(i Instance, m string) Trigger {
	switch n := g.IntN(100); {
	case n < 4:
		return Trigger{Moment: AtOnce}
	case n < 9:
		return Trigger{Moment: Begun, Of: m}
	case n < 27:
		return Trigger{Moment: pick(g, Connect, Prepare, Prepare, Perform, Perform), Of: m}
	case n < 36:
		return Trigger{Moment: Percent, Of: m, N: 1 + g.IntN(99)}
	case n < 43:
		return Trigger{Moment: Memory, Of: m}
	case n < 59:
		return Trigger{Moment: Handover, Of: m}
	case n < 75:
		return Trigger{Moment: Started, Of: m}
	case n < 81:
		return Trigger{Moment: Moved, Of: i.Name}
	case n < 97:
		return Trigger{Moment: pick(g, Commit, Commit, Clean), Of: m}
	}
	return g.little(i)
}

// little is a while that is measured by what a guest does.
func (g *generator) little(i Instance) Trigger {
	return Trigger{Moment: Blocks, Of: i.Name, N: 1 + g.IntN(40)}
}

// order is that of the moments of a migration.
var order = []Moment{AtOnce, Blocks, Begun, Connect, Prepare, Perform, Percent, Memory, Handover, Started, Moved, Commit, Clean, Ended}

// passed sorts triggers of one migration by when they come.
func (t Trigger) passed() int { return 100*slices.Index(order, t.Moment) + t.N }

// seen makes a trigger one that can come: with what is broken, an agent may see nothing, and a migration not get far.
func (g *generator) seen(i Instance, when Trigger) Trigger {
	stuck := slices.ContainsFunc(g.broken, func(mend Act) bool { return mend.Do != StartAgent })
	if (stuck || g.ends) && g.chance(65) {
		return pick(g, Trigger{Moment: AtOnce}, g.little(i))
	}
	if !g.blind() || when.Moment.Outside() {
		return when
	}
	if g.chance(50) {
		// An agent that comes back at once finds the migration where it was, and is hit by what comes next.
		for g.blind() {
			n := slices.IndexFunc(g.broken, func(mend Act) bool { return mend.Do == StartAgent })
			g.add(g.broken[n])
			g.broken = slices.Delete(g.broken, n, n+1)
		}
		return when
	}
	if when.passed() < (Trigger{Moment: Memory}).passed() {
		return g.little(i)
	}
	return Trigger{Moment: Moved, Of: i.Name}
}

// blind: an agent is down, and operations may not be seen.
func (g *generator) blind() bool {
	return slices.ContainsFunc(g.broken, func(mend Act) bool { return mend.Do == StartAgent })
}

// is tells whether something of that kind is broken, on that host.
func (g *generator) is(mend Act) bool {
	return slices.ContainsFunc(g.broken, func(a Act) bool { return a.Do == mend.Do && a.Host == mend.Host })
}

// kinds are what may happen to a migration, and how often in comparison.
var kinds = []struct {
	weight int
	do     Action
}{{10, Cancel}, {14, KillAgent}, {13, KillLibvirt}, {13, Cut}, {7, Slow}, {20, Fill}, {10, Stop}, {7, Start}, {11, Rebuild}, {12, KillQEMU}, {20, Lose}}

// incident adds something that happens at a moment. What makes no sense there is drawn again.
func (g *generator) incident(i Instance, m string, when Trigger) {
	all := 0
	for _, k := range kinds {
		all += k.weight
	}
	for done := false; !done; {
		n := g.IntN(all)
		for _, k := range kinds {
			if n -= k.weight; n < 0 {
				done = g.happens(k.do, i, m, when)
				break
			}
		}
	}
}

// happens adds an act of that kind, if there can be one.
func (g *generator) happens(do Action, i Instance, m string, when Trigger) bool {
	a := Act{Do: do, When: when}
	switch do {
	case Cancel:
		a.Of = m
		g.ends = true
	case KillAgent, KillLibvirt, Cut:
		a.Host = pick(g, "a", "b")
		return g.breaks(a, Act{Do: mends[do], Host: a.Host})
	case Slow:
		a.Host, a.Option = pick(g, "a", "b"), pick(g, "40mbit", "80mbit")
	case Fill:
		if !g.fillable(i) {
			return false
		}
		a.Of = m
		return g.breaks(a, Act{Do: Free})
	case Stop:
		a.Label, a.Instance, a.Option = g.label("s"), i.Name, pick(g, "ask", "force")
	case Start:
		a.Label, a.Instance = g.label("u"), i.Name
	case Rebuild:
		a.Label, a.Instance = g.label("r"), i.Name
	case KillQEMU:
		a.Of, a.Option = m, pick(g, "source", "destination")
		g.ends = true
	case Lose:
		if when.Moment != Handover && when.Moment != Started {
			return false
		}
		a.Of = m
		g.ends = true
	}
	g.add(a)
	return true
}

// breaks adds what breaks something, unless that is broken already.
func (g *generator) breaks(a, mend Act) bool {
	if g.is(mend) {
		return false
	}
	g.add(a)
	g.broken = append(g.broken, mend)
	return true
}

// fillable: no other guest may stand in the pool, for it would be paused for want of space.
func (g *generator) fillable(i Instance) bool {
	for _, other := range g.s.Instances {
		if other.Pool == SmallPool && other.Name != i.Name {
			return false
		}
	}
	return i.Pool == SmallPool
}

// mend puts right one of the things that are broken.
func (g *generator) mend(n int, i Instance, m string) {
	a := g.broken[n]
	a.When = pick(g, Trigger{Moment: AtOnce}, g.little(i))
	// What ends by itself is to be seen ending, too.
	if !g.blind() && g.chance(30) {
		a.When = Trigger{Moment: Ended, Of: m}
	}
	g.broken = slices.Delete(g.broken, n, n+1)
	g.add(a)
}
