package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

const (
	healTime = 3 * time.Minute
	// settleTime is how long operations may take to end once all is well again. An agent asks both hosts for two minutes
	// before it asks a person; nothing else may take as long.
	settleTime = 150 * time.Second
)

// heal puts everything right: links, space, libvirt, agents, and guests that libvirt paused for want of space.
func (p *play) heal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTime)
	defer cancel()
	p.journal.note("everything is put right")
	err := p.rate(ctx, "off")
	for _, h := range p.hosts() {
		err = errors.Join(err, h.Link(ctx, true), h.free(ctx))
	}
	err = errors.Join(err, p.both(func(h *host) error {
		if err := h.Libvirtd(ctx, "start"); err != nil {
			return err
		}
		return h.Agent(ctx, "start", h.settings()...)
	}), p.both(func(h *host) error { return p.resume(ctx, h) }))
	clear(p.down)
	p.journal.note("everything is up: %v", err)
	return err
}

// both does something to each host at the same time.
func (r *rig) both(do func(*host) error) error {
	errs := make([]error, 2)
	var work sync.WaitGroup
	for n, h := range r.hosts() {
		work.Go(func() { errs[n] = do(h) })
	}
	work.Wait()
	return errors.Join(errs...)
}

// resume does what an operator does for a guest that stands still since a disk was full: nobody else may.
func (p *play) resume(ctx context.Context, h *host) error {
	for _, i := range p.s.Instances {
		name := p.name(i.Name)
		state, err := h.State(ctx, name)
		if err != nil {
			return err
		}
		if state != "paused" {
			continue
		}
		reason, err := h.Virsh(ctx, "domstate", "--reason", name)
		if err == nil && strings.Contains(reason, "I/O error") {
			p.journal.note("resuming %s on host %s: %s", name, h.Name, reason)
			_, err = h.Virsh(ctx, "resume", name)
		}
		// One that was paused because it moves may be gone by now.
		if state, again := h.State(ctx, name); err != nil && (again != nil || state == "paused") {
			return err
		}
	}
	return nil
}

// settle waits until no operation goes on and nobody holds an instance.
func (p *play) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return harness.Until(ctx, "everything to settle", func(ctx context.Context) error {
		var errs []error
		for _, h := range p.hosts() {
			errs = append(errs, p.settled(ctx, h))
		}
		return errors.Join(errs...)
	})
}

func (p *play) settled(ctx context.Context, h *host) error {
	for _, i := range p.s.Instances {
		ops, err := h.api.Operations(ctx, filter(p.name(i.Name)))
		if err != nil {
			return err
		}
		for _, op := range ops {
			if !op.Ended() {
				return fmt.Errorf("host %s: operation %s %s is %s, phase %q", h.Name, op.Kind, op.ID, op.Status, op.Phase)
			}
		}
		inst, err := h.api.Instance(ctx, p.ref(i.Name))
		switch {
		case api.CodeOf(err) == "not-found":
		case err != nil:
			return err
		case inst.Operation != "" || inst.Lock != nil:
			return fmt.Errorf("host %s: %s is held by %q, %+v", h.Name, inst.Name, inst.Operation, inst.Lock)
		}
	}
	return nil
}
