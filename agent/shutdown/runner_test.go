package shutdown

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func policy(priority int, timeout time.Duration) *api.StopPolicy {
	return &api.StopPolicy{Priority: priority, Timeout: api.Duration(timeout)}
}

func inBubble(t *testing.T, do func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(t, newWorld(t)) })
}

// The highest priority goes first, each together, and what is owed is done.
func TestRunStopsByPriority(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("database", 2*time.Second, policy(-10, 0))
		w.add("web1", 5*time.Second, policy(10, 0))
		w.add("web2", 3*time.Second, policy(10, 0))
		w.add("stranger", time.Second, nil)
		off := w.add("off", 0, policy(99, 0))
		off.off()
		r := w.runner()
		result := r.Run(t.Context(), 0)
		for i, name := range []string{"web1", "web2", "stranger", "database"} {
			if o := w.outcome(result, name); o.Outcome != api.ShutdownStopped || o.Rung != api.RungACPI || o.Error != "" {
				t.Errorf("%+v; want it stopped by its guest", o)
			}
			if want := []time.Duration{0, 0, 5 * time.Second, 6 * time.Second}[i]; w.way(name).began != want {
				t.Errorf("%s was asked at %s; want %s", name, w.way(name).began, want)
			}
		}
		if len(result.Instances) != 4 || result.Failed() != 0 || len(result.Warnings) != 0 {
			t.Errorf("result %+v", result)
		}
		w.nothingOwed(r)
		if len(w.targets) != 3 {
			t.Errorf("disconnected %+v; want those of the three records", w.targets)
		}
		for _, name := range []string{"database", "web1", "web2"} {
			if w.power(name) != "running" {
				t.Errorf("%s is to be %s; want running, it is to come back", name, w.power(name))
			}
		}
		m, ok, err := r.Place.Read()
		if err != nil || !ok || len(m.Ran) != 4 || m.BootID == "" || m.Result == nil {
			t.Errorf("note %+v, %v, %v; want the four that ran", m, ok, err)
		}
		if last := w.told[len(w.told)-1]; last.Failed() != 0 || len(last.Instances) != 4 {
			t.Errorf("told at last: %+v", last)
		}
	})
}

// One deadline holds for all: who does not obey is cut off in time for the rest.
func TestRunKeepsTheDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("deaf", -1, policy(1, time.Hour))
		w.add("slow", 20*time.Second, policy(0, time.Minute))
		result := w.runner().Run(t.Context(), 10*time.Minute)
		if o := w.outcome(result, "deaf"); o.Rung != api.RungQuit {
			t.Errorf("%+v; want it forced", o)
		}
		if o := w.outcome(result, "slow"); o.Rung != api.RungACPI {
			t.Errorf("%+v; want it asked, and to have had its time", o)
		}
		if w.now() > 10*time.Minute {
			t.Errorf("it took %s", w.now())
		}
	})
}

// What two instances share goes with the second of them, although both are to
// run again.
func TestRunReleasesWhatIsShared(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		shared := api.Target{Type: "file", Path: "/targets/shared"}
		for name, obeys := range map[string]time.Duration{"first": time.Second, "second": 5 * time.Second} {
			w.add(name, obeys, policy(0, 0))
			r, err := w.records.Read(api.Ref{Project: "default", Name: name})
			if err != nil {
				t.Fatal(err)
			}
			r.Targets = []api.Target{shared}
			if err := w.records.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		var while []api.Target
		w.later(3*time.Second, func() { while = slices.Clone(w.targets) })
		w.runner().Run(t.Context(), 0)
		if len(while) != 0 || len(w.targets) != 1 || w.targets[0].Path != shared.Path {
			t.Errorf("disconnected %+v, before that %+v", w.targets, while)
		}
	})
}

// A timeout that no clock can hold is one that is never over.
func TestRunWithoutAnEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("slow", time.Minute, policy(1, time.Hour))
		result := w.runner().Run(t.Context(), math.MaxInt64)
		if o := w.outcome(result, "slow"); o.Rung != api.RungACPI || len(w.asked) != 1 {
			t.Errorf("%+v, asked %+v", o, w.asked)
		}
	})
}

