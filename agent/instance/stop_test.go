package instance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

type stops struct {
	rung   string
	d      time.Duration
	forced int
}

func (s *stops) Stop(rung string, d time.Duration) { s.rung, s.d = rung, d }
func (s *stops) ForcedStop()                       { s.forced++ }

// ends is an instance that some rung ends.
func ends(rung string) func(context.Context, power.Options) (power.Result, error) {
	return func(context.Context, power.Options) (power.Result, error) {
		return power.Result{Rung: rung, Rungs: []api.RungTime{{Rung: rung, Took: api.Duration(time.Second), Tries: 2}}}, nil
	}
}

// What was asked reaches the ladder, what came of it the caller, the metrics
// and the record; and what is owed is done.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		name  string
		state hypervisor.State
		r     api.StopRequest
		rung  string
		want  power.Options
	}{
		{"stopped already", hypervisor.Shutoff, api.StopRequest{}, "already", power.Options{Timeout: power.DefaultTimeout}},
		{"by its guest", hypervisor.Running, api.StopRequest{Timeout: api.Duration(time.Hour)}, "acpi", power.Options{Timeout: time.Hour}},
		{"at last", hypervisor.Running, api.StopRequest{OnTimeout: "force"}, "sigterm", power.Options{Timeout: power.DefaultTimeout, ForceAfter: true}},
		{"by force", hypervisor.Running, api.StopRequest{Force: true, OnTimeout: "fail"}, "sigkill", power.Options{Timeout: power.DefaultTimeout, Force: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.have(c.state, true)
			w.ladder.down = ends(c.rung)
			seen := &stops{}
			w.Observer = seen
			op := w.succeeded(w.Stop(t.Context(), ref, c.r, api.Idempotency{}))
			rec, _ := w.record()
			if got := result[api.StopResult](t, op); got.Rung != c.rung || seen.rung != c.rung || seen.d <= 0 || rec.PowerState != "stopped" {
				t.Errorf("result %+v, observed %+v, record %+v; want %q", got, seen, rec, c.rung)
			}
			got := w.ladder.told[0]
			if got.Timeout%time.Millisecond != 0 {
				t.Errorf("timeout %s; want it to be read", got.Timeout)
			}
			if got.Timeout = got.Timeout.Round(time.Minute); !slices.Equal([]power.Options{got}, []power.Options{c.want}) {
				t.Errorf("the ladder was told %+v; want %+v", got, c.want)
			}
			if (seen.forced == 1) != strings.HasPrefix(c.rung, "sig") || !slices.Equal(w.libvirt.deeds(), []string{"down", "targets false"}) {
				t.Errorf("observed %+v, did %v", seen, w.libvirt.deeds())
			}
			w.owed(false)
		})
	}
}

// A guest that does not obey runs on, and is owed nothing.
func TestStopFails(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	w.ladder.down = func(context.Context, power.Options) (power.Result, error) {
		w.owed(true)
		return power.Result{Rungs: []api.RungTime{{Rung: "acpi"}}}, api.NewProblem("timeout", "it does not listen")
	}
	w.failed(w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{}))("timeout")
	if rec, _ := w.record(); rec.PowerState != "running" || slices.Contains(w.libvirt.deeds(), "targets false") {
		t.Errorf("record %+v, did %v; want it as it was", rec, w.libvirt.deeds())
	}
	w.owed(false)
}

// A process that was killed and does not end yet may do so later: what is owed
// then stays owed.
func TestStopThatCannotKill(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	w.ladder.down = func(context.Context, power.Options) (power.Result, error) {
		return power.Result{Rungs: []api.RungTime{{Rung: "quit"}, {Rung: "sigkill"}}}, api.NewProblem("conflict", "it waits for storage")
	}
	w.failed(w.Stop(t.Context(), ref, api.StopRequest{Force: true}, api.Idempotency{}))("conflict")
	if n := w.owed(true); n.PowerState != "stopped" {
		t.Errorf("note %+v", n)
	}
	if slices.Contains(w.libvirt.deeds(), "targets false") {
		t.Errorf("did %v, while its process lives", w.libvirt.deeds())
	}
}

