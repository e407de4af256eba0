package shutdown

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

var errAway = errors.New("libvirt is not connected")

// guest is an instance of the fake host, in the time of a synctest bubble.
type guest struct {
	domain hypervisor.Domain
	// obeys is how long its guest takes to go down when it is asked; negative =
	// it does not. ends is how long it takes to end when its power is cut;
	// negative = its process hangs in the kernel.
	obeys, ends time.Duration
	alive       bool
	outgoing    bool
	abort       func(*guest) // what becomes of its migration
}

// world is a host: its libvirt, its processes, its records.
type world struct {
	t       testing.TB
	dir     string
	mu      sync.Mutex
	guests  map[string]*guest
	away    bool // libvirt
	records record.Dir
	targets []api.Target // disconnected
	asked   []call
	told    []api.ShutdownResult
	broken  error // of the targets
}

// call is one instance's way down.
type call struct {
	name        string
	options     power.Options
	began, down time.Duration // since the beginning of the world
}

func newWorld(t testing.TB) *world {
	dir := t.TempDir()
	return &world{t: t, dir: dir, guests: map[string]*guest{}, records: record.Dir(filepath.Join(dir, "records"))}
}

// add makes an instance that runs, with a record where a policy is given.
func (w *world) add(name string, obeys time.Duration, policy *api.StopPolicy) *guest {
	w.t.Helper()
	g := &guest{domain: hypervisor.Domain{Name: name, UUID: "u-" + name, ID: 1, State: hypervisor.Running}, obeys: obeys, ends: time.Second, alive: true}
	w.guests[name] = g
	if policy == nil {
		return g
	}
	r := api.Record{Project: "default", Name: name, UUID: "u-" + name, PowerState: "running", Stop: policy,
		Targets: []api.Target{{Type: "file", Path: "/targets/" + name}}}
	if err := w.records.Write(r); err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) runner() *Runner {
	log := slog.New(slog.DiscardHandler)
	return &Runner{By: "command", Libvirt: w, Ladder: w, Records: w.records, Place: Place{w.dir}, Log: log,
		Processes: w.processes, Tell: func(r api.ShutdownResult) { w.told = append(w.told, r) },
		Cleaner: cleanup.Cleaner{Dir: filepath.Join(w.dir, "cleanup"), Records: w.records, Targets: w, Runs: w.runs, Log: log, Now: time.Now}}
}

func (w *world) runs(name, _ string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.guests[name]
	return g != nil && g.alive, nil
}

func (w *world) processes() (out []process.Found, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, g := range w.guests {
		if g.alive {
			out = append(out, process.Found{PID: 1, Name: name, UUID: g.domain.UUID})
		}
	}
	return out, nil
}

func (w *world) Modify(_ context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return api.TargetsResponse{}, w.broken
	}
	w.targets = append(w.targets, r.Targets...)
	return api.TargetsResponse{}, nil
}

func (w *world) Domains(context.Context) (out []hypervisor.Domain, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return nil, errAway
	}
	for _, g := range w.guests {
		out = append(out, g.domain)
	}
	return out, nil
}

func (w *world) Domain(_ context.Context, name string) (hypervisor.Domain, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.guests[name]
	switch {
	case w.away:
		return hypervisor.Domain{}, errAway
	case g == nil:
		return hypervisor.Domain{}, hypervisor.ErrNoDomain
	}
	return g.domain, nil
}

func (w *world) Job(_ context.Context, name string) (hypervisor.Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.guests[name]; g != nil && g.outgoing {
		return hypervisor.Job{Kind: hypervisor.JobOutgoing}, nil
	}
	return hypervisor.Job{Kind: hypervisor.JobNone}, nil
}

func (w *world) Yank(context.Context, string) (int, error) { return 0, nil }

func (w *world) Abort(_ context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.guests[name]; g.abort != nil {
		g.abort(g)
	}
	return nil
}

func (w *world) Destroy(_ context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guests[name].off()
	return nil
}

func (g *guest) off() { g.alive, g.domain.State, g.domain.ID = false, hypervisor.Shutoff, -1 }

// Down is a ladder of two rungs.
func (w *world) Down(ctx context.Context, name, _ string, o power.Options) (power.Result, error) {
	w.mu.Lock()
	g := w.guests[name]
	at := len(w.asked)
	w.asked = append(w.asked, call{name: name, options: o, began: w.now(), down: -1})
	obeys, ends := g.obeys, g.ends
	if !g.alive {
		w.mu.Unlock()
		return power.Result{Rung: api.RungAlready}, nil
	}
	w.mu.Unlock()
	rung, wait := api.RungACPI, obeys
	if o.Force || obeys < 0 || obeys > o.Timeout {
		rung, wait = api.RungQuit, ends
		if !o.Force {
			wait += o.Timeout
		}
		if ends < 0 {
			wait = time.Hour
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return power.Result{}, context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	g.off()
	w.asked[at].down = w.now()
	return power.Result{Rung: rung}, nil
}

// epoch is where every synctest bubble begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *world) now() time.Duration { return time.Since(epoch) }

// way gives the calls about an instance.
func (w *world) way(name string) call {
	w.t.Helper()
	i := slices.IndexFunc(w.asked, func(c call) bool { return c.name == name })
	if i < 0 {
		w.t.Fatalf("%q was not stopped; only %+v", name, w.asked)
	}
	return w.asked[i]
}

func (w *world) outcome(r api.ShutdownResult, name string) api.ShutdownInstance {
	w.t.Helper()
	i := slices.IndexFunc(r.Instances, func(i api.ShutdownInstance) bool { return i.Name == name })
	if i < 0 {
		w.t.Fatalf("no %q in %+v", name, r.Instances)
	}
	return r.Instances[i]
}

func (w *world) power(name string) string {
	w.t.Helper()
	r, err := w.records.Read(api.Ref{Project: "default", Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.PowerState
}

// nothingOwed wants every clean-up done.
func (w *world) nothingOwed(r *Runner) {
	w.t.Helper()
	if notes, err := r.Cleaner.Pending(); len(notes) != 0 || err != nil {
		w.t.Errorf("owed still: %+v, %v", notes, err)
	}
}
