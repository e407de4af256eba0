package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

const (
	// playTime bounds one seed, whatever hangs.
	playTime = 10 * time.Minute
	// actTime bounds one act: a daemon that does not come up is an error of the lab.
	actTime = 90 * time.Second
	// answerTime is how long a request may take to be answered: with the link cut, an agent waits for its peer.
	answerTime = 90 * time.Second
)

// play is one seed on the lab.
type play struct {
	*rig
	s       schedule.Schedule
	journal *journal
	asked   map[string]*request // by label
	homes   map[string]*host    // where each instance was seen last
	down    map[*host]bool      // libvirt of these hosts was killed
	killed  map[string]bool     // instances whose QEMU was killed, on one host or the other
	ready   time.Time           // when all guests wrote; what was done before is not of the schedule
	work    sync.WaitGroup      // of requests and starts that are waited for at the end
	late    int                 // triggers that were let go
}

// play does what the schedule says and judges what came of it.
func (r *rig) play(ctx context.Context, s schedule.Schedule) *result {
	ctx, cancel := context.WithTimeout(ctx, playTime)
	defer cancel()
	p := &play{rig: r, s: s, journal: newJournal(), asked: map[string]*request{}, homes: map[string]*host{}, down: map[*host]bool{}, killed: map[string]bool{}}
	out := &result{s: s, journal: p.journal, rig: r}
	listening, deaf := context.WithCancel(ctx)
	var listeners sync.WaitGroup
	for _, h := range r.hosts() {
		listeners.Go(func() { p.listen(listening, h) })
	}
	defer listeners.Wait()
	defer deaf()
	err := p.begin(ctx)
	if err == nil {
		err = p.acts(ctx)
	}
	out.acted = time.Since(p.journal.began)
	p.passOn()
	if errors.Is(ctx.Err(), context.Canceled) {
		return out // somebody has had enough: the lab is thrown away
	}
	// What is broken is put right whatever happened: the lab is used again.
	if healed := p.heal(ctx); err == nil {
		err = healed
	}
	p.work.Wait()
	if err != nil {
		out.broken = append(out.broken, fmt.Sprintf("the harness: %v", err))
	} else {
		p.judge(ctx, out)
	}
	out.late, out.took = p.late, time.Since(p.journal.began)
	out.booted = p.ready.Sub(p.journal.began)
	return out
}

// begin makes the instances, and slows the link down only then.
func (p *play) begin(ctx context.Context) error {
	if err := p.guests(ctx); err != nil {
		return err
	}
	for _, i := range p.s.Instances {
		p.homes[i.Name] = p.host(i.Host)
	}
	p.ready = time.Now()
	p.journal.note("all guests write")
	return p.rate(ctx, p.s.Link)
}

// rate slows down one host after the other: each setting is of the wire between both.
func (p *play) rate(ctx context.Context, rate string) error {
	return errors.Join(p.a.Rate(ctx, rate), p.b.Rate(ctx, rate))
}

func (p *play) acts(ctx context.Context) error {
	for n, a := range p.s.Acts {
		p.letGo(a.When)
		if why := p.await(ctx, a.When); why != "" {
			p.late++
			p.journal.note("#%d waited in vain for %q: %s", n+1, a.When, why)
		}
		p.journal.note("#%d %s", n+1, a)
		if err := p.act(ctx, a); err != nil {
			return fmt.Errorf("act %d, %q: %w", n+1, a, err)
		}
	}
	return ctx.Err()
}

// act does one act. Its error is the lab's: what is asked of an agent may fail as it likes.
func (p *play) act(ctx context.Context, a schedule.Act) error {
	ctx, cancel := context.WithTimeout(ctx, actTime)
	defer cancel()
	h := p.host(a.Host)
	switch a.Do {
	case schedule.Migrate, schedule.Stop, schedule.Start, schedule.Rebuild:
		return p.ask(ctx, a)
	case schedule.Cancel:
		p.cancel(ctx, a)
		return nil
	case schedule.KillAgent:
		return h.KillAgent(ctx)
	case schedule.StartAgent:
		return p.startAgent(ctx, h)
	case schedule.KillLibvirt:
		p.down[h] = true
		return h.Libvirtd(ctx, "kill")
	case schedule.StartLibvirt:
		p.down[h] = false
		return h.Libvirtd(ctx, "start")
	case schedule.Cut:
		return h.Link(ctx, false)
	case schedule.Join:
		return h.Link(ctx, true)
	case schedule.Slow:
		return h.Rate(ctx, a.Option)
	case schedule.KillQEMU:
		return p.killQEMU(ctx, a)
	case schedule.Lose:
		p.lose(a)
		return nil
	case schedule.Fill:
		return p.other(p.asked[a.Of].at).fill(ctx)
	case schedule.Free:
		return errors.Join(p.a.free(ctx), p.b.free(ctx))
	}
	return fmt.Errorf("nobody knows how to %q", a.Do)
}

