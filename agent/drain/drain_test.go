package drain_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/drain"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// world is a host whose instances go down when they are let.
type world struct {
	shutdown.Libvirt
	t     testing.TB
	dir   string
	store *faulty

	mu      sync.Mutex
	running map[string]chan struct{} // closed: its guest obeys
	asked   []string
	engine  *operation.Engine
	service *drain.Service
}

// faulty is a store whose writes fail, or hang.
type faulty struct {
	store.Store
	mu    sync.Mutex
	fails error
	hangs chan struct{}
}

func (f *faulty) write() error {
	f.mu.Lock()
	fails, hangs := f.fails, f.hangs
	f.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	return fails
}

func (f *faulty) Put(bucket, key string, value []byte) error {
	if err := f.write(); err != nil {
		return err
	}
	return f.Store.Put(bucket, key, value)
}

func (f *faulty) Update(fn func(store.Tx) error) error {
	if err := f.write(); err != nil {
		return err
	}
	return f.Store.Update(fn)
}

func (f *faulty) set(fails error, hangs chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails, f.hangs = fails, hangs
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), store: &faulty{Store: store.Memory()}, running: map[string]chan struct{}{}}
	for _, n := range names {
		w.running[n] = make(chan struct{})
	}
	w.open()
	return w
}

// open starts the agent.
func (w *world) open() {
	w.t.Helper()
	e, err := operation.Open(operation.Options{Store: w.store})
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	records := record.Dir(filepath.Join(w.dir, "records"))
	w.engine = e
	w.service = drain.New(drain.Options{Operations: e, Place: shutdown.Place{Dir: w.dir}, Log: log, Accept: 50 * time.Millisecond, Back: []operation.Claim{"rebuild"},
		Runner: shutdown.Runner{Libvirt: w, Ladder: w, Records: records, Log: log,
			Processes: func() ([]process.Found, error) { return nil, nil },
			Cleaner:   cleanup.Cleaner{Dir: filepath.Join(w.dir, "cleanup"), Records: records, Runs: w.runs, Log: log, Now: time.Now}}})
	w.t.Cleanup(w.close)
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := w.engine.Close(ctx); err != nil {
		w.t.Errorf("closing: %v", err)
	}
	w.until("nobody shuts down any more", func() bool { s, err := w.service.Status(ctx); return err == nil && !s.Running })
}

func (w *world) runs(name, _ string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.running[name]
	return ok, nil
}

func (w *world) Domains(context.Context) (out []hypervisor.Domain, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.running {
		out = append(out, hypervisor.Domain{Name: n, UUID: "u-" + n, State: hypervisor.Running})
	}
	return out, nil
}

func (w *world) Domain(_ context.Context, name string) (hypervisor.Domain, error) {
	return hypervisor.Domain{Name: name, UUID: "u-" + name, State: hypervisor.Running}, nil
}

func (w *world) Job(context.Context, string) (hypervisor.Job, error) {
	return hypervisor.Job{Kind: hypervisor.JobNone}, nil
}

func (w *world) Down(ctx context.Context, name, _ string, _ power.Options) (power.Result, error) {
	w.mu.Lock()
	w.asked = append(w.asked, name)
	obeys := w.running[name]
	w.mu.Unlock()
	select {
	case <-obeys:
	case <-ctx.Done():
		return power.Result{}, context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, name)
	return power.Result{Rung: api.RungACPI}, nil
}

func (w *world) let(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range names {
		close(w.running[n])
	}
}

// until polls: what is waited for happens on other goroutines.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	late, look := time.After(5*time.Second), time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-late:
			w.t.Fatalf("%s: not within five seconds", what)
		}
	}
}

func (w *world) wasAsked(name string) func() bool {
	return func() bool { w.mu.Lock(); defer w.mu.Unlock(); return slices.Contains(w.asked, name) }
}

func (w *world) shutDown() api.Operation {
	w.t.Helper()
	op, err := w.service.Shutdown(w.t.Context(), api.ShutdownRequest{Timeout: api.Duration(time.Minute)}, api.Idempotency{})
	if err != nil {
		w.t.Fatal(err)
	}
	return op
}

