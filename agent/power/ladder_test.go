package power

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quits is a QEMU that does as it is told.
func quits(w *world) { w.end("shutdown") }

// Each case is an instance, what it is told, and what comes of it.
func TestDown(t *testing.T) {
	long := func(n int, act string, every time.Duration) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("%s@%s", act, time.Duration(i)*every))
		}
		return out
	}
	for _, c := range []struct {
		name string
		make func(w *world)
		o    Options
		rung string // "" = it fails, and goes on
		code string
		acts []string
		took time.Duration
	}{
		{name: "stopped already", make: func(w *world) { w.gone = nil; w.off("destroyed") }, rung: api.RungAlready},
		{name: "obeys the button", make: func(w *world) { w.press = func(w *world, _ int) { obeys(2 * time.Second)(w) } },
			rung: api.RungACPI, acts: []string{"ping@0s", "acpi@0s"}, took: 2 * time.Second},
		{name: "obeys its agent", make: func(w *world) { w.ping, w.agent = nil, obeys(7*time.Second) },
			rung: api.RungAgent, acts: []string{"ping@0s", "agent@0s"}, took: 7 * time.Second},
		{name: "its agent hangs", make: func(w *world) {
			w.ping, w.press = nil, func(w *world, _ int) { obeys(time.Second)(w) }
		}, rung: api.RungACPI, acts: []string{"ping@0s", "agent@0s", "acpi@33s"}, took: 34 * time.Second},
		{name: "booting: the first presses are lost", make: func(w *world) {
			w.press = func(w *world, n int) {
				if n == 3 {
					obeys(time.Second)(w)
				}
			}
		}, rung: api.RungACPI, acts: []string{"ping@0s", "acpi@0s", "acpi@5s", "acpi@10s"}, took: 11 * time.Second},
		{name: "ignores the button", make: func(*world) {}, o: Options{Timeout: 12 * time.Second}, code: "timeout",
			acts: []string{"ping@0s", "acpi@0s", "acpi@5s", "acpi@10s"}, took: 12 * time.Second},
		{name: "ignores the button, forced after", make: func(w *world) { w.quit = quits }, o: Options{Timeout: 7 * time.Second, ForceAfter: true},
			rung: api.RungQuit, acts: []string{"ping@0s", "acpi@0s", "acpi@5s", "quit@7s"}, took: 7 * time.Second},
		{name: "forced", make: func(w *world) { w.quit = quits }, o: Options{Force: true}, rung: api.RungQuit, acts: []string{"quit@0s"}},
		{name: "does not quit", make: func(*world) {}, o: Options{Force: true}, rung: api.RungTerm, acts: []string{"quit@0s", "sigterm@5s"}, took: 5 * time.Second},
		{name: "stopped by SIGSTOP, forced", make: func(w *world) { w.hung = true }, o: Options{Force: true},
			rung: api.RungKill, acts: []string{"quit@0s", "sigterm@4s", "sigkill@9s"}, took: 9 * time.Second},
		{name: "stopped by SIGSTOP", make: func(w *world) { w.hung = true }, o: Options{Timeout: 10 * time.Second}, code: "timeout",
			acts: []string{"ping@0s", "acpi@3s"}, took: 10 * time.Second},
		{name: "cannot be killed", make: func(w *world) { w.signal = func(*world, syscall.Signal) {} }, o: Options{Force: true}, code: "conflict",
			acts: []string{"quit@0s", "sigterm@5s", "sigkill@10s"}, took: 40 * time.Second},
		{name: "paused by a user", make: func(w *world) {
			w.set(hypervisor.Paused, "user")
			w.resume = func(w *world) { w.set(hypervisor.Running, "unpaused") }
			w.press = func(w *world, _ int) { obeys(time.Second)(w) }
		}, rung: api.RungACPI, acts: []string{"resume@0s", "ping@0s", "acpi@0s"}, took: time.Second},
		{name: "paused by an I/O error", make: func(w *world) { w.set(hypervisor.Paused, "ioerror") }, code: "conflict"},
		{name: "paused by an I/O error, forced after", make: func(w *world) { w.set(hypervisor.Paused, "ioerror"); w.quit = quits },
			o: Options{ForceAfter: true}, rung: api.RungQuit, acts: []string{"quit@0s"}},
		{name: "pauses for an I/O error while it shuts down", make: func(w *world) {
			w.press = func(w *world, _ int) { w.after(2*time.Second, func() { w.set(hypervisor.Paused, "ioerror") }) }
		}, code: "conflict", acts: []string{"ping@0s", "acpi@0s"}, took: 2 * time.Second},
		{name: "crashed, and kept", make: func(w *world) { w.set(hypervisor.Crashed, "panicked"); w.quit = quits },
			rung: api.RungQuit, acts: []string{"quit@0s"}},
		{name: "crashes while it is asked", make: func(w *world) {
			w.quit = quits
			w.press = func(w *world, _ int) {
				w.after(time.Second, func() { w.set(hypervisor.Crashed, "panicked") })
			}
		}, rung: api.RungQuit, acts: []string{"ping@0s", "acpi@0s", "quit@1s"}, took: time.Second},
		{name: "suspended by itself", make: func(w *world) {
			w.set(hypervisor.PMSuspended, "")
			w.wake = func(w *world) { w.set(hypervisor.Running, "wakeup") }
			w.press = func(w *world, _ int) { obeys(time.Second)(w) }
		}, rung: api.RungACPI, acts: []string{"wake@0s", "ping@0s", "acpi@0s"}, took: time.Second},
		{name: "vanishes", make: func(w *world) {
			w.after(2*time.Second, func() { w.absent = true; close(w.gone) })
		}, rung: api.RungACPI, acts: []string{"ping@0s", "acpi@0s"}, took: 2 * time.Second},
		{name: "another one has its name", make: func(w *world) { w.gone = nil; w.domain.UUID = "other" }, rung: api.RungAlready},
		{name: "libvirt restarts meanwhile", make: func(w *world) {
			w.press = func(w *world, _ int) {
				w.after(time.Second, func() { w.away = true; w.end("shutdown") })
				w.after(9*time.Second, func() { w.away = false })
			}
		}, rung: api.RungACPI, acts: []string{"ping@0s", "acpi@0s"}, took: 9 * time.Second},
		{name: "libvirt is away for good", make: func(w *world) { w.away = true }, o: Options{Timeout: 3 * time.Second, ForceAfter: true},
			rung: api.RungTerm, acts: []string{"ping@0s", "acpi@0s", "sigterm@3s"}, took: 3*time.Second + agreeUnheard},
		{name: "libvirt is away for good, and the guest powers off", make: func(w *world) {
			w.away, w.own = true, "running"
			w.press = func(w *world, _ int) { w.after(1500*time.Millisecond, func() { w.own = "shutdown" }) }
		}, rung: api.RungACPI, acts: []string{"ping@0s", "acpi@0s", "sigterm@2s"}, took: 2*time.Second + agreeUnheard},
		{name: "libvirt is away for good, and the guest sleeps", make: func(w *world) {
			w.away, w.own = true, "suspended"
			w.wake = func(w *world) { w.after(500*time.Millisecond, func() { w.own = "running" }) }
			w.press = func(w *world, _ int) { obeys(time.Second)(w) }
		}, rung: api.RungACPI, acts: []string{"wake@0s", "ping@1s", "acpi@1s"}, took: 2*time.Second + agreeUnheard},
		{name: "libvirt is away for good, and the guest is paused", make: func(w *world) {
			w.away, w.own = true, "paused"
			w.resume = func(w *world) { w.own = "running" }
			w.press = func(w *world, _ int) { obeys(time.Second)(w) }
		}, rung: api.RungACPI, acts: []string{"resume@0s", "ping@0s", "acpi@0s"}, took: time.Second + agreeUnheard},
		{name: "libvirt is away for good, and the guest has crashed", make: func(w *world) { w.away, w.own = true, "guest-panicked" },
			rung: api.RungTerm, acts: []string{"sigterm@0s"}, took: agreeUnheard},
		{name: "libvirt is away for good, and the guest is arriving", make: func(w *world) { w.away, w.own = true, "inmigrate" },
			o: Options{ForceAfter: true}, code: "conflict"},
		{name: "libvirt is away for good, and nobody knows why the guest is paused", make: func(w *world) { w.away, w.own = true, "something-new" },
			o: Options{ForceAfter: true}, rung: api.RungTerm, acts: []string{"sigterm@0s"}, took: agreeUnheard},
		{name: "moves to another host", make: func(w *world) {
			w.after(time.Second, func() { w.end("migrated") })
		}, code: "conflict", acts: []string{"ping@0s", "acpi@0s"}, took: time.Second},
		{name: "is started again by somebody", make: func(w *world) {
			w.notice = time.Hour
			w.after(time.Second, func() { w.end("shutdown"); w.domain.ID = 9 })
		}, code: "conflict", acts: []string{"ping@0s", "acpi@0s"}, took: time.Second},
		{name: "libvirt is behind", make: func(w *world) {
			w.notice = 3 * time.Second
			w.press = func(w *world, _ int) { obeys(time.Second)(w) }
		}, rung: api.RungACPI, acts: []string{"ping@0s", "acpi@0s"}, took: 4 * time.Second},
		{name: "its process is behind", make: func(w *world) {
			w.press = func(w *world, _ int) {
				w.after(time.Second, func() { w.off("shutdown") })
				w.after(4*time.Second, func() { close(w.gone) })
			}
		}, rung: api.RungACPI, acts: []string{"ping@0s", "acpi@0s"}, took: 4 * time.Second},
		{name: "its process is out of sight", make: func(w *world) {
			w.hidden = errors.New("not permitted")
			w.destroy = func(w *world) error { w.end("destroyed"); return nil }
		}, o: Options{Force: true}, rung: api.RungDestroy, acts: []string{"quit@0s", "destroy@5s"}, took: 5 * time.Second},
		{name: "it cannot be reached at all", make: func(w *world) { w.hidden = errors.New("not permitted"); w.away = true },
			o: Options{Force: true}, code: "libvirt-failed", acts: []string{"destroy@0s"}, took: 10 * time.Second},
		{name: "a long wait", make: func(*world) {}, code: "timeout", acts: append([]string{"ping@0s"}, long(24, "acpi", 5*time.Second)...), took: DefaultTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := running()
				c.make(w)
				r, err := w.ladder().Down(t.Context(), "vm", "u", c.o)
				took := time.Since(w.born)
				if r.Rung != c.rung || api.CodeOf(err) != c.code || err != nil && c.code == "" {
					t.Errorf("rung %q, error %v; want %q, code %q", r.Rung, err, c.rung, c.code)
				}
				if !slices.Equal(w.acts(), c.acts) {
					t.Errorf("did %v\nwant %v", w.acts(), c.acts)
				}
				// An end that no event tells is seen within a second.
				if took < c.took || took > c.took+lookEvery {
					t.Errorf("took %s; want %s", took, c.took)
				}
				if c.rung == "" && w.domain.State == hypervisor.Running && w.gone != nil && w.isGone() && c.code == "timeout" {
					t.Error("it was ended, although nobody allowed it")
				}
				w.wantClosed(t)
			})
		})
	}
}

