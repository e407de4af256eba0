package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
	"github.com/wherry-kvm/wherry/tests/harness"
)

const (
	// tidyTime is how long hosts may take to be tidy once all operations have ended: a lease of ten seconds, a sweep, a
	// QEMU that takes its time to go, and a debt that is looked after every minute.
	tidyTime = 90 * time.Second
	// guestTime is for one guest to be found whole, or to boot and be found whole.
	guestTime = 3 * time.Minute
	resetTime = 2 * time.Minute
)

// judge looks whether every invariant holds, and leaves the lab as it was.
func (p *play) judge(ctx context.Context, out *result) {
	if err := p.settle(ctx); err != nil {
		out.broken = append(out.broken, fmt.Sprintf("unsettled: %v", err))
		return
	}
	p.journal.note("settled")
	decisions, undecidable := p.decide(ctx)
	out.decisions, out.broken = decisions, append(out.broken, undecidable...)
	stories, err := p.stories(ctx, out)
	if err != nil {
		out.broken = append(out.broken, fmt.Sprintf("the harness: %v", err))
		return
	}
	var last scene
	waits := ""
	err = harness.Until(within(ctx, tidyTime), "the hosts to be as they should", func(ctx context.Context) error {
		now, err := p.scene(ctx, stories)
		if err != nil {
			return err // what was seen before is the last that was seen whole
		}
		last = now
		if broken := last.broken(); len(broken) > 0 {
			if text := strings.Join(broken, "; "); text != waits {
				waits = text
				p.journal.note("not yet: %s", text)
			}
			return &violations{broken}
		}
		return nil
	})
	if v, ok := errors.AsType[*violations](err); ok {
		out.broken = append(out.broken, v.each...)
	} else if err != nil {
		out.broken = append(out.broken, err.Error())
	}
	p.journal.note("the hosts have been looked at")
	for _, i := range p.s.Instances {
		if stories[p.name(i.Name)].undecided {
			out.undecided++
			continue
		}
		for _, why := range p.whole(ctx, i, last, stories[p.name(i.Name)]) {
			out.broken = append(out.broken, fmt.Sprintf("%s: %s", p.name(i.Name), why))
		}
	}
	p.journal.note("the guests have been looked at")
	if out.undecided > 0 || len(out.broken) > 0 {
		return // the lab is thrown away, and is to show what is wrong
	}
	if err := p.reset(ctx); err != nil {
		out.broken = append(out.broken, fmt.Sprintf("reset: %v", err))
	}
}

// violations are invariants that do not hold.
type violations struct{ each []string }

func (v *violations) Error() string { return strings.Join(v.each, "; ") }