func (w *world) ended(id string) api.Operation {
	w.t.Helper()
	op, err := w.engine.Wait(w.t.Context(), id, 5*time.Second)
	if err != nil || !op.Ended() {
		w.t.Fatalf("operation %+v, %v", op, err)
	}
	return op
}

// The operation tells what became of each, a second request joins the first,
// and the host is draining from then on.
func TestShutdown(t *testing.T) {
	w := newWorld(t, "a", "b")
	events, err := w.engine.Events(t.Context(), operation.LiveOnly)
	if err != nil {
		t.Fatal(err)
	}
	if w.service.Draining() || w.service.Refuse() != nil {
		t.Error("draining before it was asked for")
	}
	op := w.shutDown()
	w.until("both are asked", func() bool { return w.wasAsked("a")() && w.wasAsked("b")() })
	if again := w.shutDown(); again.ID != op.ID {
		t.Errorf("a second request began %s beside %s", again.ID, op.ID)
	}
	if p := api.AsProblem(w.service.Refuse()); p == nil || p.Code != "not-ready" {
		t.Errorf("an instance would be started: %v", p)
	}
	if l := w.engine.LockOf(api.Ref{Name: "a"}); l == nil || l.Kind != drain.Kind {
		t.Errorf("the instance is free for others: %+v", l)
	}
	w.let("a", "b")
	done := w.ended(op.ID)
	var r api.ShutdownResult
	if err := json.Unmarshal(done.Result, &r); err != nil || done.Status != api.StatusSucceeded || len(r.Instances) != 2 || r.Failed() != 0 {
		t.Errorf("operation %+v, result %+v, %v", done, r, err)
	}
	if s, err := w.service.Status(t.Context()); err != nil || s.Running || s.Operation != op.ID || len(s.Result.Instances) != 2 {
		t.Errorf("status %+v, %v", s, err)
	}
	if !w.service.Draining() {
		t.Error("not draining any more: what was stopped could be started")
	}
	stopped := map[string]bool{}
	for len(stopped) < 2 {
		if e := <-events; e.Kind == "instance" && strings.Contains(e.Detail, "stopped (acpi)") {
			stopped[e.Instance] = true
		}
	}
}

// The host goes down although the store fails, or hangs, from the beginning or
// in the middle.
func TestShutdownWithoutTheStore(t *testing.T) {
	broken := errors.New("input/output error")
	for name, c := range map[string]struct {
		fails        error
		hangs, later bool
	}{
		"fails": {fails: broken}, "hangs": {hangs: true}, "fails later": {fails: broken, later: true}, "hangs later": {hangs: true, later: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "a")
			var hangs chan struct{}
			if c.hangs {
				hangs = make(chan struct{})
				t.Cleanup(func() { close(hangs) })
			}
			t.Cleanup(func() { w.store.set(nil, nil) })
			if !c.later {
				w.store.set(c.fails, hangs)
			}
			op := w.shutDown()
			w.until("it is asked", w.wasAsked("a"))
			w.store.set(c.fails, hangs)
			if (op.ID == "") == c.later {
				t.Errorf("operation %+v", op)
			}
			w.let("a")
			w.until("it is down", func() bool {
				s, err := w.service.Status(t.Context())
				return err == nil && !s.Running && s.Result != nil && len(s.Result.Instances) == 1 && s.Result.Failed() == 0
			})
			if len(w.asked) != 1 {
				t.Errorf("asked %q", w.asked)
			}
		})
	}
}

// Called off, the host stays up and takes instances again.
func TestShutdownIsCancelled(t *testing.T) {
	w := newWorld(t, "a")
	op := w.shutDown()
	w.until("it is asked", w.wasAsked("a"))
	if _, err := w.engine.Cancel(t.Context(), op.ID); err != nil {
		t.Fatal(err)
	}
	if done := w.ended(op.ID); done.Status != api.StatusCancelled {
		t.Errorf("operation %+v", done)
	}
	if w.service.Draining() {
		t.Error("draining still")
	}
	if runs, _ := w.runs("a", ""); !runs {
		t.Error("it was stopped")
	}
}

