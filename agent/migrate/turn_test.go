package migrate_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/queue"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// shows waits until an operation looks as wanted.
func (w *world) shows(id, what string, ok func(api.Operation) bool) api.Operation {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		op, err := w.engine.Get(ctx, id)
		must(w.t, err)
		if ok(op) {
			return op
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("operation %s is not %s: %s in %q, %+v, %+v", id, what, op.Status, op.Phase, op.Progress, op.Error)
		}
	}
}

func queued(op api.Operation) bool { return op.Status == api.StatusPending && op.Phase == "queued" }

// full keeps every place of the line until the test lets go.
func (w *world) full() (leave func()) {
	w.options.Line = queue.New(1)
	w.restart()
	return w.options.Line.Hold("0-another").Leave
}

// What waits is seen to, with its place and what it waits for; then it goes,
// by what both hosts say at that time.
func TestWaitsForItsTurn(t *testing.T) {
	w := newWorld(t)
	leave := w.full()
	op := w.begin(api.MigrateRequest{})
	if !queued(op) || !op.Cancellable {
		t.Errorf("the answer says %s in %q, cancellable: %v", op.Status, op.Phase, op.Cancellable)
	}
	op = w.shows(op.ID, "in the line", func(op api.Operation) bool { return op.Progress.Queue != nil })
	if q := op.Progress.Queue; q.Direction != api.QueueOutgoing || q.Position != 1 || len(q.Operations) != 1 || !strings.Contains(op.Progress.Detail, "number 1") {
		t.Errorf("shown %+v, %q", q, op.Progress.Detail)
	}
	if len(w.mover.params) != 0 || len(w.peer.requests) != 0 {
		t.Error("something was done at the destination")
	}
	leave()
	w.result(w.ended(op.ID))
	if len(w.peer.asked) != 2 {
		t.Errorf("the destination was asked %d times; want again after the wait", len(w.peer.asked))
	}
	if w.options.Line.Enter("0-next").Inside() != true {
		t.Error("it has not left its place")
	}
}

// A plan that is refused does not wait to be.
func TestRefusedBeforeTheLine(t *testing.T) {
	w := newWorld(t)
	defer w.full()()
	w.instance.Domain.Snapshots = 1
	_, err := w.Migrate(t.Context(), vm, api.MigrateRequest{Destination: "https://b:8470"}, api.Idempotency{})
	if api.CodeOf(err) != "refused" {
		t.Errorf("error %v; want it refused", err)
	}
}

func TestCancelInTheLine(t *testing.T) {
	w := newWorld(t)
	leave := w.full()
	op := w.begin(api.MigrateRequest{})
	_, err := w.engine.Cancel(t.Context(), op.ID)
	must(t, err)
	if got := w.ended(op.ID); got.Status != api.StatusCancelled {
		t.Errorf("ended as %s: %+v", got.Status, got.Error)
	}
	if w.options.Line.Waiting() != 0 {
		t.Error("it has left a place in the line")
	}
	leave()
	w.succeeds(api.MigrateRequest{}) // nothing is held
}

func TestTimeoutInTheLine(t *testing.T) {
	w := newWorld(t)
	defer w.full()()
	op := w.migrated(api.MigrateRequest{Timeout: api.Duration(50 * time.Millisecond)})
	if op.Status != api.StatusFailed || op.Error.Code != "timeout" {
		t.Errorf("ended as %s: %+v", op.Status, op.Error)
	}
}

// A restart of the agent loses nobody's place.
func TestRestartInTheLine(t *testing.T) {
	w := newWorld(t)
	w.full()
	op := w.begin(api.MigrateRequest{})
	w.options.Line = queue.New(1)
	leave := w.options.Line.Hold("0-another").Leave
	w.restart()
	must(t, w.engine.Resume(t.Context()))
	op = w.shows(op.ID, "in the line again", func(op api.Operation) bool { return queued(op) && op.Progress.Queue != nil && op.Cancellable })
	leave()
	w.result(w.ended(op.ID))
}

// An agent that has just been started may find its turn before its libvirt.
func TestRestartInTheLineBeforeLibvirtAnswers(t *testing.T) {
	w := newWorld(t)
	w.full()
	op := w.begin(api.MigrateRequest{})
	w.options.Line = nil
	down := func(is bool) {
		w.libvirt.mu.Lock()
		defer w.libvirt.mu.Unlock()
		w.libvirt.down = is
	}
	look := w.inspector.look
	w.inspector.look = func() (inspect.Instance, error) {
		if _, err := w.libvirt.Domain(t.Context(), "vm"); err != nil {
			return inspect.Instance{}, err
		}
		return look()
	}
	down(true)
	w.restart()
	must(t, w.engine.Resume(t.Context()))
	w.shows(op.ID, "its turn", func(op api.Operation) bool { return op.Status == api.StatusRunning && op.Cancellable })
	down(false)
	w.result(w.ended(op.ID))
}