// within gives ctx an end that comes no later than in d. What holds it is freed then.
func within(ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// stories reads every operation of the seed, wants each to be honest, and tells where the instances are then.
func (p *play) stories(ctx context.Context, out *result) (map[string]story, error) {
	stories := map[string]story{}
	for _, i := range p.s.Instances {
		name := p.name(i.Name)
		var ops []told
		for _, h := range p.hosts() {
			list, err := h.api.Operations(ctx, filter(name))
			if err != nil {
				return nil, err
			}
			for _, op := range list {
				if op.CreatedAt.Before(p.ready) {
					continue
				}
				t := told{h.Name, op}
				ops = append(ops, t)
				out.broken = append(out.broken, honest(t)...)
				out.ended = append(out.ended, ending(op))
				out.broken = append(out.broken, p.reserved(ctx, h, op)...)
			}
		}
		story := follow(i.Host, ops)
		if p.killed[i.Name] {
			story.killed()
		}
		stories[name] = story
	}
	return stories, nil
}

// reserved wants no reservation that still waits for a migration which has ended. Those of sources that were lost end
// with their lease, and are waited for.
func (p *play) reserved(ctx context.Context, h *host, op api.Operation) []string {
	if op.Kind != "migrate" || op.Status == api.StatusNeedsDecision {
		return nil
	}
	to := p.other(h)
	err := harness.Until(within(ctx, tidyTime), "the end of reservation "+op.ID, func(ctx context.Context) error {
		in, err := to.api.Incoming(ctx, op.ID)
		if api.CodeOf(err) == "not-found" || err == nil && in.State == "committed" {
			return nil
		}
		return errors.Join(err, fmt.Errorf("it is %s", in.State))
	})
	if err != nil {
		return []string{fmt.Sprintf("host %s: %v", to.Name, err)}
	}
	return nil
}

// ending is how an operation ended, in a word or two.
func ending(op api.Operation) string {
	text := op.Kind + " " + op.Status
	if op.Error != nil {
		text += " (" + op.Error.Code + ")"
	}
	return text
}

func (p *play) scene(ctx context.Context, stories map[string]story) (scene, error) {
	s := scene{hosts: map[string]facts{}, mounts: map[string][]string{}, templates: map[string][]string{}, partial: map[string]bool{}, stories: stories}
	for _, i := range p.s.Instances {
		if stories[p.name(i.Name)].rebuilt && i.Maker != schedule.ByAgent {
			s.brought = append(s.brought, p.path(i, i.Disks[0]))
		}
	}
	for _, h := range p.hosts() {
		f, err := h.facts(ctx)
		if err != nil {
			return s, err
		}
		list, err := h.api.Templates(ctx)
		if err != nil {
			return s, err
		}
		for _, t := range list {
			for _, c := range t.Copies {
				s.templates[h.Name] = append(s.templates[h.Name], c.Path)
				s.partial[h.Name] = s.partial[h.Name] || c.State != api.CopyReady
			}
		}
		s.hosts[h.Name], s.mounts[h.Name] = f, h.mounts
	}
	return s, nil
}

func (p *play) vitals(ctx context.Context) error {
	var out []string
	for _, h := range p.hosts() {
		now, err := h.vitals(ctx)
		if err != nil {
			return err
		}
		if now.since != h.first.since {
			h.first = now
		}
		out = append(out, healthy(h.Name, h.first, now)...)
		p.journal.note("host %s: %+v", h.Name, now)
	}
	if len(out) > 0 {
		return &violations{out}
	}
	return nil
}

// whole wants a guest to find everything it wrote. One that is off is started for that, by the agent.
func (p *play) whole(ctx context.Context, i schedule.Instance, s scene, story story) []string {
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	name, guest := p.name(i.Name), p.lab.Guest(p.name(i.Name))
	h := p.a
	if s.hosts["a"].domains[name] == nil {
		h = p.b
	}
	d := s.hosts[h.Name].domains[name]
	if d == nil {
		return []string{"it is nowhere"}
	}
	started := false
	if d.state == "shut off" {
		started = true
		op, err := h.api.Start(ctx, p.ref(i.Name), "")
		if err := h.succeeded(ctx, op, err); err != nil {
			return []string{fmt.Sprintf("it does not start again on host %s: %v", h.Name, err)}
		}
	}
	if err := guest.WaitMore(ctx, h.Host, "vda", 2); err != nil {
		return []string{err.Error()}
	}
	reports, err := guest.Verify(ctx, h.Host)
	if err != nil {
		return []string{err.Error()}
	}
	return p.told(ctx, i, reports, story, started)
}

// told holds what the guest found against what it has printed on both hosts.
func (p *play) told(ctx context.Context, i schedule.Instance, reports []harness.DiskReport, story story, started bool) []string {
	guest := p.lab.Guest(p.name(i.Name))
	var consoles [2]harness.Console
	for n, h := range p.hosts() {
		var err error
		if consoles[n], err = guest.Console(ctx, h.Host); err != nil {
			return []string{err.Error()}
		}
	}
	var out []string
	boots, err := guest.Boots(ctx)
	if err != nil || !story.restarted && !started && len(boots) != 1 {
		out = append(out, fmt.Sprintf("nobody has stopped it, and it booted %d times: %q %v", len(boots), boots, err))
	}
	for n, console := range consoles {
		for _, complaint := range console.Complaints() {
			out = append(out, fmt.Sprintf("it says on host %s: %s", p.hosts()[n].Name, complaint))
		}
	}
	for _, d := range i.Written() {
		if d.Target == "vda" && story.rebuilt {
			continue
		}
		at := slices.IndexFunc(reports, func(r harness.DiskReport) bool { return r.Disk == d.Guest })
		if at < 0 {
			out = append(out, fmt.Sprintf("it has no disk %s, which it calls %s", d.Target, d.Guest))
			continue
		}
		a, b := consoles[0].Blocks(d.Guest), consoles[1].Blocks(d.Guest)
		// What came after the report does not count: it is of the same guest.
		if again := twice(a, b); len(again) > 0 {
			out = append(out, fmt.Sprintf("disk %s: blocks %v were written more than once: two copies ran, or a disk went back in time", d.Target, again))
		}
		if reports[at].Last < 0 || reports[at].Blocks == 0 {
			out = append(out, fmt.Sprintf("disk %s: %+v; want blocks", d.Target, reports[at]))
		}
		if stands := d.Stands; stands != schedule.Shared && reports[at].Template == 0 {
			out = append(out, fmt.Sprintf("disk %s: %+v; want the blocks that were there before it was first started", d.Target, reports[at]))
		}
	}
	return out
}

// twice are the numbers that were printed more than once: no number is used again while one copy runs on one disk.
func twice(a, b []int64) []int64 {
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	var out []int64
	for n := 1; n < len(all); n++ {
		if all[n] == all[n-1] {
			out = append(out, all[n])
		}
	}
	return slices.Compact(out)
}

// reset takes all instances of the seed away, by the agents as far as they will, and wants the hosts to be as at first.
func (p *play) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, resetTime)
	defer cancel()
	var errs []error
	for _, i := range p.s.Instances {
		h := p.where(ctx, i.Name)
		op, err := h.api.Stop(ctx, p.ref(i.Name), api.StopRequest{Force: true}, "")
		if err = h.succeeded(ctx, op, err); err == nil {
			op, err = h.api.Delete(ctx, p.ref(i.Name), api.DeleteRequest{}, "")
			err = h.succeeded(ctx, op, err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("deleting %s on host %s: %w", p.name(i.Name), h.Name, err))
		}
		errs = append(errs, p.both(func(h *host) error { return h.Remove(ctx, p.name(i.Name)) }), p.lab.Guest(p.name(i.Name)).Forget(ctx))
	}
	errs = append(errs, p.both(func(h *host) error {
		// What a caller brought is its own to remove.
		_, err := h.Exec(ctx, "find", harness.ImagesPath, smallFolder, harness.SharedPath, "-ignore_readdir_race", "-name", fmt.Sprintf("*-s%d*", p.s.Seed), "-delete")
		return errors.Join(p.unstage(ctx, h), err)
	}))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return harness.Until(ctx, "clean hosts", func(ctx context.Context) error {
		s, err := p.scene(ctx, nil)
		if err != nil {
			return err
		}
		for host, f := range s.hosts {
			if len(f.domains) > 0 {
				return fmt.Errorf("host %s has still %d domains", host, len(f.domains))
			}
		}
		if broken := s.broken(); len(broken) > 0 {
			return &violations{broken}
		}
		return p.vitals(ctx)
	})
}

// unstage removes the templates that a migration has brought to a host: the next seed is to find what the first did.
func (p *play) unstage(ctx context.Context, h *host) error {
	list, err := h.api.Templates(ctx)
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.ID == "lone-"+p.other(h).Name && t.RemovedAt == nil {
			if _, err := h.api.RemoveTemplate(ctx, t.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
