package schedule

import (
	"fmt"
	"math/rand/v2"
)

// stream keeps these draws apart from those of others who use the same seed.
const stream = 0x7768657272790001

// Generate draws the schedule of a seed. Equal seeds give equal schedules, for as long as this package is the same.
func Generate(seed uint64) Schedule {
	g := generator{Rand: rand.New(rand.NewPCG(seed, stream)), s: Schedule{Seed: seed}, labels: map[string]int{}}
	g.s.Link = pick(&g, "400mbit", "200mbit", "100mbit")
	g.instances()
	for range 1 + g.IntN(3) {
		g.story()
	}
	return g.s
}

type generator struct {
	*rand.Rand
	s      Schedule
	labels map[string]int // how many operations of each letter there are
	filled bool
	broken []Act // what puts right what is broken, in the order in which it broke
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// chance is true that many times in a hundred.
func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) instances() {
	count := 1
	if g.chance(30) {
		count = 2
	}
	for n := range count {
		i := Instance{Name: fmt.Sprintf("i%d", n+1), Host: pick(g, "a", "b"), Pool: pick(g, DefaultPool, SmallPool)}
		disks := 1
		if g.chance(45) {
			disks = 2 + g.IntN(2)
		}
		for d := range disks {
			i.Disks = append(i.Disks, g.disk(d))
		}
		i.Maker = pick(g, ByXML, ByVirsh)
		if from := i.Disks[0].Stands; from != Alone && from != Shared {
			i.Maker = pick(g, ByAgent, ByAgent, ByXML)
		}
		g.s.Instances = append(g.s.Instances, i)
	}
}

func (g *generator) disk(n int) Disk {
	d := Disk{Target: fmt.Sprintf("vd%c", 'a'+n), Format: "qcow2"}
	if n == 0 {
		d.Stands = pick(g, Alone, Alone, Full, Linked, Linked, Direct, Lone)
	} else {
		d.Stands = pick(g, Alone, Alone, Linked, Direct, Shared, CDROM)
	}
	switch {
	case d.Stands == CDROM:
		d.Target, d.Format = fmt.Sprintf("sd%c", 'a'+n), "raw"
	case d.Stands == Alone && g.chance(40):
		d.Format = "raw"
	}
	return d
}

// add puts an act at the end.
func (g *generator) add(a Act) {
	if a.When.Moment == "" {
		a.When.Moment = AtOnce
	}
	g.s.Acts = append(g.s.Acts, a)
}

func (g *generator) label(letter string) string {
	g.labels[letter]++
	return fmt.Sprintf("%s%d", letter, g.labels[letter])
}

// story is a migration with what happens to it.
func (g *generator) story() {
	i := g.s.Instances[g.IntN(len(g.s.Instances))]
	m := g.label("m")
	g.add(Act{Do: Migrate, Label: m, Instance: i.Name, Option: pick(g, "auto", "auto", "full", "linked", "stage"), When: g.before()})
	for range g.IntN(4) {
		g.incident(i, m)
	}
	// Most of what is broken is put right at some time, the rest at the end.
	for len(g.broken) > 0 && g.chance(75) {
		g.mend(i, m)
	}
}

// before is what a story waits for: the one before is over, or it is not.
func (g *generator) before() Trigger {
	if n := g.labels["m"] - 1; n > 0 && g.chance(80) && !g.blind() {
		return Trigger{Moment: Ended, Of: fmt.Sprintf("m%d", n)}
	}
	return Trigger{Moment: AtOnce}
}

// blind: an agent is down, and operations may not be seen.
func (g *generator) blind() bool {
	for _, a := range g.broken {
		if a.Do == StartAgent {
			return true
		}
	}
	return false
}

// moment draws when something happens in the course of a migration.
func (g *generator) moment(i Instance, m string) Trigger {
	if g.blind() {
		return pick(g, Trigger{Moment: AtOnce}, Trigger{Moment: Blocks, Of: i.Name, N: 1 + g.IntN(60)}, Trigger{Moment: Moved, Of: i.Name})
	}
	switch n := g.IntN(20); {
	case n < 2:
		return Trigger{Moment: AtOnce}
	case n < 3:
		return Trigger{Moment: Begun, Of: m}
	case n < 10:
		return Trigger{Moment: pick(g, Connect, Prepare, Perform, Perform, Commit, Commit, Clean), Of: m}
	case n < 15:
		return Trigger{Moment: Percent, Of: m, N: 1 + g.IntN(99)}
	case n < 17:
		return Trigger{Moment: Memory, Of: m}
	case n < 18:
		return Trigger{Moment: Moved, Of: i.Name}
	}
	return Trigger{Moment: Blocks, Of: i.Name, N: 1 + g.IntN(60)}
}

// is tells whether something of that kind is broken, on that host.
func (g *generator) is(mend Action, host string) bool {
	for _, a := range g.broken {
		if a.Do == mend && a.Host == host {
			return true
		}
	}
	return false
}

// breaks adds what breaks something, unless that is broken already.
func (g *generator) breaks(a, mend Act) {
	if !g.is(mend.Do, mend.Host) {
		g.add(a)
		g.broken = append(g.broken, mend)
	}
}

func (g *generator) incident(i Instance, m string) {
	when, host := g.moment(i, m), pick(g, "a", "b")
	switch n := g.IntN(100); {
	case n < 14:
		g.add(Act{Do: Cancel, Of: m, When: when})
	case n < 36:
		g.breaks(Act{Do: KillAgent, Host: host, When: when}, Act{Do: StartAgent, Host: host})
	case n < 49:
		g.breaks(Act{Do: KillLibvirt, Host: host, When: when}, Act{Do: StartLibvirt, Host: host})
	case n < 62:
		g.breaks(Act{Do: Cut, Host: host, When: when}, Act{Do: Join, Host: host})
	case n < 68:
		g.add(Act{Do: Slow, Host: host, Option: pick(g, "20mbit", "50mbit"), When: when})
	case n < 80:
		if g.fillable(i) {
			g.filled = true
			g.breaks(Act{Do: Fill, Of: m, When: when}, Act{Do: Free})
		}
	case n < 87:
		g.add(Act{Do: Stop, Label: g.label("s"), Instance: i.Name, Option: pick(g, "ask", "force"), When: when})
	case n < 93:
		g.add(Act{Do: Start, Label: g.label("u"), Instance: i.Name, When: when})
	default:
		g.add(Act{Do: Rebuild, Label: g.label("r"), Instance: i.Name, When: when})
	}
}

// fillable: no other guest may stand in the pool, for it would be paused for want of space.
func (g *generator) fillable(i Instance) bool {
	for _, other := range g.s.Instances {
		if other.Pool == SmallPool && other.Name != i.Name {
			return false
		}
	}
	return i.Pool == SmallPool && !g.filled
}

// mend puts right one of the things that are broken.
func (g *generator) mend(i Instance, m string) {
	n := g.IntN(len(g.broken))
	a := g.broken[n]
	a.When = pick(g, Trigger{Moment: AtOnce}, Trigger{Moment: Blocks, Of: i.Name, N: 1 + g.IntN(120)})
	// What ends by itself is to be seen ending, too.
	if !g.blind() && g.chance(30) {
		a.When = Trigger{Moment: Ended, Of: m}
	}
	g.broken = append(g.broken[:n:n], g.broken[n+1:]...)
	g.add(a)
}
