package shutdown

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// ErrLeft ends a shutdown, as the cause of its context, that somebody else will
// go on with: the agent that is started next.
var ErrLeft = errors.New("the shutdown is left to whoever comes next")

// Libvirt is what is asked of libvirt. All may fail at any time: it is
// restarted, or stopped, by the same hand that stops the host.
type Libvirt interface {
	Domains(ctx context.Context) ([]hypervisor.Domain, error)
	// Domain returns hypervisor.ErrNoDomain for one that is not there.
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	Job(ctx context.Context, name string) (hypervisor.Job, error)
	// Yank cuts a migration's connections, which Abort may hang on.
	Yank(ctx context.Context, name string) (int, error)
	Abort(ctx context.Context, name string) error
	Destroy(ctx context.Context, name string) error
}

// Ladder brings one instance down.
type Ladder interface {
	Down(ctx context.Context, name, uuid string, o power.Options) (power.Result, error)
}

// Seized is what was found out by taking an instance from whoever had it.
type Seized struct {
	// Release gives it back; nil = nothing was taken.
	Release func()
	// Stopping: the operator was stopping it, so it is not to run again.
	Stopping bool
	// Back: it was being stopped only to be started again, so it is to run.
	Back bool
	// Moving: it was being moved to another host.
	Moving bool
	// Warning is what stands in the way, which stops nobody.
	Warning string
}

// Runner stops the instances of this host. Seize and Tell may be nil.
type Runner struct {
	By      string // who asks, for the result: "agent" or "command"
	Libvirt Libvirt
	Ladder  Ladder
	Cleaner cleanup.Cleaner
	Records record.Dir
	Place   Place
	// Processes lists the host's QEMU processes, for a libvirt that is away.
	Processes func() ([]process.Found, error)
	// Seize takes an instance from the operation that holds it. It returns when
	// that has let go, or ctx ends.
	Seize func(ctx context.Context, ref api.Ref) Seized
	// Tell hears of every change, one call at a time.
	Tell func(api.ShutdownResult)
	Log  *slog.Logger
}

const (
	// libvirtPatience is how long libvirt is waited for at first, a third of the
	// whole at most: processes can be found without it, but not asked as well.
	libvirtPatience = 10 * time.Second
	// longest is the longest deadline, so that there are times after it.
	longest = 365 * 24 * time.Hour
	// again is how often the list is looked at anew at the end: something may
	// have been started or have arrived meanwhile.
	again = 3
)

// Run stops every instance within the timeout, 0 = as long as they ask for. It
// returns what became of each; it does not fail, since a host that goes down
// goes down. When ctx ends it asks nobody else to stop and returns soon.
//
// The place is to be held by the caller.
func (r *Runner) Run(ctx context.Context, timeout time.Duration) api.ShutdownResult {
	began := time.Now()
	first := min(timeout, longest)
	if first <= 0 {
		first = mostBudget
	}
	s := &run{Runner: r, known: map[string]int{}, marker: Marker{By: r.By}, result: api.ShutdownResult{By: r.By, Began: began.UTC(), Instances: []api.ShutdownInstance{}}}
	s.deadline = began.Add(first)
	found := s.discover(ctx)
	if timeout <= 0 {
		s.deadline = began.Add(budget(order(found)))
	}
	s.result.Deadline = s.deadline.UTC()
	s.begin(found)
	for range again {
		s.stopAll(ctx, found)
		if ctx.Err() != nil || time.Until(s.deadline) <= 0 {
			break
		}
		if found = s.discover(ctx); len(found) == 0 {
			break
		}
		s.begin(found)
	}
	return s.end(ctx)
}

// run is one shutdown.
type run struct {
	*Runner
	deadline time.Time
	deaf     bool // libvirt did not answer when it was asked for its domains

	mu     sync.Mutex
	ended  bool // what comes late is told to nobody
	result api.ShutdownResult
	known  map[string]int // UUID to its place in the result
	marker Marker
}

// begin lists the instances, and notes on disk that they ran before the first
// of them is asked: after a crash, or the end of power, they are known.
func (s *run) begin(found []Instance) {
	s.remember()
	s.mu.Lock()
	for _, i := range found {
		if _, known := s.known[i.UUID]; known {
			continue
		}
		s.known[i.UUID] = len(s.result.Instances)
		s.result.Instances = append(s.result.Instances, api.ShutdownInstance{Project: i.Project, Name: i.Name, UUID: i.UUID,
			Priority: i.Policy.Priority, Outcome: api.ShutdownWaiting})
		ran := Ran{Project: i.Project, Name: i.Name, UUID: i.UUID, Priority: i.Policy.Priority}
		if n, owed, err := s.Cleaner.Owed(i.Ref()); err == nil && owed && n.UUID == i.UUID && n.PowerState == "stopped" {
			ran.Stopping = true // somebody has begun to stop it, and did not live to end it
		}
		s.marker.Ran = append(slices.DeleteFunc(s.marker.Ran, func(r Ran) bool { return r.UUID == ran.UUID }), ran)
	}
	s.marker.Began, s.marker.Deadline = s.result.Began, s.result.Deadline
	s.mu.Unlock()
	s.note()
	s.tell()
}