// A process that hangs in the kernel keeps those after it waiting no longer
// than its share, and is told to have failed.
func TestRunGoesPastWhatCannotBeEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("stuck", -1, policy(1, 10*time.Second)).ends = -1
		w.add("next", time.Second, policy(0, 0))
		r := w.runner()
		result := r.Run(t.Context(), 2*time.Minute)
		if o := w.outcome(result, "stuck"); o.Outcome != api.ShutdownFailed || o.Error == "" {
			t.Errorf("%+v; want it failed", o)
		}
		if o := w.outcome(result, "next"); o.Outcome != api.ShutdownStopped || w.way("next").began > 40*time.Second {
			t.Errorf("%+v, asked at %s; want it not kept waiting", o, w.way("next").began)
		}
		if w.now() > 2*time.Minute+lastly+forceReserve {
			t.Errorf("it took %s", w.now())
		}
		notes, err := r.Cleaner.Pending()
		if err != nil || len(notes) != 1 || notes[0].Name != "stuck" {
			t.Errorf("owed %+v, %v; want the clean-up of what is stuck", notes, err)
		}
		for _, target := range w.targets {
			if strings.Contains(target.Path, "stuck") {
				t.Error("storage was taken from a process that lives")
			}
		}
		time.Sleep(time.Hour) // of the bubble: the climb ends
	})
}

// Each thing that may be missing, while instances run.
func TestRunOffline(t *testing.T) {
	for name, breaks := range map[string]func(t *testing.T, w *world, r *Runner){
		"records are missing": func(t *testing.T, w *world, _ *Runner) {
			if err := os.RemoveAll(string(w.records)); err != nil {
				t.Fatal(err)
			}
		},
		"records are damaged": func(t *testing.T, w *world, _ *Runner) {
			for _, name := range []string{"a", "b"} {
				if err := os.WriteFile(filepath.Join(string(w.records), "default", name+".yaml"), []byte("}{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"libvirt is away": func(_ *testing.T, w *world, _ *Runner) { w.away = true },
		"libvirt is away, and comes back": func(_ *testing.T, w *world, _ *Runner) {
			w.away = true
			w.later(5*time.Second, func() { w.away = false })
		},
		"libvirt goes": func(_ *testing.T, w *world, _ *Runner) { w.later(time.Second, func() { w.away = true }) },
		"libvirt is restarted in the middle": func(_ *testing.T, w *world, _ *Runner) {
			w.later(time.Second, func() { w.away = true })
			w.later(9*time.Second, func() { w.away = false })
		},
		"the network takes no disconnections": func(_ *testing.T, w *world, _ *Runner) { w.broken = errors.New("no route to host") },
		"nothing can be written": func(_ *testing.T, _ *world, r *Runner) {
			r.Place.Dir, r.Cleaner.Dir = "/proc/nowhere", "/proc/nowhere"
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.add("a", 3*time.Second, policy(1, 0))
				w.add("b", 4*time.Second, policy(0, 0))
				r := w.runner()
				breaks(t, w, r)
				result := r.Run(t.Context(), time.Minute)
				for _, name := range []string{"a", "b"} {
					if o := w.outcome(result, name); o.Outcome != api.ShutdownStopped || o.Rung != api.RungACPI {
						t.Errorf("%+v; want it stopped by its guest", o)
					}
				}
				if w.now() > time.Minute {
					t.Errorf("it took %s", w.now())
				}
			})
		})
	}
}

func (w *world) later(d time.Duration, do func()) {
	time.AfterFunc(d, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		do()
	})
}

// One that the operator was stopping does not come back; others do.
func TestRunKeepsWhatTheOperatorWanted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, name := range []string{"seized", "noted", "restarted", "ran"} {
			w.add(name, time.Second, policy(0, 0))
		}
		r := w.runner()
		// The agent was lost while it stopped the one, and stops the other to start
		// it again.
		for _, name := range []string{"noted", "restarted"} {
			if err := r.Cleaner.Owe(cleanup.Note{Project: "default", Name: name, UUID: "u-" + name, PowerState: "stopped"}); err != nil {
				t.Fatal(err)
			}
		}
		released := 0
		r.Seize = func(_ context.Context, ref api.Ref) Seized {
			return Seized{Stopping: ref.Name == "seized", Back: ref.Name == "restarted", Release: func() { w.mu.Lock(); released++; w.mu.Unlock() }}
		}
		r.Run(t.Context(), 0)
		for name, want := range map[string]string{"seized": "stopped", "noted": "stopped", "restarted": "running", "ran": "running"} {
			if got := w.power(name); got != want {
				t.Errorf("%s is to be %s; want %s", name, got, want)
			}
		}
		m, _, err := r.Place.Read()
		if err != nil {
			t.Fatal(err)
		}
		for _, ran := range m.Ran {
			if ran.Stopping != (ran.Name == "seized" || ran.Name == "noted") {
				t.Errorf("noted %+v", ran)
			}
		}
		if released != 4 {
			t.Errorf("%d instances were given back", released)
		}
	})
}

// A shutdown that follows another forgets nothing that the first has stopped.
func TestRunTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("first", time.Second, policy(0, 0))
		r := w.runner()
		r.Run(t.Context(), 0)
		w.add("second", time.Second, policy(0, 0))
		r.Run(t.Context(), 0)
		m, _, err := r.Place.Read()
		if err != nil || len(m.Ran) != 2 || m.Ran[0].Name != "first" || m.Ran[1].Name != "second" {
			t.Errorf("noted %+v, %v", m.Ran, err)
		}
	})
}

