package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
)

// decide does what a person does about operations that need one: looks where the guest runs, and says so. With both
// hosts well again one of the two answers must be taken. Sources are asked first: what they decide settles the other host.
// It tells how many there were, and what is wrong with them.
func (p *play) decide(ctx context.Context) (count int, broken []string) {
	for _, receive := range []bool{false, true} {
		n, wrong := p.decideAll(ctx, receive)
		count, broken = count+n, append(broken, wrong...)
	}
	return count, broken
}

func (p *play) decideAll(ctx context.Context, receive bool) (count int, broken []string) {
	for _, i := range p.s.Instances {
		for _, h := range p.hosts() {
			ops, err := h.api.Operations(ctx, filter(p.name(i.Name)))
			if err != nil {
				return count, append(broken, err.Error())
			}
			for _, op := range ops {
				if op.Status != api.StatusNeedsDecision || (op.Kind == "receive") != receive {
					continue
				}
				count++
				p.journal.note("operation %s needs a decision: %v", op.ID, op.Error)
				if err := p.resolve(ctx, h, op); err != nil {
					broken = append(broken, fmt.Sprintf("host %s: operation %s needs a decision, and takes none: %v", h.Name, op.ID, err))
				}
			}
		}
	}
	return count, broken
}

// resolver is what of an agent decide needs.
type resolver interface {
	Resolve(ctx context.Context, id string, r api.ResolveRequest, key string) (api.Operation, error)
	WaitOperation(ctx context.Context, id string, each func(api.Operation)) (api.Operation, error)
}

func (p *play) resolve(ctx context.Context, h *host, op api.Operation) error {
	to := p.other(h)
	if op.Kind == "receive" {
		to = h
	}
	there, err := to.State(ctx, op.Instance)
	if err != nil {
		return err
	}
	here, err := p.other(to).State(ctx, op.Instance)
	if err != nil {
		return err
	}
	// Libvirt defines it there only when it has arrived: where neither runs, its last writes are there.
	return resolve(ctx, h.api, op.ID, there == "running" || there == "shut off" && here != "running", p.journal.note)
}

// resolve keeps the copy that was written last, and the other one only where the agent will not have that.
func resolve(ctx context.Context, agent resolver, id string, arrived bool, note func(string, ...any)) error {
	answers := []string{api.SideSource, api.SideDestination}
	if arrived {
		answers = []string{api.SideDestination, api.SideSource}
	}
	var refused []error
	for _, keep := range answers {
		again, err := agent.Resolve(ctx, id, api.ResolveRequest{Keep: keep}, "")
		if err == nil {
			again, err = agent.WaitOperation(ctx, again.ID, nil)
		}
		note("to keep the %s: %s, %v", keep, again.Status, err)
		if err == nil && again.Status != api.StatusNeedsDecision {
			return nil
		}
		if err == nil && again.Error != nil {
			err = again.Error
		}
		refused = append(refused, fmt.Errorf("to keep the %s: %w", keep, err))
	}
	return errors.Join(refused...)
}
