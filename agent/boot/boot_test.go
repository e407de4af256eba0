package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/durable/durabletest"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func rec(name, power string, priority int) api.Record {
	return api.Record{Project: "default", Name: name, UUID: "u-" + name, PowerState: power, Stop: &api.StopPolicy{Priority: priority}}
}

func ran(name string, priority int) shutdown.Ran {
	return shutdown.Ran{Project: "default", Name: name, UUID: "u-" + name, Priority: priority}
}

func off(names ...string) (out []hypervisor.Domain) {
	for _, n := range names {
		out = append(out, hypervisor.Domain{Name: n, UUID: "u-" + n, State: hypervisor.Shutoff})
	}
	return out
}

func marker(r ...shutdown.Ran) *shutdown.Marker { return &shutdown.Marker{BootID: "1", Ran: r} }

func TestDecide(t *testing.T) {
	running := off("a")
	running[0].State = hypervisor.Running
	other := off("a")
	other[0].UUID = "u-another"
	renamed, anew := ran("new", 7), off("new")
	renamed.UUID, anew[0].UUID = "u-a", "u-a"
	stopping := ran("a", 0)
	stopping.Stopping = true
	for _, c := range []struct {
		name string
		f    Facts
		want string
	}{
		{"the agent was restarted", Facts{Records: []api.Record{rec("a", "running", 0)}, Domains: off("a")}, "[]"},
		{"the host was shut down", Facts{Marker: marker(ran("a", 0)), Records: []api.Record{rec("a", "running", 0)}, Domains: off("a")}, "[[a]]"},
		{"power was cut", Facts{Rebooted: true, Records: []api.Record{rec("a", "running", 0), rec("b", "stopped", 0)}, Domains: off("a", "b")}, "[[a]]"},
		{"only what ran", Facts{Marker: marker(ran("a", 0)), Records: []api.Record{rec("a", "running", 0), rec("b", "running", 0)}, Domains: off("a", "b")}, "[[a]]"},
		{"the lowest priority first", Facts{Rebooted: true, Records: []api.Record{rec("web", "running", 10), rec("db", "running", -1), rec("x", "running", 10)},
			Domains: off("web", "db", "x")}, "[[db] [web x]]"},
		{"without a record", Facts{Marker: marker(ran("a", 3), ran("b", 0)), Records: []api.Record{rec("b", "running", 0)}, Domains: off("a", "b")}, "[[b] [a]]"},
		{"the operator was stopping it", Facts{Marker: marker(stopping), Records: []api.Record{rec("a", "running", 0)}, Domains: off("a")}, "[]"},
		{"it was renamed", Facts{Rebooted: true, Marker: marker(renamed), Records: []api.Record{rec("a", "running", 0)}, Domains: anew}, "[[new]]"},
		{"it was stopped, renamed, and started", Facts{Marker: marker(renamed), Records: []api.Record{rec("a", "stopped", 0)}, Domains: anew}, "[[new]]"},
		{"another host may have it", Facts{Rebooted: true, Marker: marker(stopping), Records: []api.Record{rec("a", "running", 0)}, Domains: off("a")}, "[]"},
		{"the operator has stopped it since", Facts{Marker: marker(ran("a", 0)), Records: []api.Record{rec("a", "stopped", 0)}, Domains: off("a")}, "[]"},
		{"it runs already", Facts{Marker: marker(ran("a", 0)), Domains: running}, "[]"},
		{"it is no more", Facts{Marker: marker(ran("a", 0))}, "[]"},
		{"it was about to be stopped", Facts{Rebooted: true, Stopped: map[string]bool{"u-a": true}, Records: []api.Record{rec("a", "running", 0)}, Domains: off("a")}, "[]"},
		{"another one has its name", Facts{Marker: marker(ran("a", 0)), Domains: other}, "[]"},
	} {
		var got []string
		for _, g := range groups(merge(nil, Decide(c.f), c.f.Domains, Entry{})) {
			var names []string
			for _, a := range g {
				names = append(names, a.Name)
			}
			got = append(got, "["+strings.Join(names, " ")+"]")
		}
		if s := fmt.Sprint(got); s != c.want {
			t.Errorf("%s: %s; want %s", c.name, s, c.want)
		}
	}
}