// The result tells how long each rung was given.
func TestResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := running()
		w.hung = true
		r, err := w.ladder().Down(t.Context(), "vm", "u", Options{Timeout: 9 * time.Second, ForceAfter: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range r.Rungs {
			got = append(got, fmt.Sprintf("%s %s %d %t", x.Rung, x.Took.Std(), x.Tries, x.Error != ""))
		}
		want := []string{"acpi 6s 1 false", "quit 4s 1 true", "sigterm 5s 1 false", "sigkill 0s 1 false"}
		if !slices.Equal(got, want) || r.Rung != api.RungKill {
			t.Errorf("rungs %v, ended by %q; want %v", got, r.Rung, want)
		}
	})
}

// A newer request, or the agent's own end, stops the climbing where it is.
func TestDownIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := running()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("somebody wants it otherwise")
		time.AfterFunc(7*time.Second, func() { cancel(why) })
		r, err := w.ladder().Down(ctx, "vm", "u", Options{ForceAfter: true})
		if !errors.Is(err, why) || r.Rung != "" || len(r.Rungs) != 1 {
			t.Errorf("result %+v, error %v; want the cause", r, err)
		}
		if took := time.Since(w.born); took != 7*time.Second {
			t.Errorf("it took %s to notice", took)
		}
		w.wantClosed(t)
	})
}

