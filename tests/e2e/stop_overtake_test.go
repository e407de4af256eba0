//go:build lab

package e2e

import (
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// A stronger request ends the one under way; one that is as strong is refused,
// and names who holds the instance, which the instance shows too.
func TestForceOvertakesAStop(t *testing.T) {
	s := begin(t).toStop("vm", options("wherry.deaf=-1")).start()
	first := s.stopping(api.StopRequest{})
	s.line("POWERKEY ignored")
	_, err := s.on.api.Stop(s.ctx, ref(s.name), api.StopRequest{Timeout: seconds(1)}, "")
	if p := s.problem(err, "busy"); p.Operation != first {
		t.Errorf("%s does not name %s", describe(p), first)
	}
	_, err = s.on.api.Start(s.ctx, ref(s.name), "")
	s.problem(err, "busy")
	i, err := s.on.api.Instance(s.ctx, ref(s.name))
	if err != nil || i.Lock == nil || i.Lock.Operation != first || i.Lock.Kind != "stop" || len(i.Lock.Waiters) != 0 {
		t.Errorf("instance %+v, lock %+v, error %v", i, i.Lock, err)
	}
	if age := s.scraped(s.on)[`wherry_operation_lock_age_seconds{kind="stop"}`]; age <= 0 {
		t.Errorf("the age of its lock is %v", age)
	}
	second := s.stopping(api.StopRequest{OnTimeout: "force"})
	s.ended(first, second)
	third := s.stopping(api.StopRequest{Force: true})
	s.ended(second, third)
	s.result(s.run(s.on, api.Operation{ID: third}, nil), api.RungQuit)
	s.down(false)
}

// What a restart was to do next is not done once a stop has ended it.
func TestStopOvertakesARestart(t *testing.T) {
	s := begin(t).toStop("vm", options("wherry.deaf=-1")).start()
	op, err := s.on.api.Restart(s.ctx, ref(s.name), api.StopRequest{}, "")
	s.must(err)
	s.line("POWERKEY ignored")
	stop := s.stopping(api.StopRequest{Force: true})
	s.ended(op.ID, stop)
	s.result(s.run(s.on, api.Operation{ID: stop}, nil), api.RungQuit)
	s.down(false)
}

// A restart stops in order, and starts again.
func TestRestart(t *testing.T) {
	s := begin(t).toStop("vm").start()
	s.untarget()
	before := s.boot
	op, err := s.on.api.Restart(s.ctx, ref(s.name), api.StopRequest{}, "")
	s.result(s.run(s.on, op, err), api.RungACPI)
	s.booted(1)
	s.line("clean vda " + before)
	s.runsOn()
	if !s.record("power_state: running") {
		t.Error("the record does not say that it runs")
	}
}

// A migration that copies yet is ended by a stop, and the instance is stopped
// where it is. The other host keeps nothing.
func TestStopOvertakesAMigration(t *testing.T) {
	for _, c := range []struct {
		name, rung string
		r          api.StopRequest
	}{{"asked", api.RungACPI, api.StopRequest{}}, {"forced", api.RungQuit, api.StopRequest{Force: true}}} {
		t.Run(c.name, func(t *testing.T) {
			w := begin(t)
			name := w.unique("vm")
			w.heavy(w.a, name, 32*mib)
			w.rate(w.a, slow)
			move := w.begun(w.a, name, api.MigrateRequest{})
			w.copying(w.a, move)
			s := &stopped{world: w, on: w.a, name: name, guest: w.lab.Guest(name)}
			stop := s.stopping(c.r)
			s.ended(move, stop)
			s.result(s.run(s.on, api.Operation{ID: stop}, nil), c.rung)
			w.must(w.a.Rate(w.ctx, "off"))
			w.clean(name, w.b)
			w.unreserved(w.b, move)
			s.unheld()
			boots, err := s.guest.Boots(w.ctx)
			w.must(err)
			boot, err := w.a.Clean(w.ctx, harness.ImagesPath+"/"+name+".qcow2", "qcow2")
			if clean := err == nil && len(boots) == 1 && boot == boots[0]; clean != (c.rung == api.RungACPI) {
				t.Errorf("the disk says that boot %q of %q ended in order (%v)", boot, boots, err)
			}
		})
	}
}
