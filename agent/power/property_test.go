package power

import (
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// anything draws an instance that does anything at any time. The drawing comes
// first, for it belongs to the test; what is drawn is done in the bubble.
func anything(t *rapid.T) (begin func() *world) {
	var setup []func(w *world)
	add := func(f func(w *world)) { setup = append(setup, f) }
	second := func(name string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, 10*most).Draw(t, name)) * time.Second / 10
	}
	chance := func(name string, percent int) bool { return rapid.IntRange(1, 100).Draw(t, name) <= percent }
	states := []struct {
		state  hypervisor.State
		reason string
	}{
		{hypervisor.Running, "booted"}, {hypervisor.Running, "migrated"}, {hypervisor.Blocked, ""},
		{hypervisor.Paused, "user"}, {hypervisor.Paused, "ioerror"}, {hypervisor.Paused, "migration"}, {hypervisor.Paused, "crashed"},
		{hypervisor.Paused, "save"}, {hypervisor.Paused, "unknown"}, {hypervisor.PMSuspended, ""}, {hypervisor.Crashed, "panicked"}, {hypervisor.Shutdown, ""},
	}
	change := func(name string, at time.Duration) {
		s := rapid.SampledFrom(states).Draw(t, name)
		add(func(w *world) {
			w.at(at, func() {
				if !w.isGone() {
					w.set(s.state, s.reason)
				}
			})
		})
	}
	change("first", 0)
	obey := obeys(second("obeys after", 20))
	if chance("has an agent", 40) {
		listens := chance("obeys its agent", 50)
		add(func(w *world) {
			w.ping = nil
			if listens {
				w.agent = obey
			}
		})
	}
	if chance("obeys the button", 60) {
		from := rapid.IntRange(1, 6).Draw(t, "from press")
		add(func(w *world) {
			w.press = func(w *world, n int) {
				if n == from {
					obey(w)
				}
			}
		})
	}
	if chance("quits", 60) {
		add(func(w *world) { w.quit = quits })
	}
	if chance("can be resumed", 70) {
		add(func(w *world) { w.resume = func(w *world) { w.set(hypervisor.Running, "unpaused") } })
	}
	if chance("can be woken", 70) {
		add(func(w *world) { w.wake = func(w *world) { w.set(hypervisor.Running, "wakeup") } })
	}
	if chance("waits for storage", 15) {
		add(func(w *world) { w.signal = func(*world, syscall.Signal) {} })
	}
	notice := second("noticed after", 60)
	add(func(w *world) { w.notice = notice })
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		change("change to", second("change at", 60))
	}
	if chance("hangs", 25) {
		from, to := second("hangs from", 30), second("hangs for", 200)
		add(func(w *world) {
			w.at(from, func() { w.hung = true })
			w.at(from+to, func() { w.hung = false })
		})
	}
	if chance("libvirt goes away", 25) {
		from, to := second("away from", 30), second("away for", 200)
		add(func(w *world) {
			w.at(from, func() { w.away = true })
			w.at(from+to, func() { w.away = false })
		})
	}
	if chance("dies by itself", 15) {
		at := second("dies at", 60)
		add(func(w *world) { w.at(at, func() { w.end("crashed") }) })
	}
	return func() *world {
		w := running()
		for _, f := range setup {
			f(w)
		}
		return w
	}
}

// Whatever the instance does: the power is cut only where and when that is
// allowed, the guest is not pestered, it is told to be down only when its
// process is gone, and it all ends in time.
func TestLadderProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := Options{Force: rapid.Bool().Draw(r, "force"), ForceAfter: rapid.Bool().Draw(r, "force after"),
			Timeout: time.Duration(rapid.IntRange(1, 90).Draw(r, "timeout")) * time.Second}
		begin := anything(r)
		synctest.Test(t, func(t *testing.T) {
			w := begin()
			result, err := w.ladder().Down(t.Context(), "vm", "u", o)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.judge(r, o, time.Since(w.born), result, err)
		})
	})
}

func (w *world) judge(t *rapid.T, o Options, took time.Duration, result Result, err error) {
	if most := o.Timeout + agree + settle + quitWait + termWait + killWait + destroyTimeout + 4*askTimeout; took > most {
		t.Errorf("it took %s; %s at most", took, most)
	}
	pressed := -pressEvery
	var order []act
	for _, d := range w.did {
		switch d.what {
		case actPress:
			if d.after-pressed < pressEvery {
				t.Errorf("pressed at %s and at %s", pressed, d.after)
			}
			pressed = d.after
		case actQuit, actTerm, actKill, actDestroy:
			order = append(order, d.what)
			if !o.Force && !o.ForceAfter && !w.crashed {
				t.Errorf("%s, although nobody allowed it: %v", d, w.did)
			}
		}
		if o.Force && (d.what == actPress || d.what == actPing || d.what == actAgent || d.what == actResume) {
			t.Errorf("%s: who is forced is not asked", d)
		}
	}
	strength := map[act]int{actQuit: 1, actTerm: 2, actKill: 3, actDestroy: 4}
	if !slices.IsSortedFunc(order, func(a, b act) int { return strength[a] - strength[b] }) || len(slices.Compact(slices.Clone(order))) != len(order) {
		t.Errorf("rungs %v: each once, the gentlest first", order)
	}
	if slices.Contains(order, actKill) && !slices.Contains(order, actTerm) {
		t.Errorf("killed without having been told to end: %v", order)
	}
	if (err == nil) != (result.Rung != "") {
		t.Errorf("result %+v, error %v", result, err)
	}
	if err == nil && !w.isGone() {
		t.Errorf("it is told to be down, and its process lives")
	}
	if err == nil && result.Rung == api.RungAlready && slices.ContainsFunc(order, func(a act) bool { return a != actDestroy }) {
		t.Errorf("down already, after %v", order)
	}
	if err != nil && w.isGone() && !w.away && took > agree+o.Timeout && w.domain.State == hypervisor.Shutoff && w.domain.Reason == "shutdown" {
		t.Errorf("it is down, and the stop failed: %v", err)
	}
	if err != nil && (api.CodeOf(err) == "" || api.CodeOf(err) == "internal") {
		t.Errorf("error %v is no problem with a code", err)
	}
}