// Also in the middle of a call that does not come back.
func TestDownIsCancelledInACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := running()
		w.hung = true
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := w.ladder().Down(ctx, "vm", "u", Options{Force: true}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(w.born); took != time.Second {
			t.Errorf("it took %s to notice", took)
		}
	})
}

// Twenty go down together: none waits for another, also where one hangs.
func TestManyGoDownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		begun := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var order []string
		note := func(what string) { mu.Lock(); defer mu.Unlock(); order = append(order, what) }
		for i := range n {
			w := running()
			w.hung = i == 0
			w.press = func(w *world, _ int) { note("pressed"); obeys(3 * time.Second)(w) }
			wg.Go(func() {
				if _, err := w.ladder().Down(t.Context(), "vm", "u", Options{Timeout: 20 * time.Second, ForceAfter: true}); err != nil {
					t.Error(err)
				}
				note("down")
			})
		}
		wg.Wait()
		// All were pressed before the first was down, and the one that hangs is last.
		want := strings.Repeat("pressed ", n-1) + strings.Repeat("down ", n)
		if got := strings.Join(order, " ") + " "; got != want {
			t.Errorf("order %s", got)
		}
		if took := time.Since(begun); took > 40*time.Second {
			t.Errorf("took %s; the slowest alone takes 29 s", took)
		}
	})
}