// startAgent does not wait where libvirt is away: the agent is not ready before it has it.
func (p *play) startAgent(ctx context.Context, h *host) error {
	if !p.down[h] {
		return h.Agent(ctx, "start", h.settings()...)
	}
	p.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTime)
		defer cancel()
		if err := h.Agent(ctx, "start", h.settings()...); err != nil {
			p.journal.note("the agent of host %s is not ready while its libvirt is away", h.Name)
		}
	})
	return nil
}

// fill takes what is left of the pool.
func (h *host) fill(ctx context.Context) error {
	_, err := h.Exec(ctx, "sh", "-c", `dd if=/dev/zero of="$0/filler" bs=1M 2>/dev/null; test -s "$0/filler"`, smallFolder)
	return err
}

func (h *host) free(ctx context.Context) error {
	_, err := h.Exec(ctx, "rm", "-f", smallFolder+"/filler")
	return err
}

// request is something that was asked of an agent. What came of it is read from the agent, not from the answer, which
// may get lost.
type request struct {
	act      schedule.Act
	at       *host
	ref      api.Ref
	began    time.Time
	there    int64         // the newest block that the guest had printed on the other host
	handing  *handing      // of a migration, where an act waits for its handover
	answered chan struct{} // closed when id and err are known
	id       string
	err      error
}

// ask sends a request to the host that has the instance, and does not wait for the answer.
func (p *play) ask(ctx context.Context, a schedule.Act) error {
	at := p.where(ctx, a.Instance)
	there, err := p.lab.Guest(p.name(a.Instance)).LastBlock(ctx, p.other(at).Host, "vda")
	if err != nil {
		return err
	}
	q := &request{act: a, at: at, ref: p.ref(a.Instance), began: time.Now(), there: there, answered: make(chan struct{})}
	p.asked[a.Label] = q
	if a.Do == schedule.Migrate {
		p.expect(q)
	}
	p.work.Go(func() {
		defer close(q.answered)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		var op api.Operation
		op, q.err = p.send(ctx, q)
		q.id = op.ID
		if problem, ok := errors.AsType[*api.Problem](q.err); ok && problem.Code != "busy" {
			q.id = problem.Operation
		}
		p.journal.note("%s on host %s: operation %q, %v", a.Label, at.Name, q.id, q.err)
	})
	return nil
}

func (p *play) send(ctx context.Context, q *request) (api.Operation, error) {
	agent := q.at.api
	switch q.act.Do {
	case schedule.Migrate:
		r := api.MigrateRequest{Destination: p.other(q.at).URL(), Mode: q.act.Option}
		if r.Mode == "stage" {
			r.Mode, r.StageTemplates = api.ModeLinked, true
		}
		return agent.Migrate(ctx, q.ref, r, "")
	case schedule.Stop:
		return agent.Stop(ctx, q.ref, api.StopRequest{Timeout: api.Duration(20 * time.Second), OnTimeout: "force", Force: q.act.Option == "force"}, "")
	case schedule.Start:
		return agent.Start(ctx, q.ref, "")
	}
	return agent.Rebuild(ctx, q.ref, api.RebuildRequest{Source: api.RebuildSource{Type: api.SourceTemplate, Template: string(schedule.Linked)},
		Force: true, Start: true, Timeout: api.Duration(20 * time.Second)}, "")
}

// where finds the host that has an instance: the one where it runs, if any.
func (p *play) where(ctx context.Context, short string) *host {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var states [2]string
	_ = p.both(func(h *host) (err error) { // a host that does not say has it not
		states[slices.Index(p.hosts(), h)], err = h.State(ctx, p.name(short))
		return err
	})
	var found *host
	for n, h := range p.hosts() {
		if states[n] != "" && (found == nil || states[n] == "running") {
			found = h
		}
	}
	if found != nil {
		p.homes[short] = found
	}
	return p.homes[short]
}

func (p *play) cancel(ctx context.Context, a schedule.Act) {
	q := p.asked[a.Of]
	op, err := q.look(ctx)
	if err == nil {
		op, err = q.at.api.Cancel(ctx, op.ID)
	}
	p.journal.note("cancelling %s: %s, phase %q, %v", a.Of, op.Status, op.Phase, err)
}

// errNone says that a request began no operation.
var errNone = errors.New("it began no operation")

// look finds the operation that a request has begun. It does so where the answer is still to come, or was lost.
func (q *request) look(ctx context.Context) (api.Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	over := false
	select {
	case <-q.answered:
		if q.id != "" {
			return q.at.api.Operation(ctx, q.id)
		}
		over = true
	default:
	}
	list, err := q.at.api.Operations(ctx, filter(q.ref.Name))
	if err != nil {
		return api.Operation{}, err
	}
	for _, op := range list {
		if op.Kind == string(q.act.Do) && !op.CreatedAt.Before(q.began) {
			return op, nil
		}
	}
	if over {
		return api.Operation{}, fmt.Errorf("%w: %w", errNone, q.err)
	}
	return api.Operation{}, errors.New("no such operation yet")
}
