//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// agedScript makes what an interrupted write has left look old: younger ones
// might be of a write under way, and stay for a minute or two.
const agedScript = `find /var/lib/wherry/cleanup /var/lib/wherry/records -name '.*' -type f -exec touch -d '1 hour ago' {} +`

// backLater starts the agent that was killed again, an hour later as it seems.
func (s *stopped) backLater() {
	s.Helper()
	s.exec(s.on, "sh", "-c", agedScript)
	s.must(s.on.Agent(s.ctx, "start"))
}

// killedAt asks for a stop, kills the agent once that is journalled, and starts it
// again. It gives how the operation ended.
func (s *stopped) killedAt(step string, r api.StopRequest) api.Operation {
	s.Helper()
	earlier := s.stops()
	answered := func() {}
	kill := s.killer(s.on)
	s.journalled(step, earlier, func() { answered = s.asking(r) })
	kill()
	answered()
	s.backLater()
	id := s.later(earlier)
	if id == "" {
		s.Fatalf("%s: the agent that came back knows of no stop", step)
	}
	return s.wait(s.on, id)
}

// asking asks for a stop; the agent may be gone before it has answered, or while
// it is asked. The call that it gives ends that.
func (s *stopped) asking(r api.StopRequest) (end func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.on.api.Stop(ctx, ref(s.name), r, "")
	}()
	return func() { cancel(); <-done }
}

// later is the id of a stop that is not an earlier one; "" where there is none.
func (s *stopped) later(earlier map[string]bool) string {
	s.Helper()
	for id := range s.stops() {
		if !earlier[id] {
			return id
		}
	}
	return ""
}

// stops are the ids of the instance's stops.
func (s *stopped) stops() map[string]bool {
	s.Helper()
	all, err := s.on.api.Operations(s.ctx, client.OperationFilter{Instance: s.name})
	s.must(err)
	out := map[string]bool{}
	for _, op := range all {
		if op.Kind == "stop" {
			out[op.ID] = true
		}
	}
	return out
}

// journalled waits until that is journalled of a stop that is not an earlier one.
func (s *stopped) journalled(step string, earlier map[string]bool, ask func()) {
	s.Helper()
	reached, began := errors.New("reached"), false
	err := s.on.api.Events(s.ctx, 0, func(e api.Event) error {
		if !began {
			// The stream is there: nothing is missed from here on.
			began = true
			ask()
		}
		if op := e.Operation; op != nil && op.Kind == "stop" && op.Instance == s.name && !earlier[op.ID] && e.Detail == step {
			return reached
		}
		return nil
	})
	if !errors.Is(err, reached) {
		s.Fatalf("waiting for %q: %v", step, err)
	}
}

// holdingsScript prints what a host holds of anything, but for logs.
const holdingsScript = `cat /proc/mounts
ps -eo comm= | grep -vxE 'sh|ps|grep|sort|find|cat|sleep' | sort
find /run/libvirt /var/lib/libvirt | sort
find /var/lib/wherry /srv/second /srv/shared ! -type d | sort
virsh -q secret-list`

// holdings are the host's processes, mounts, files and secrets.
func (w *world) holdings(on *side) string {
	w.Helper()
	return w.exec(on, "sh", "-c", holdingsScript)
}

// holdsAgain waits until the host holds what it held before.
func (w *world) holdsAgain(on *side, before string) {
	w.Helper()
	w.must(harness.Until(w.ctx, "nothing to be held that was not before", func(ctx context.Context) error {
		now, err := on.Exec(ctx, "sh", "-c", holdingsScript)
		if now = strings.TrimSpace(now); err == nil && now != before {
			err = fmt.Errorf("held before:\n%s\nand now:\n%s", before, now)
		}
		return err
	}))
}

// The agent is killed at every step of a stop, the moment it is journalled. The
// next one finds the guest's end, or goes on asking for it: it has ended in
// order, and the host holds nothing that it did not hold before.
func TestAgentKilledAtEveryStepOfAStop(t *testing.T) {
	w := begin(t)
	w.atMost(3 * testTime)
	s := w.toStop("vm")
	before := w.holdings(w.a)
	for _, step := range []string{"accepted", "stop: running", "stop: done", "clean: running", "clean: done", "succeeded"} {
		s.start()
		op := s.killedAt(step, api.StopRequest{})
		if op.Status != api.StatusSucceeded {
			t.Errorf("operation %s: %s", op.Status, describe(op.Error))
		}
		s.down(true)
		if t.Failed() {
			t.Fatalf("killed at %q: %+v", step, op.Steps)
		}
	}
	w.holdsAgain(w.a, before)
}

