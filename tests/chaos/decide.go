package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
)

// decide does what a person does about operations that need one: looks where the guest runs, and says so. With both
// hosts well again one of the two answers must be taken. It tells how many there were, and what is wrong with them.
func (p *play) decide(ctx context.Context) (count int, broken []string) {
	for _, i := range p.s.Instances {
		for _, h := range p.hosts() {
			ops, err := h.api.Operations(ctx, filter(p.name(i.Name)))
			if err != nil {
				return count, append(broken, err.Error())
			}
			for _, op := range ops {
				if op.Status != api.StatusNeedsDecision {
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

func (p *play) resolve(ctx context.Context, h *host, op api.Operation) error {
	there, err := p.other(h).State(ctx, op.Instance)
	if err != nil {
		return err
	}
	answers := []string{api.SideSource, api.SideDestination}
	if there == "running" {
		answers = []string{api.SideDestination, api.SideSource}
	}
	var refused []error
	for _, keep := range answers {
		again, err := h.api.Resolve(ctx, op.ID, api.ResolveRequest{Keep: keep}, "")
		if err == nil {
			again, err = h.api.WaitOperation(ctx, again.ID, nil)
		}
		p.journal.note("to keep the %s: %s, %v", keep, again.Status, err)
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