// host is a host that has come up.
type host struct {
	Options
	mu      sync.Mutex
	started []string
	tried   int
	fails   map[string]int // how often a start fails
	why     error          // it does
	told    []string
	most    int // at once
	now     int
	runs    map[string]bool
	drains  atomic.Bool
	bell    chan struct{}
}

func newHost(t *testing.T, boot string) *host {
	h := &host{fails: map[string]int{}, runs: map[string]bool{}, why: errors.New("no route to its storage"), bell: make(chan struct{})}
	dir := durabletest.Dir(t)
	h.Options = Options{Enabled: true, Place: shutdown.Place{Dir: dir}, Records: record.Dir(filepath.Join(dir, "records")), Log: slog.New(slog.DiscardHandler),
		BootID:   func() (string, error) { return boot, nil },
		Uptime:   func() (time.Duration, error) { return time.Minute, nil },
		Notes:    func() ([]cleanup.Note, error) { return nil, nil },
		Draining: func() bool { return h.drains.Load() },
		Repaired: func() <-chan struct{} {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.bell
		},
		Domains: func(context.Context) (out []hypervisor.Domain, err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			list, err := h.Records.List()
			for _, r := range list {
				d := off(r.Name)
				if h.runs[r.Name] {
					d[0].State = hypervisor.Running
				}
				out = append(out, d...)
			}
			return out, err
		},
		Start: func(_ context.Context, ref api.Ref) error { return h.start(ref) },
		Tell: func(a Again, err error, last bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.told = append(h.told, fmt.Sprint(a.Name, " ", err == nil, " ", last))
		}}
	return h
}

// start leaves what a start leaves: a record that says "stopped" where it fails.
func (h *host) start(ref api.Ref) error {
	h.mu.Lock()
	h.now++
	h.tried++
	h.most = max(h.most, h.now)
	h.mu.Unlock()
	time.Sleep(time.Second) // of the bubble
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
	r, err := h.Records.Read(ref)
	if err != nil {
		return err
	}
	if h.fails[ref.Name]--; h.fails[ref.Name] >= 0 {
		r.PowerState = "stopped"
		return errors.Join(h.why, h.Records.Write(r))
	}
	h.started = append(h.started, ref.Name)
	h.runs[ref.Name] = true
	r.PowerState = "running"
	return h.Records.Write(r)
}

// down is the host's end.
func (h *host) down(boot string) {
	h.runs = map[string]bool{}
	h.BootID = func() (string, error) { return boot, nil }
}

// agent runs it as a new agent would, for so long.
func (h *host) agent(t *testing.T, lives time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lives)
	defer cancel()
	var err error
	if h.Ledger, err = OpenLedger(h.Place); err != nil {
		h.told = append(h.told, "damaged")
	}
	h.started, h.tried = nil, 0
	err = Run(ctx, h.Options)
	synctest.Wait()
	return err
}

func (h *host) has(t *testing.T, rs ...api.Record) {
	t.Helper()
	for _, r := range rs {
		if err := h.Records.Write(r); err != nil {
			t.Fatal(err)
		}
	}
}

func (h *host) ranBoot(t *testing.T, id string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.Place.Dir, bootName), []byte(id+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *host) run(t *testing.T, want ...string) {
	t.Helper()
	if err := h.agent(t, 48*time.Hour); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(h.started, want) {
		t.Errorf("started %q; want %q", h.started, want)
	}
}

// What ran is started once after the host was down, and not by an agent that
// is merely started again.
func TestRunOnceForEachBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "1")
		h.has(t, rec("db", "running", 0), rec("web", "running", 1), rec("off", "stopped", 0))
		h.run(t) // never seen before: an agent that was just installed
		h.run(t)
		h.down("2")
		h.run(t, "db", "web")
		h.run(t)
		h.down("2")
		if err := h.Place.Write(shutdown.Marker{BootID: "2", Ran: []shutdown.Ran{ran("web", 1)}}); err != nil {
			t.Fatal(err)
		}
		h.run(t, "web") // shut down without a reboot
		h.run(t)
		if h.Place.Marked() {
			t.Error("the host is draining still")
		}
	})
}

func TestRunDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.Enabled = false
		h.ranBoot(t, "1")
		h.has(t, rec("db", "running", 0))
		h.run(t)
		h.Enabled = true // from the next start of the host on
		h.run(t)
	})
}

// Starts that hang, on storage that does not answer, keep neither those beside
// them nor those that come after down.
func TestRunGoesPastWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("beside", "running", 0), rec("next", "running", 1))
		for i := range parallel + 1 {
			h.has(t, rec(fmt.Sprint("a-hung-", i), "running", 0))
		}
		h.Start = func(ctx context.Context, ref api.Ref) error {
			if strings.HasPrefix(ref.Name, "a-hung") {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return h.start(ref)
		}
		if err := h.agent(t, 10*time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if !slices.Equal(h.started, []string{"beside", "next"}) {
			t.Errorf("started %q", h.started)
		}
		if owed := h.Ledger.All(); len(owed) != parallel+1 || owed[0].Attempts != 0 {
			t.Errorf("owed %+v; want those that hung, for the next agent", owed)
		}
	})
}

// One that fails is tried again, and keeps nobody waiting.
func TestRunTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("slow", "running", 0), rec("dead", "running", 0), rec("next", "running", 1))
		h.fails["slow"], h.fails["dead"] = 2, 100
		h.run(t, "next", "slow")
		want := append(slices.Repeat([]string{"dead false false"}, attempts-1), "dead false true", "next true true", "slow false false", "slow false false", "slow true true")
		slices.Sort(h.told)
		if !slices.Equal(h.told, want) {
			t.Errorf("told %q; want %q", h.told, want)
		}
	})
}

// A few at once, and what was not begun is done by the next start of the agent.
func TestRunIsBoundedAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		for i := range 10 {
			h.has(t, rec(fmt.Sprintf("vm%d", i), "running", 0))
		}
		if err := h.agent(t, 1500*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if h.most != parallel || len(h.started) != 2*parallel {
			t.Errorf("%d at once, %d in all", h.most, len(h.started))
		}
		if err := h.agent(t, time.Hour); err != nil || len(h.started) != 2 {
			t.Errorf("started %q, %v; want the rest", h.started, err)
		}
	})
}

// Libvirt comes up after the agent.
func TestRunWaitsForLibvirt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("a", "running", 0))
		up, domains := time.Now().Add(time.Hour), h.Domains
		h.Domains = func(ctx context.Context) ([]hypervisor.Domain, error) {
			if time.Now().Before(up) {
				return nil, errors.New("libvirt is not connected")
			}
			return domains(ctx)
		}
		h.run(t, "a")
	})
}

// A note that is damaged leaves the records.
func TestRunWithDamagedNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("a", "running", 0))
		if err := os.WriteFile(filepath.Join(h.Place.Dir, "shutdown.json"), []byte("}{"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.run(t, "a")
	})
}

// What failed is owed still when the agent is started again, although its
// record says "stopped" by then; and not more often than if it had not been.
func TestFailedStartsOutliveTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("slow", "running", 0), rec("dead", "running", 0), rec("off", "stopped", 0))
		h.fails["slow"], h.fails["dead"] = 3, 100
		if err := h.agent(t, 4500*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		tried := h.tried
		if !Owes(h.Place, "u-slow", time.Second) || Owes(h.Place, "u-slow", time.Hour) || Owes(h.Place, "u-off", 0) {
			t.Error("whether an instance has yet to be started is not told")
		}
		h.run(t, "slow")
		if h.told[len(h.told)-1] != "dead false true" {
			t.Errorf("told %q; want that it is given up", h.told)
		}
		if n := tried + h.tried; n != 4+attempts {
			t.Errorf("%d attempts; want 4 and %d", n, attempts)
		}
		h.run(t)
		if h.tried != 0 || Owes(h.Place, "u-dead", 0) {
			t.Errorf("%d attempts after it was given up", h.tried)
		}
	})
}

// In another run of the kernel it has all its attempts again.
func TestFailedStartsOutliveTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("slow", "running", 1), rec("db", "running", 0))
		h.fails["slow"] = attempts + 1
		_ = h.agent(t, 20*time.Second)
		h.down("3")
		h.run(t, "db", "slow")
	})
}