// What cannot be released is said; the instance is down all the same, and the
// next try does the rest.
func TestStopTellsWhatRemains(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	w.libvirt.fail["targets false"] = errors.New("session is in use")
	p := w.failed(w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{}))("internal")
	if rec, _ := w.record(); rec.PowerState != "stopped" || !strings.Contains(p.Detail, "session is in use") || !strings.Contains(p.Detail, "acpi") {
		t.Errorf("record %+v, problem %v", rec, p)
	}
	w.owed(true)
	delete(w.libvirt.fail, "targets false")
	w.succeeded(w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{}))
	w.owed(false)
}

// Of an instance without a record nothing is owed.
func TestStopUnmanaged(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, false)
	w.ladder.down = func(context.Context, power.Options) (power.Result, error) {
		w.owed(false)
		return power.Result{Rung: "acpi"}, nil
	}
	w.succeeded(w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{}))
	if _, ok := w.record(); ok || !slices.Equal(w.libvirt.deeds(), []string{"down"}) {
		t.Errorf("record %v, did %v", ok, w.libvirt.deeds())
	}
}

// With libvirt away the record tells whose process is to be ended.
func TestStopWithoutLibvirt(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	w.libvirt.fail["domain"] = hypervisor.ErrDown
	w.ladder.down = func(context.Context, power.Options) (power.Result, error) {
		w.libvirt.mu.Lock()
		defer w.libvirt.mu.Unlock()
		delete(w.libvirt.fail, "domain")
		return power.Result{Rung: "sigterm"}, nil
	}
	w.succeeded(w.Stop(t.Context(), ref, api.StopRequest{Force: true}, api.Idempotency{}))
}

// A stop that the agent did not live to finish is finished, in whichever step
// that was; the guest that went down meanwhile is not stopped again.
func TestStopIsRecovered(t *testing.T) {
	for _, c := range []struct {
		dies      string
		meanwhile func(w *world)
		rung      string
	}{
		{"down", nil, "acpi"},
		{"down", func(w *world) { w.libvirt.state("vm", hypervisor.Shutoff) }, "already"},
		{"targets false", nil, "acpi"},
	} {
		t.Run(c.dies, func(t *testing.T) {
			w := newWorld(t)
			w.have(hypervisor.Running, true)
			op := w.dieIn(c.dies, func() (api.Operation, error) {
				return w.Stop(t.Context(), ref, api.StopRequest{Timeout: api.Duration(time.Minute)}, api.Idempotency{})
			}, func() {
				w.owed(true)
				if c.meanwhile != nil {
					c.meanwhile(w)
				}
			})
			rec, _ := w.record()
			if got := result[api.StopResult](t, op); op.Status != api.StatusSucceeded || got.Rung != c.rung || rec.PowerState != "stopped" {
				t.Errorf("operation %+v, result %+v, record %+v", op, got, rec)
			}
			if n := len(w.ladder.told); n == 2 && (w.ladder.told[1].Timeout >= time.Minute || w.ladder.told[1].Timeout < 15*time.Second) {
				t.Errorf("after the restart the guest was given %s", w.ladder.told[1].Timeout)
			}
			w.owed(false)
		})
	}
}

// stuck is a guest that never obeys: the ladder ends with its context.
func stuck(ctx context.Context, _ power.Options) (power.Result, error) {
	<-ctx.Done()
	return power.Result{Rungs: []api.RungTime{{Rung: "acpi"}}}, context.Cause(ctx)
}