// One that waits can be given up after a restart too.
func TestCancelInTheLineAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.full()
	op := w.begin(api.MigrateRequest{})
	w.options.Line = queue.New(1)
	w.options.Line.Hold("0-another")
	w.restart()
	must(t, w.engine.Resume(t.Context()))
	w.shows(op.ID, "in the line again", func(op api.Operation) bool { return queued(op) && op.Cancellable })
	_, err := w.engine.Cancel(t.Context(), op.ID)
	must(t, err)
	if got := w.ended(op.ID); got.Status != api.StatusCancelled {
		t.Errorf("ended as %s: %+v", got.Status, got.Error)
	}
}

// What was at work when the agent was lost has its place before any other.
func TestRestartAtWork(t *testing.T) {
	w := newWorld(t)
	w.options.Line = queue.New(1)
	w.restart()
	w.moving(api.MigrateRequest{}) // restarts
	line := queue.New(1)
	w.options.Line = line
	w.restart()
	other := line.Enter("0-before-it-by-number")
	if other.Inside() {
		t.Error("another took the place of one that is at work")
	}
	w.here(true, "")
	must(t, w.engine.Resume(t.Context()))
	if err := other.Wait(t.Context(), func(queue.View) {}); err != nil {
		t.Error(err)
	}
}

// busy is the answer of a destination that receives as much as it can.
func busy() error {
	return api.NewProblem("busy", "two instances are arriving").WithReasons([]api.Reason{{Code: api.IncomingFull, Detail: "two instances are arriving"}}).
		WithQueue(api.QueuePlace{Position: 2, Ahead: []string{"x"}, Operations: []string{"y", "z"}})
}

// A destination that is full is waited for, and seen to be.
func TestWaitsForTheDestination(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	asked := 0
	w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) {
		mu.Lock()
		defer mu.Unlock()
		switch asked++; asked {
		case 1:
			return in, busy()
		case 2:
			return in, api.NewProblem("peer-unreachable", "for a moment")
		}
		return in, nil
	}
	op := w.begin(onTarget())
	op = w.shows(op.ID, "waiting for the destination", func(op api.Operation) bool { return queued(op) && op.Progress.Queue != nil })
	if q := op.Progress.Queue; q.Direction != api.QueueIncoming || q.Position != 2 || len(q.Ahead) != 1 || len(q.Operations) != 2 || !op.Cancellable || !strings.Contains(op.Progress.Detail, "https://b:8470: two instances are arriving") {
		t.Errorf("shown %+v, %q, cancellable: %v", q, op.Progress.Detail, op.Cancellable)
	}
	w.result(w.ended(op.ID))
}

func TestCancelWhileTheDestinationIsFull(t *testing.T) {
	w := newWorld(t)
	w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) { return in, busy() }
	op := w.begin(onTarget())
	w.shows(op.ID, "waiting for the destination", queued)
	_, err := w.engine.Cancel(t.Context(), op.ID)
	must(t, err)
	w.failed(w.ended(op.ID), api.StatusCancelled, "cancelled", "prepare")
}

// "busy" for another reason is an answer.
func TestBusyForAnotherReason(t *testing.T) {
	w := newWorld(t)
	w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) {
		return in, api.NewProblem("busy", "the destination is already receiving it")
	}
	w.fails(api.MigrateRequest{}, api.StatusFailed, "busy", "prepare")
}

// What was connected for a place at the destination is taken back by an agent
// that returns, and the migration begins anew.
func TestRestartWhileTheDestinationIsFull(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	room := false
	w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) {
		mu.Lock()
		defer mu.Unlock()
		if !room {
			return in, busy()
		}
		return in, nil
	}
	op := w.begin(onTarget())
	w.shows(op.ID, "waiting for the destination", queued)
	w.restart()
	mu.Lock()
	room = true
	mu.Unlock()
	moved := w.mover.migrate
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		if n, c := w.peer.left(); n != 1 || c != 1 {
			t.Errorf("the destination holds %d reservations and %d targets; want one of each", n, c)
		}
		return moved(ctx, p)
	}
	w.result(w.resume(op.ID))
	if len(w.peer.asked) != 2 {
		t.Errorf("the destination was asked %d times; want anew", len(w.peer.asked))
	}
}

// An agent that returns keeps the place in the destination's line: to take back
// a reservation that is not there would give it up.
func TestRestartKeepsThePlaceAtTheDestination(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	room := false
	w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) {
		mu.Lock()
		defer mu.Unlock()
		if room {
			return in, nil
		}
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		delete(w.peer.reserved, in.ID)
		return in, busy()
	}
	op := w.begin(api.MigrateRequest{})
	w.shows(op.ID, "waiting for the destination", queued)
	w.restart()
	mu.Lock()
	room = true
	mu.Unlock()
	w.result(w.resume(op.ID))
	if w.peer.removed != 0 {
		t.Errorf("the destination was told %d times that it is not wanted any more", w.peer.removed)
	}
}
