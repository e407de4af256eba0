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
	"testing"
	"testing/synctest"
	"time"

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
		{"the operator has stopped it since", Facts{Marker: marker(ran("a", 0)), Records: []api.Record{rec("a", "stopped", 0)}, Domains: off("a")}, "[]"},
		{"it runs already", Facts{Marker: marker(ran("a", 0)), Domains: running}, "[]"},
		{"it is no more", Facts{Marker: marker(ran("a", 0))}, "[]"},
		{"another one has its name", Facts{Marker: marker(ran("a", 0)), Domains: other}, "[]"},
	} {
		var got []string
		for _, g := range Decide(c.f) {
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
	fails   map[string]int // how often a start fails
	told    []string
	most    int // at once
	now     int
}

func newHost(t *testing.T, boot string) *host {
	h := &host{fails: map[string]int{}}
	dir := t.TempDir()
	h.Options = Options{Enabled: true, Place: shutdown.Place{Dir: dir}, Records: record.Dir(filepath.Join(dir, "records")), Log: slog.New(slog.DiscardHandler),
		BootID: func() (string, error) { return boot, nil },
		Domains: func(context.Context) (out []hypervisor.Domain, err error) {
			list, err := h.Records.List()
			for _, r := range list {
				out = append(out, off(r.Name)...)
			}
			return out, err
		},
		Start: func(_ context.Context, ref api.Ref) error {
			h.mu.Lock()
			h.now++
			h.most = max(h.most, h.now)
			h.mu.Unlock()
			time.Sleep(time.Second) // of the bubble
			h.mu.Lock()
			defer h.mu.Unlock()
			h.now--
			if h.fails[ref.Name]--; h.fails[ref.Name] >= 0 {
				return errors.New("no route to its storage")
			}
			h.started = append(h.started, ref.Name)
			return nil
		},
		Tell: func(a Again, err error, last bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.told = append(h.told, fmt.Sprint(a.Name, " ", err == nil, " ", last))
		}}
	return h
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
	h.started = nil
	if err := Run(t.Context(), h.Options); err != nil {
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
		h.BootID = func() (string, error) { return "2", nil }
		h.run(t, "db", "web")
		h.run(t)
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
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if err := Run(ctx, h.Options); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if h.most != parallel || len(h.started) != 2*parallel {
			t.Errorf("%d at once, %d in all", h.most, len(h.started))
		}
		h.started = nil
		if err := Run(t.Context(), h.Options); err != nil || len(h.started) != 10 {
			t.Errorf("started %q, %v; want all: which of them run is libvirt's to say", h.started, err)
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
