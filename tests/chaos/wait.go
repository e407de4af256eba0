package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

const (
	lookEvery = 10 * time.Millisecond // phases pass in as many
	// A trigger that has not come for so long is let go: what was to bring it about was broken before.
	momentTime = 20 * time.Second
	endTime    = 60 * time.Second
	blocksTime = 8 * time.Second
)

// await waits for a trigger. It says why it did not come, "" where it did.
func (p *play) await(ctx context.Context, t schedule.Trigger) string {
	if t.Moment == schedule.AtOnce {
		return ""
	}
	limit := momentTime
	switch t.Moment {
	case schedule.Ended:
		limit = endTime
	case schedule.Blocks:
		limit = blocksTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	come := p.operationComes
	switch {
	case t.Moment.Held():
		come = p.handoverComes
	case t.Moment.Outside():
		come = p.guestComes(ctx, t)
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := "nothing was seen"
	for {
		ok, never, seen := come(ctx, t)
		switch {
		case ok:
			return ""
		case never:
			return seen
		case ctx.Err() == nil:
			last = seen
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Sprintf("not within %s: %s", limit, last)
		}
	}
}

// guestComes looks at the consoles of a guest.
func (p *play) guestComes(ctx context.Context, t schedule.Trigger) func(context.Context, schedule.Trigger) (ok, never bool, seen string) {
	guest := p.lab.Guest(p.name(t.Of))
	newest := func(ctx context.Context) int64 {
		here, _ := guest.LastBlock(ctx, p.a.Host, "vda") // a console that cannot be read has no block
		there, _ := guest.LastBlock(ctx, p.b.Host, "vda")
		return max(here, there)
	}
	began := newest(ctx)
	return func(ctx context.Context, t schedule.Trigger) (ok, never bool, seen string) {
		if t.Moment == schedule.Blocks {
			n := newest(ctx) - began
			return n >= int64(t.N), false, fmt.Sprintf("it wrote %d", n)
		}
		q := p.latest(t.Of)
		if q == nil {
			return false, true, "it was never to move"
		}
		last, err := guest.LastBlock(ctx, p.other(q.at).Host, "vda")
		if err == nil && last > q.there {
			return true, false, ""
		}
		op, err := q.look(ctx)
		// One that has succeeded may have done so just now.
		return false, errors.Is(err, errNone) || err == nil && op.Ended() && op.Status != api.StatusSucceeded, "it does not write there"
	}
}

// latest is the newest migration that was asked for.
func (p *play) latest(short string) *request {
	var found *request
	for _, q := range p.asked {
		if q.act.Do == schedule.Migrate && q.act.Instance == short && (found == nil || q.began.After(found.began)) {
			found = q
		}
	}
	return found
}

// phases of a migration, in order.
var phases = []string{"inspect", "offer", "decide", "connect", "prepare", "perform", "commit", "clean"}

// operationComes asks the agent that has the operation.
func (p *play) operationComes(ctx context.Context, t schedule.Trigger) (ok, never bool, seen string) {
	op, err := p.asked[t.Of].look(ctx)
	if errors.Is(err, errNone) {
		return t.Moment == schedule.Ended, true, err.Error()
	}
	if err != nil {
		return false, false, err.Error()
	}
	ok = reached(op, t)
	return ok, !ok && op.Ended(), fmt.Sprintf("%s, phase %q, %.0f%%", op.Status, op.Phase, op.Progress.Percent)
}

// reached tells whether an operation is as far as the trigger wants it, or further.
func reached(op api.Operation, t schedule.Trigger) bool {
	switch t.Moment {
	case schedule.Begun:
		return op.ID != ""
	case schedule.Ended:
		return op.Ended()
	case schedule.Percent:
		return op.Phase == "perform" && op.Progress.Percent >= float64(t.N) || later(op.Phase, "perform")
	case schedule.Memory:
		m := op.Progress.Memory
		return op.Phase == "perform" && m != nil && m.BytesDone > 0 || later(op.Phase, "perform")
	}
	return op.Phase == string(t.Moment) || later(op.Phase, string(t.Moment))
}

func later(phase, than string) bool {
	return slices.Index(phases, phase) > slices.Index(phases, than)
}

func filter(instance string) client.OperationFilter {
	return client.OperationFilter{Instance: instance}
}

// listen notes what an agent tells, over all its starts.
func (p *play) listen(ctx context.Context, h *host) {
	said := map[string]string{}
	var last uint64
	for ctx.Err() == nil {
		err := h.api.Events(ctx, last, func(e api.Event) error {
			last = max(last, e.ID)
			if e.At.Before(p.journal.began) {
				return nil
			}
			text := e.Detail
			if e.Operation != nil {
				text = fmt.Sprintf("%s %s: %s, phase %q", e.Operation.Kind, e.Operation.ID, e.Operation.Status, e.Operation.Phase)
				if e.Operation.Error != nil {
					text += fmt.Sprintf(" (%s: %v)", e.Operation.Error.Code, e.Operation.Error)
				}
			}
			if key := e.Kind + e.Instance; said[key] != text {
				said[key] = text
				p.journal.note("host %s, %s %s: %s", h.Name, e.Kind, e.Instance, text)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			p.journal.note("host %s: no more events: %v", h.Name, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