// remember takes over what an earlier shutdown has noted that nobody has dealt
// with yet: what it stopped is to run again all the same.
func (s *run) remember() {
	if s.marker.BootID != "" {
		return
	}
	boot, err := BootID()
	if err != nil {
		s.warn("the run of the kernel cannot be told: %v", err)
		return
	}
	s.marker.BootID = boot
	if m, marked, err := s.Place.Read(); err == nil && marked && m.BootID == boot {
		s.marker.Ran = m.Ran
	}
	// The agent has taken this up, and has yet to start what it says: it waits
	// for libvirt.
	if m, taken, err := s.Place.Taken(); err == nil && taken {
		for _, ran := range m.Ran {
			if !slices.ContainsFunc(s.marker.Ran, func(r Ran) bool { return r.UUID == ran.UUID }) {
				s.marker.Ran = append(s.marker.Ran, ran)
			}
		}
	}
}

// note writes the marker. A disk that takes nothing must not keep a host up.
func (s *run) note() {
	s.mu.Lock()
	m := s.marker
	m.Ran = slices.Clone(m.Ran)
	s.mu.Unlock()
	if err := s.Place.Write(m); err != nil {
		s.warn("what ran is not noted, and is not known at the next start: %v", err)
	}
}

// end concludes. One that is left to others is not noted as done.
func (s *run) end(ctx context.Context) api.ShutdownResult {
	s.mu.Lock()
	s.ended = true
	for i := range s.result.Instances {
		if o := &s.result.Instances[i]; o.Outcome == api.ShutdownWaiting || o.Outcome == api.ShutdownStopping {
			o.Outcome, o.Error = api.ShutdownFailed, "it was not down when the time was over"
		}
	}
	left := errors.Is(context.Cause(ctx), ErrLeft)
	if out := s.snapshot(); !left {
		s.marker.Result = &out
	}
	s.mu.Unlock()
	s.note()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

// stopAll stops group after group, and returns when all are down, or when the
// power of those that are not was cut in vain.
func (s *run) stopAll(ctx context.Context, found []Instance) {
	groups := order(found)
	var all sync.WaitGroup
	for len(groups) > 0 && ctx.Err() == nil {
		wants := make([]time.Duration, len(groups))
		for i, g := range groups {
			wants[i] = g.wants()
		}
		left := time.Until(s.deadline)
		given := share(left, wants)
		s.Log.Info("stopping instances", "priority", groups[0][0].Policy.Priority, "instances", len(groups[0]), "time", given)
		var these sync.WaitGroup
		for _, i := range groups[0] {
			all.Add(1)
			these.Go(func() { defer all.Done(); s.stopOne(ctx, i, given) })
		}
		// The next priority comes when all are down; one that cannot be ended
		// keeps nobody waiting beyond what was to be its share.
		if groups = groups[1:]; len(groups) > 0 && !within(&these, given+min(forceReserve, max(left, 0)/time.Duration(len(wants)))) {
			s.warn("not all instances down in time: those of a lower priority are not kept waiting")
		}
	}
	within(&all, max(time.Until(s.deadline), 0)+forceReserve)
}

// within waits, and tells whether that was enough.
func within(all *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// update changes what is told of an instance.
func (s *run) update(i Instance, change func(*api.ShutdownInstance)) {
	s.mu.Lock()
	at, known := s.known[i.UUID]
	if known && !s.ended {
		change(&s.result.Instances[at])
	}
	s.mu.Unlock()
	s.tell()
}

func (s *run) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.Log.Warn("shutting down", "warning", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && !slices.Contains(s.result.Warnings, text) {
		s.result.Warnings = append(s.result.Warnings, text)
	}
}

func (s *run) tell() {
	if s.Tell == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.Tell(s.snapshot())
	}
}

// snapshot needs mu.
func (s *run) snapshot() api.ShutdownResult {
	out := s.result
	out.Instances = slices.Clone(out.Instances)
	out.Warnings = slices.Clone(out.Warnings)
	return out
}
