package schedule

import (
	"fmt"
	"math/rand/v2"
)

// stream keeps these draws apart from those of others who use the same seed.
const stream = 0x7768657272790001

// The sample are a few seeds in which every action and every moment occurs.
const (
	SampleBase = 178
	SampleSize = 10
)

// Generate draws the schedule of a seed. Equal seeds give equal schedules, for as long as this package is the same.
func Generate(seed uint64) Schedule {
	g := generator{Rand: rand.New(rand.NewPCG(seed, stream)), s: Schedule{Seed: seed}, labels: map[string]int{}}
	g.s.Link = pick(&g, "400mbit", "200mbit", "100mbit")
	g.instances()
	g.story()
	if g.chance(50) {
		g.story()
	}
	return g.s
}

type generator struct {
	*rand.Rand
	ends   bool // something has happened to the migration that it hardly survives
	s      Schedule
	labels map[string]int // how many operations of each letter there are
	broken []Act          // what puts right what is broken, in the order in which it broke
}

// pick draws one of them, each as often as any other.
func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// chance is true that many times in a hundred.
func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) instances() {
	count := 1
	if g.chance(20) {
		count = 2
	}
	for n := range count {
		i := Instance{Name: fmt.Sprintf("i%d", n+1), Host: pick(g, "a", "b"), Pool: pick(g, DefaultPool, SmallPool, SmallPool)}
		if n > 0 && g.chance(80) {
			i.Pool = DefaultPool // so that the first one's can be filled
		}
		disks := 1
		if g.chance(40) {
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
