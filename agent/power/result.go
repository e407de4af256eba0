package power

import (
	"fmt"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
)

// result tells what was climbed. The rung that ended the instance is the last
// one that may have had an effect: a guest obeys the button some time after it
// was pressed.
func (c *climb) result(d decision) Result {
	r := Result{Rung: api.RungAlready}
	var climbed []act
	for _, a := range rungs {
		if _, ok := c.s.tried[a]; ok {
			climbed = append(climbed, a)
		}
	}
	slices.SortStableFunc(climbed, func(a, b act) int { return c.s.tried[a].first.Compare(c.s.tried[b].first) })
	for i, a := range climbed {
		t, until := c.s.tried[a], c.s.now
		if i+1 < len(climbed) {
			until = c.s.tried[climbed[i+1]].first
		}
		rung := api.RungTime{Rung: string(a), Took: api.Duration(until.Sub(t.first)), Tries: t.count}
		if t.err != nil {
			rung.Error = t.err.Error()
		}
		r.Rungs = append(r.Rungs, rung)
		if t.landed {
			r.Rung = string(a)
		}
	}
	if d.act != actDone {
		r.Rung = ""
	}
	if d.warning != "" {
		r.Warnings = append(r.Warnings, d.warning)
	}
	if c.blind != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf("its process could not be looked for, libvirt was believed: %v", c.blind))
	}
	return r
}