// An agent that is restarted in the middle goes on, and tells no lie about
// what ran.
func TestShutdownIsRecovered(t *testing.T) {
	w := newWorld(t, "a")
	op := w.shutDown()
	w.until("it is asked", w.wasAsked("a"))
	w.close()
	w.open()
	if err := w.engine.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("it is asked again", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.asked) == 2 })
	if !w.service.Draining() {
		t.Error("not draining")
	}
	w.let("a")
	if done := w.ended(op.ID); done.Status != api.StatusSucceeded {
		t.Errorf("operation %+v %v", done, done.Error)
	}
}

// After another start of the host there is nothing to go on with.
func TestShutdownIsNotRecoveredAfterAReboot(t *testing.T) {
	w := newWorld(t, "a")
	op := w.shutDown()
	w.until("it is asked", w.wasAsked("a"))
	w.close()
	value, err := w.store.Get("operation-data", op.ID+"/"+drain.Kind)
	if err != nil {
		t.Fatal(err)
	}
	var st map[string]any
	if err := json.Unmarshal(value, &st); err != nil {
		t.Fatal(err)
	}
	st["boot_id"] = "another"
	value, err = json.Marshal(st)
	if err == nil {
		err = w.store.Put("operation-data", op.ID+"/"+drain.Kind, value)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.open()
	if err := w.engine.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done := w.ended(op.ID); done.Status != api.StatusFailed || done.Error.Code != "interrupted" || len(w.asked) != 1 {
		t.Errorf("operation %+v %v, asked %q", done, done.Error, w.asked)
	}
}

// A command that could not reach the agent shuts the host down already: the
// agent waits for it, and asks nobody itself.
func TestShutdownJoinsACommand(t *testing.T) {
	w := newWorld(t, "a")
	place := shutdown.Place{Dir: w.dir}
	release, err := place.Hold()
	if err != nil {
		t.Fatal(err)
	}
	op := w.shutDown()
	want := api.ShutdownResult{By: "command", Instances: []api.ShutdownInstance{{Name: "a", Outcome: api.ShutdownStopped}}}
	if err := place.Write(shutdown.Marker{By: "command", Result: &want}); err != nil {
		t.Fatal(err)
	}
	release()
	done := w.ended(op.ID)
	var r api.ShutdownResult
	if err := json.Unmarshal(done.Result, &r); err != nil || r.By != "command" || len(r.Instances) != 1 || len(w.asked) != 0 {
		t.Errorf("operation %+v, result %+v, asked %q", done, r, w.asked)
	}
}

// What an operation was stopping to start it again is to run; what an operator
// was stopping is not.
func TestShutdownTakesAnInstanceFromAnOperation(t *testing.T) {
	for claim, back := range map[operation.Claim]bool{"rebuild": true, operation.ClaimStop: false, operation.ClaimForceStop: false} {
		t.Run(string(claim), func(t *testing.T) {
			w := newWorld(t, "a")
			w.let("a")
			note := cleanup.Note{Project: api.DefaultProject, Name: "a", UUID: "u-a", PowerState: "stopped"}
			c := cleanup.Cleaner{Dir: filepath.Join(w.dir, "cleanup"), Now: time.Now}
			if err := c.Owe(note); err != nil {
				t.Fatal(err)
			}
			_, err := w.engine.Start(t.Context(), operation.Spec{Kind: string(claim), Claim: claim, Instance: "a", Cancellable: true},
				func(ctx context.Context, _ *operation.Op) (any, error) {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				})
			if err != nil {
				t.Fatal(err)
			}
			w.ended(w.shutDown().ID)
			m, _, err := shutdown.Place{Dir: w.dir}.Read()
			if err != nil || len(m.Ran) != 1 || m.Ran[0].Stopping == back {
				t.Errorf("noted %+v, %v", m.Ran, err)
			}
		})
	}
}