// A guest that does not obey has its time after the agent was lost, too, and then
// runs as before: what would have been owed to it is forgotten.
func TestAgentKilledAtEveryStepOfAStopInVain(t *testing.T) {
	w := begin(t)
	w.atMost(2 * testTime)
	s := w.toStop("vm", options("wherry.deaf=-1")).start()
	before := w.holdings(w.a)
	for _, step := range []string{"accepted", "stop: running", "stop: failed"} {
		op := s.killedAt(step, api.StopRequest{Timeout: seconds(5)})
		if op.Status != api.StatusFailed || op.Error.Code != "timeout" {
			t.Errorf("operation %s: %s", op.Status, describe(op.Error))
		}
		s.runsOn()
		if !s.record("power_state: running") {
			t.Errorf("the record does not say that it runs")
		}
		if t.Failed() {
			t.Fatalf("killed at %q: %+v", step, op.Steps)
		}
	}
	w.holdsAgain(w.a, before)
	s.stop(api.StopRequest{Force: true}, api.RungQuit)
	s.down(false)
}

// Within the steps: the agent is killed before each file that a stop writes, and
// before each time it reads or syncs a folder, to note what it owes, to clean up
// and to forget the note; one after another until none is left. Each time the
// instance is down with all that is owed done, or runs as before.
func TestAgentKilledAtEveryFileOfAStop(t *testing.T) {
	w := begin(t)
	w.atMost(3 * testTime)
	s := w.toStop("vm")
	// With nothing to boot it starts at once.
	w.must(s.on.Define(w.ctx, kernelXML.ReplaceAllString(w.exec(s.on, "virsh", "dumpxml", "--inactive", s.name), "")))
	before := w.holdings(w.a)
	runs := false
	w.cleanup("starting the agent", func(ctx context.Context) error { return s.on.Agent(ctx, "start") })
	for n := range 100 {
		if !runs {
			s.untarget()
			op, err := s.on.api.Start(w.ctx, ref(s.name), "")
			w.run(s.on, op, err)
			s.connect()
		}
		at, id := s.killedAtFile(n, s.stops())
		if at == "" {
			if n < 5 {
				t.Errorf("a stop opened %d files; want the note and the record, and their folders", n)
			}
			w.holdsAgain(w.a, before)
			return
		}
		t.Logf("killed before it opened file %d, %s", n, at)
		if runs = id == ""; runs {
			if state, err := s.on.State(w.ctx, s.name); err != nil || state != "running" {
				t.Fatalf("it is %q (%v); want it running, for no stop is known", state, err)
			}
			continue
		}
		if op := s.wait(s.on, id); op.Status != api.StatusSucceeded {
			t.Errorf("operation %s: %s", op.Status, describe(op.Error))
		}
		s.down(false)
		if t.Failed() {
			t.Fatalf("killed before it opened file %d, %s", n, at)
		}
	}
	t.Error("a stop opens ever more files")
}

// killedAtFile asks for a stop by force and kills the agent before it opens its nth
// file, and starts it again. It gives which file that was, "" where the stop came
// to its end before, and the stop's id if it is known.
func (s *stopped) killedAtFile(n int, earlier map[string]bool) (at, id string) {
	s.Helper()
	g := s.gate(s.on, n, "/var/lib/wherry/cleanup/default", "/var/lib/wherry/records/default")
	ctx, cancel := context.WithCancel(s.ctx)
	over := make(chan error, 1)
	go func() {
		op, err := s.on.api.Stop(ctx, ref(s.name), api.StopRequest{Force: true}, "")
		if err == nil {
			_, err = s.on.api.WaitOperation(ctx, op.ID, nil)
		}
		over <- err
	}()
	select {
	case at = <-g.killed:
		cancel()
		<-over
	case err := <-over:
		cancel()
		s.must(err)
	}
	g.open()
	select {
	case at = <-g.killed: // by something else that it did, at the last moment
	default:
	}
	if at == "" {
		return "", ""
	}
	s.must(s.on.Agent(s.ctx, "kill")) // which waits for its end
	s.backLater()
	return at, s.later(earlier)
}

// The agent is killed while it disconnects a target, for which it waits: libvirt,
// which keeps the login, does not answer. The next one disconnects it.
func TestAgentKilledWhileItDisconnectsATarget(t *testing.T) {
	w := begin(t)
	w.atMost(2 * testTime)
	s := w.toStop("vm")
	before := s.holdings(s.on)
	s.start()
	thaw, kill, id := s.freeze(), s.killer(s.on), ""
	s.journalled("clean: running", nil, func() { id = s.stopping(api.StopRequest{Force: true}) })
	kill()
	thaw()
	if !strings.Contains(strings.Join(s.logins(s.on), " "), s.name) {
		t.Errorf("logins %q; want that of %q to be there still", s.logins(s.on), s.name)
	}
	if op := s.resumed(id); op.Status != api.StatusSucceeded {
		t.Errorf("operation %s: %s", op.Status, describe(op.Error))
	}
	s.down(false)
	s.holdsAgain(s.on, before)
}