// An attempt that the agent's end has cut short does not count.
func TestCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("a", "running", 0))
		h.fails["a"] = 3 * attempts
		for range 2 * attempts {
			_ = h.agent(t, 500*time.Millisecond)
		}
		if got := h.Ledger.All(); len(got) != 1 || got[0].Attempts != 0 || len(h.told) != 0 {
			t.Errorf("owed %+v, told %q", got, h.told)
		}
	})
}

// What the operator stops is not started again; nor is anything while the host
// goes down, which the next start of the host makes up for.
func TestNotStartedAgainstAWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("stopped", "running", 0), rec("a", "running", 1))
		h.fails["stopped"], h.fails["a"] = 100, 2
		h.Tell = func(Again, error, bool) {
			if err := h.Ledger.Drop(api.Ref{Project: "default", Name: "stopped"}); err != nil {
				t.Error(err)
			}
			h.drains.Store(true)
		}
		h.run(t)
		if got := h.Ledger.All(); len(got) != 1 || got[0].Name != "a" || h.tried != 1 {
			t.Errorf("owed %+v after %d attempts", got, h.tried)
		}
		h.drains.Store(false)
		h.Tell = func(Again, error, bool) {}
		h.down("3")
		h.run(t, "a")
	})
}

// One whose template is lost is not tried again and again; it is started when
// the template is there, whoever tells, and whichever agent hears of it.
func TestWaitsForWhatIsRepaired(t *testing.T) {
	for _, c := range []struct {
		name           string
		restarts, rung bool
		within         time.Duration // of the repair, or of the next agent's start
	}{{"told", false, true, 2 * time.Second}, {"not told", false, false, waitLook + 2*time.Second}, {"by the next agent", true, false, 2 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t, "2")
				h.ranBoot(t, "1")
				h.has(t, rec("a", "running", 0), rec("next", "running", 1))
				h.why = api.NewProblem("precondition", "its template is lost")
				h.fails["a"] = 1 << 30
				var repaired time.Time
				repair := func() {
					repaired = time.Now()
					h.mu.Lock()
					defer h.mu.Unlock()
					h.fails["a"] = 0
					if c.rung {
						close(h.bell)
						h.bell = make(chan struct{})
					}
				}
				if c.restarts {
					_ = h.agent(t, 100*time.Minute)
					repair()
					h.run(t, "a")
				} else {
					time.AfterFunc(100*time.Minute, repair)
					h.run(t, "next", "a")
				}
				if want := []string{"a false false", "next true true", "a true true"}; !slices.Equal(h.told, want) {
					t.Errorf("told %q; want %q", h.told, want)
				}
				if took := time.Since(repaired); took > c.within {
					t.Errorf("started %s after the repair; want %s", took, c.within)
				}
				if h.tried > 3+int(100*time.Minute/waitLook) {
					t.Errorf("%d attempts", h.tried)
				}
			})
		})
	}
}

// Nothing is waited for without an end.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("a", "running", 0), rec("gone", "running", 0))
		h.fails["a"] = 1 << 30
		h.why = api.NewProblem("precondition", "its template is lost")
		began := time.Now()
		h.run(t, "gone")
		if took := time.Since(began); took < patience || took > patience+2*waitLook || h.told[len(h.told)-1] != "a false true" {
			t.Errorf("given up after %s, told %q", took, h.told)
		}
	})
}

// One that somebody has deleted meanwhile is not looked for.
func TestDeletedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("a", "running", 0))
		h.fails["a"], h.why = 1<<30, api.NewProblem("not-found", "no instance")
		h.run(t)
		if want := []string{"a false true"}; !slices.Equal(h.told, want) {
			t.Errorf("told %q; want %q", h.told, want)
		}
	})
}

// A ledger that is damaged costs what it says, and nothing else.
func TestDamagedLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "2")
		h.ranBoot(t, "1")
		h.has(t, rec("a", "running", 0))
		if err := os.WriteFile(filepath.Join(h.Place.Dir, ledgerName), []byte("}{"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.run(t, "a")
		if h.told[0] != "damaged" {
			t.Errorf("told %q", h.told)
		}
		h.run(t)
	})
}
