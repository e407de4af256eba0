package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

// expect makes the destination's gate wait at those moments of a migration's handover that the schedule has acts for.
func (p *play) expect(q *request) {
	var moments []schedule.Moment
	for _, a := range p.s.Acts {
		if a.When.Moment.Held() && a.When.Of == q.act.Label {
			moments = append(moments, a.When.Moment)
		}
	}
	if len(moments) > 0 {
		q.handing = p.other(q.at).gate.expect(q.ref.Name, moments...)
	}
}

// letGo ends every moment that is held, unless the next act happens in it too.
func (p *play) letGo(next schedule.Trigger) {
	if next.Moment == schedule.AtOnce {
		return
	}
	for label, q := range p.asked {
		if q.handing == nil {
			continue
		}
		for m, pause := range q.handing.moments {
			if pause.has() && (next.Of != label || next.Moment != m) {
				pause.end()
			}
		}
	}
}

// passOn lets all handovers pass from now on.
func (p *play) passOn() {
	for _, q := range p.asked {
		if q.handing == nil {
			continue
		}
		for _, pause := range q.handing.moments {
			pause.end()
		}
	}
}

// handoverComes looks at the gate, and at the agent only for what makes waiting vain.
func (p *play) handoverComes(ctx context.Context, t schedule.Trigger) (ok, never bool, seen string) {
	q := p.asked[t.Of]
	if q.handing.moments[t.Moment].has() {
		return true, false, ""
	}
	select {
	case <-q.answered:
		if q.err != nil && q.id == "" {
			return false, true, fmt.Sprintf("%v: %v", errNone, q.err)
		}
	default:
	}
	op, err := q.look(ctx)
	switch {
	case errors.Is(err, errNone):
		return false, true, err.Error()
	case err != nil:
		return false, false, err.Error()
	}
	return false, op.Ended(), fmt.Sprintf("%s, phase %q, %.0f%%", op.Status, op.Phase, op.Progress.Percent)
}

// lose ends the connection by which a guest is handed over: at the handover the destination never hears that all has
// moved, when it has started the guest the source never hears of that.
func (p *play) lose(a schedule.Act) {
	pause := p.asked[a.Of].handing.moments[a.When.Moment]
	if !pause.has() {
		p.journal.note("there is nothing to lose")
		return
	}
	pause.lost = true
	pause.end()
}

// killQEMU ends the process that runs a guest at the source or at the destination of its migration, if there is one.
func (p *play) killQEMU(ctx context.Context, a schedule.Act) error {
	q := p.asked[a.Of]
	h := q.at
	if a.Option == "destination" {
		h = p.other(h)
	}
	out, err := h.Exec(ctx, "sh", "-c", `pid=$(cat "/run/libvirt/qemu/$0.pid" 2>/dev/null) || exit 0
tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "guest=$0," || exit 0
kill -9 "$pid" && echo killed`, q.ref.Name)
	if strings.TrimSpace(out) == "" {
		p.journal.note("no QEMU runs %s on host %s", q.ref.Name, h.Name)
		return err
	}
	p.killed[q.act.Instance] = true
	return err
}
