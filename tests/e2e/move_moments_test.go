//go:build lab

package e2e

import (
	"slices"
	"testing"
)

// moveSteps is all that a migration journals that nothing disturbs, in its order.
var moveSteps = []string{
	"accepted",
	"inspect: running", "inspect: done",
	"offer: running", "offer: done",
	"decide: running", "decide: done",
	"connect: running", "connect: done",
	"prepare: running", "prepare: done",
	"perform: running", "perform: done",
	"commit: running", "commit: done",
	"clean: running", "clean: done",
	"succeeded",
}

// The order of what is journalled says what must come of a migration in which
// something is killed.
var (
	asksLibvirt = slices.Index(moveSteps, "perform: running") // nothing has moved before
	hasMoved    = slices.Index(moveSteps, "perform: done")    // there is no way back from then on
)

// killedAtEveryStep moves an instance once for each step, to and fro, and kills
// the victims the moment that it is journalled. They are started again at once.
// Each time the instance has either moved or stayed, whole, and the operation
// says which; the next one goes through.
func killedAtEveryStep(t *testing.T, chosen func(from, to *side) []victim) {
	w := begin(t)
	w.atMost(6 * testTime)
	c := w.toCross("vm")
	for i, step := range moveSteps {
		t.Run(step, func(t *testing.T) {
			c := c.within(t)
			victims := chosen(c.on, c.other(c.on))
			op := c.struck(step, victims)
			t.Logf("%s: %s", op.Status, describe(op.Error))
			moved := c.judge(op)
			if i >= hasMoved && !moved {
				t.Errorf("it did not move, though %q had been journalled", step)
			}
			if i < asksLibvirt && slices.Contains(victims, victim{on: c.from}) && (moved || op.Error.Code != "interrupted") {
				t.Errorf("it ended as %s: %s; want it interrupted", op.Status, describe(op.Error))
			}
		})
	}
	if got := c.crosses(); !slices.Equal(got, moveSteps) {
		t.Errorf("a migration that nothing disturbs journals %q; want %q", got, moveSteps)
	}
}

func TestSourceAgentKilledAtEveryStepOfAMove(t *testing.T) {
	killedAtEveryStep(t, func(from, _ *side) []victim { return []victim{{on: from}} })
}

func TestDestinationAgentKilledAtEveryStepOfAMove(t *testing.T) {
	killedAtEveryStep(t, func(_, to *side) []victim { return []victim{{on: to}} })
}

func TestBothAgentsKilledAtEveryStepOfAMove(t *testing.T) {
	killedAtEveryStep(t, func(from, to *side) []victim { return []victim{{on: from}, {on: to}} })
}

func TestSourceLibvirtKilledAtEveryStepOfAMove(t *testing.T) {
	killedAtEveryStep(t, func(from, _ *side) []victim { return []victim{{on: from, libvirt: true}} })
}

func TestDestinationLibvirtKilledAtEveryStepOfAMove(t *testing.T) {
	killedAtEveryStep(t, func(_, to *side) []victim { return []victim{{on: to, libvirt: true}} })
}