// The host goes down again before the agent, which waits for libvirt, has
// started what ran before.
func TestRunBeforeTheLastIsDealtWith(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("both", time.Second, policy(3, 0))
		r := w.runner()
		old := Marker{BootID: "the last", Ran: []Ran{{Project: "default", Name: "before", UUID: "u-before"}, {Project: "default", Name: "both", UUID: "u-both"}}}
		if err := r.Place.Write(old); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Place.Take(); err != nil {
			t.Fatal(err)
		}
		r.Run(t.Context(), 0)
		m, _, err := r.Place.Read()
		want := []Ran{old.Ran[0], {Project: "default", Name: "both", UUID: "u-both", Priority: 3}}
		if err != nil || !slices.Equal(m.Ran, want) {
			t.Errorf("noted %+v, %v", m.Ran, err)
		}
	})
}

// Migrations: each has its end, and no guest is cut in two.
func TestRunWithMigrations(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(w *world, g *guest)
		want  string
		down  bool // its process here
	}{
		{"leaving, given up", func(_ *world, g *guest) {
			g.outgoing, g.abort = true, func(g *guest) { g.outgoing = false }
		}, api.ShutdownStopped, true},
		{"leaving, cannot be given up", func(_ *world, g *guest) { g.outgoing = true }, api.ShutdownStopped, true},
		{"handed over, and gone", func(w *world, g *guest) {
			g.outgoing, g.domain.State, g.domain.Reason = true, hypervisor.Paused, "migration"
			w.later(4*time.Second, func() { g.off(); g.domain.Reason, g.outgoing = "migrated", false })
		}, api.ShutdownMoved, true},
		{"handed over, and back", func(w *world, g *guest) {
			g.outgoing, g.domain.State, g.domain.Reason = true, hypervisor.Paused, "migration"
			w.later(4*time.Second, func() { g.outgoing, g.domain.State, g.domain.Reason = false, hypervisor.Running, "migrationcanceled" })
		}, api.ShutdownStopped, true},
		{"handed over, never confirmed", func(_ *world, g *guest) {
			g.outgoing, g.domain.State, g.domain.Reason = true, hypervisor.Paused, "postcopy"
		}, api.ShutdownFailed, false},
		{"post-copy broken off, with its job still there", func(_ *world, g *guest) {
			g.outgoing, g.domain.State, g.domain.Reason = true, hypervisor.Paused, "postcopy-failed"
		}, api.ShutdownFailed, false},
		{"post-copy broken off, at its destination", func(_ *world, g *guest) {
			g.domain.State, g.domain.Reason = hypervisor.Running, "postcopy-failed"
		}, api.ShutdownFailed, false},
		{"ends while it arrives by post-copy", func(w *world, g *guest) {
			g.domain.State, g.domain.Reason = hypervisor.Running, "postcopy"
			w.later(2*time.Second, g.off)
		}, api.ShutdownStopped, true},
		{"arriving", func(_ *world, g *guest) { g.domain.Incoming, g.domain.State = true, hypervisor.Paused }, api.ShutdownReturned, true},
		{"arrives", func(w *world, g *guest) {
			g.domain.Incoming, g.domain.State = true, hypervisor.Paused
			w.later(2*time.Second, func() { g.domain.Incoming, g.domain.State = false, hypervisor.Running })
		}, api.ShutdownStopped, true},
		{"does not arrive", func(w *world, g *guest) {
			g.domain.Incoming, g.domain.State = true, hypervisor.Paused
			w.later(2*time.Second, func() { delete(w.guests, "vm") })
		}, api.ShutdownMoved, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				g := w.add("vm", time.Second, policy(0, 0))
				c.begin(w, g)
				r := w.runner()
				result := r.Run(t.Context(), 3*time.Minute)
				if o := w.outcome(result, "vm"); o.Outcome != c.want {
					t.Errorf("%+v; want %s", o, c.want)
				}
				// What another host has, or may have, must not run twice.
				if m, _, err := r.Place.Read(); err != nil || len(m.Ran) != 1 || m.Ran[0].Stopping != (c.want != api.ShutdownStopped) {
					t.Errorf("noted %+v, %v", m.Ran, err)
				}
				if runs, _ := w.runs("vm", ""); runs == c.down {
					t.Errorf("it runs: %v", runs)
				}
			})
		})
	}
}