// The stronger request ends the weaker one, whose continuation never runs; one
// that is as strong is refused.
func TestForceOvertakes(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	climbing := make(chan struct{}, 3)
	w.ladder.down = func(ctx context.Context, o power.Options) (power.Result, error) {
		climbing <- struct{}{}
		if o.Force {
			return power.Result{Rung: "quit"}, nil
		}
		return stuck(ctx, o)
	}
	restart, err := w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
	must(t, err)
	<-climbing
	stop, err := w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
	must(t, err)
	<-climbing
	if _, err := w.Stop(t.Context(), ref, api.StopRequest{}, api.Idempotency{}); api.CodeOf(err) != "busy" {
		t.Errorf("the same again: %v", err)
	}
	if _, err := w.Start(t.Context(), ref, api.Idempotency{}); api.CodeOf(err) != "busy" {
		t.Errorf("a start meanwhile: %v", err)
	}
	if i, err := w.Get(t.Context(), ref); err != nil || i.Lock == nil || i.Lock.Operation != stop.ID || i.Operation != stop.ID {
		t.Errorf("instance %+v, error %v; want it to show who holds it", i, err)
	}
	force, err := w.Stop(t.Context(), ref, api.StopRequest{Force: true}, api.Idempotency{})
	force = w.succeeded(force, err)
	if got := result[api.StopResult](t, force).Rung; got != "quit" {
		t.Errorf("rung %q", got)
	}
	for op, by := range map[string]string{restart.ID: stop.ID, stop.ID: force.ID} {
		got := w.ended(w.engine.Get(t.Context(), op))
		if got.Status != api.StatusCancelled || got.Error.Operation != by {
			t.Errorf("operation %+v, error %+v; want it cancelled by %s", got, got.Error, by)
		}
	}
	if d, _ := w.libvirt.Domain(t.Context(), "vm"); d.Active() || slices.Contains(w.libvirt.deeds(), "start") {
		t.Errorf("domain %+v, did %v; want it down, and not started", d, w.libvirt.deeds())
	}
	w.owed(false)
}

func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	op := w.succeeded(w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{}))
	d, _ := w.libvirt.Domain(t.Context(), "vm")
	if rec, _ := w.record(); !d.Active() || rec.PowerState != "running" || result[api.StopResult](t, op).Rung != "acpi" {
		t.Errorf("domain %+v, record %+v, result %s", d, rec, op.Result)
	}
	if want := []string{"down", "targets false", "targets true", "start"}; !slices.Equal(w.libvirt.deeds(), want) {
		t.Errorf("did %v; want %v", w.libvirt.deeds(), want)
	}
	w.owed(false)
}

// Of a transient instance nothing would be left to start.
func TestRestartOfATransientInstance(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: uuid, State: hypervisor.Running})
	_, err := w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
	if p := api.AsProblem(err); p.Code != "precondition" || !strings.Contains(p.Detail, "transient") || p.Hint == "" {
		t.Errorf("problem %+v", p)
	}
	if did := w.libvirt.deeds(); len(did) != 0 {
		t.Errorf("did %v", did)
	}
}

// A restart goes on from where the agent was lost, and does not stop what it
// has started already.
func TestRestartIsRecovered(t *testing.T) {
	for _, step := range []string{"down", "targets false", "targets true", "start"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.have(hypervisor.Running, true)
			op := w.dieIn(step, func() (api.Operation, error) {
				return w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
			}, func() {
				if step == "start" {
					w.libvirt.state("vm", hypervisor.Running) // libvirt went on
				}
			})
			d, _ := w.libvirt.Domain(t.Context(), "vm")
			if op.Status != api.StatusSucceeded || !d.Active() {
				t.Errorf("operation %+v, error %v, domain %+v", op, op.Error, d)
			}
			w.owed(false)
		})
	}
}

// Twenty stop at once: all are asked before the first is down.
func TestManyStopAtOnce(t *testing.T) {
	w := newWorld(t)
	const n = 20
	var asked sync.WaitGroup
	asked.Add(n)
	w.ladder.down = func(ctx context.Context, _ power.Options) (power.Result, error) {
		asked.Done()
		all := make(chan struct{})
		go func() { asked.Wait(); close(all) }()
		select {
		case <-all:
			return power.Result{Rung: "acpi"}, nil
		case <-ctx.Done():
			return power.Result{}, context.Cause(ctx)
		}
	}
	var ops []api.Operation
	for i := range n {
		name := "vm" + string(rune('a'+i))
		w.libvirt.set(hypervisor.Domain{Name: name, UUID: name, State: hypervisor.Running})
		op, err := w.Stop(t.Context(), api.Ref{Project: api.DefaultProject, Name: name}, api.StopRequest{}, api.Idempotency{})
		must(t, err)
		ops = append(ops, op)
	}
	for _, op := range ops {
		w.succeeded(op, nil)
	}
}