// A guest has its time from when it can be asked, not from when a migration of
// it began to be given up, as long as the host has time.
func TestRunAsksAfterAMigration(t *testing.T) {
	for timeout, want := range map[time.Duration]string{5 * time.Minute: api.RungACPI, 50 * time.Second: api.RungACPI, 12 * time.Second: api.RungQuit} {
		t.Run(timeout.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				g := w.add("leaving", 5*time.Second, policy(1, 15*time.Second))
				g.outgoing, g.abort = true, func(g *guest) { w.later(20*time.Second, func() { g.outgoing = false }) }
				w.add("next", time.Second, policy(0, 10*time.Second))
				r := w.runner()
				// Whoever held it lets go late.
				r.Seize = func(ctx context.Context, ref api.Ref) Seized {
					if ref.Name == "leaving" {
						<-ctx.Done()
					}
					return Seized{}
				}
				result := r.Run(t.Context(), timeout)
				if o := w.outcome(result, "leaving"); o.Outcome != api.ShutdownStopped || o.Rung != want {
					t.Errorf("%+v; want it stopped by %s", o, want)
				}
				if o := w.outcome(result, "next"); o.Rung != api.RungACPI || w.way("next").began > 35*time.Second {
					t.Errorf("%+v, asked at %s", o, w.way("next").began)
				}
				if w.now() > timeout {
					t.Errorf("it took %s of %s", w.now(), timeout)
				}
			})
		})
	}
}

// What comes up while the host goes down is stopped as well.
func TestRunFindsLatecomers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("early", 5*time.Second, policy(0, 0))
		w.later(2*time.Second, func() { w.add("late", time.Second, policy(5, 0)) })
		result := w.runner().Run(t.Context(), time.Minute)
		if o := w.outcome(result, "late"); o.Outcome != api.ShutdownStopped {
			t.Errorf("%+v", o)
		}
	})
}

// Called off: nobody else is asked, and what goes on is owed nothing.
func TestRunCalledOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add("quick", time.Second, policy(2, 0))
		w.add("slow", time.Minute, policy(1, 0))
		w.add("later", time.Second, policy(0, 0))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.later(10*time.Second, cancel)
		r := w.runner()
		result := r.Run(ctx, 10*time.Minute)
		if len(w.asked) != 2 || w.now() > 12*time.Second {
			t.Errorf("asked %+v, it took %s", w.asked, w.now())
		}
		for name, want := range map[string]string{"quick": api.ShutdownStopped, "slow": api.ShutdownFailed, "later": api.ShutdownFailed} {
			if o := w.outcome(result, name); o.Outcome != want {
				t.Errorf("%+v; want %s", o, want)
			}
		}
		w.nothingOwed(r)
	})
}

// Whatever runs on the host: a lower priority is asked only when a higher one
// is down or had its share, everybody is down or told of, and it ends in time.
func TestRunProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 4).Draw(rt, "instances")
		timeout := time.Duration(rapid.IntRange(0, 400).Draw(rt, "timeout")) * time.Second
		type drawn struct {
			p           *api.StopPolicy
			obeys, ends time.Duration
		}
		var all []drawn
		for range n {
			d := drawn{obeys: time.Duration(rapid.IntRange(-1, 200).Draw(rt, "obeys")) * time.Second, ends: time.Duration(rapid.IntRange(0, 15).Draw(rt, "ends")) * time.Second}
			if rapid.Bool().Draw(rt, "record") {
				d.p = policy(rapid.IntRange(-2, 2).Draw(rt, "priority"), time.Duration(rapid.IntRange(0, 300).Draw(rt, "own"))*time.Second)
				d.p.Action = rapid.SampledFrom([]string{"", api.StopAsk, api.StopForce}).Draw(rt, "action")
			}
			all = append(all, d)
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for i, d := range all {
				w.add(fmt.Sprintf("vm%d", i), d.obeys, d.p).ends = d.ends
			}
			r := w.runner()
			result := r.Run(t.Context(), timeout)
			limit := max(timeout, mostBudget)
			if timeout > 0 {
				limit = timeout
			}
			if w.now() > limit+forceReserve+time.Second {
				rt.Errorf("it took %s of %s", w.now(), limit)
			}
			if len(result.Instances) != n || result.Failed() != 0 {
				rt.Errorf("result %+v", result)
			}
			for name, g := range w.guests {
				if g.alive {
					rt.Errorf("%s lives", name)
				}
			}
			w.nothingOwed(r)
			sorted := slices.SortedStableFunc(slices.Values(w.asked), func(a, b call) int { return int(a.began - b.began) })
			for i := 1; i < len(sorted); i++ {
				if w.outcome(result, sorted[i].name).Priority > w.outcome(result, sorted[i-1].name).Priority {
					rt.Errorf("%+v came after %+v", sorted[i], sorted[i-1])
				}
			}
		})
	})
}
