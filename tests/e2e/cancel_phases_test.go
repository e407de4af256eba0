//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// prompt is how long a cancel, and the end of what it cancels, may take while the
// other host answers.
const prompt = 5 * time.Second

// held is a proxy before the destination that keeps the answers to chosen requests
// to itself, so that short phases last.
type held struct {
	url  string
	want atomic.Pointer[string] // "METHOD SUFFIX" of the requests that are kept; nil = none
	kept atomic.Int64
}

func (w *world) holding(on *side) *held {
	w.Helper()
	h := &held{}
	h.url = w.proxy(on, func(_ http.ResponseWriter, r *http.Request) bool {
		want := h.want.Load()
		if want == nil {
			return false
		}
		method, suffix, _ := strings.Cut(*want, " ")
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not noticed
		h.kept.Add(1)
		<-r.Context().Done()
		return true
	})
	return h
}

// asking asks for a migration whose answer may not come before its plan is made,
// and gives its operation.
func (w *world) asking(from *side, name string, r api.MigrateRequest) (id string) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	w.Cleanup(func() { cancel(); <-done })
	go func() { defer close(done); _, _ = from.api.Migrate(ctx, ref(name), r, "") }()
	w.must(harness.Until(w.ctx, "a migration to be known", func(ctx context.Context) error {
		ops, err := from.api.Operations(ctx, client.OperationFilter{Instance: name})
		for _, op := range ops {
			if op.Kind == "migrate" && !op.Ended() {
				id = op.ID
				return nil
			}
		}
		return errors.Join(err, errors.New("none is under way"))
	}))
	return id
}

// cancelledIn cancels an operation twice in that phase, and wants both calls to
// be answered, and the operation to have ended, within that time.
func (w *world) cancelledIn(phase string, on *side, id string, within time.Duration) api.Operation {
	w.Helper()
	if op, err := on.api.Operation(w.ctx, id); err != nil || op.Phase != phase || !op.Cancellable {
		w.Errorf("before the cancel: phase %q, cancellable %t, %v; want %q", op.Phase, op.Cancellable, err, phase)
	}
	start := time.Now()
	calls, stop := context.WithTimeout(w.ctx, prompt)
	defer stop()
	for range 2 {
		if _, err := on.api.Cancel(calls, id); err != nil {
			w.Fatalf("cancelling in phase %q: %v", phase, err)
		}
	}
	ctx, stop := context.WithTimeout(w.ctx, within)
	defer stop()
	op, err := on.api.WaitOperation(ctx, id, nil)
	if err != nil || op.Status != api.StatusCancelled || op.Error == nil || op.Error.Code != "cancelled" {
		w.Fatalf("cancelled in phase %q, it is %s (%s), %v; want it cancelled within %s", phase, op.Status, describe(op.Error), err, within)
	}
	w.Logf("cancelled in phase %q, it ended after %s", phase, time.Since(start).Round(10*time.Millisecond))
	if _, err := on.api.Cancel(w.ctx, id); err != nil {
		w.Errorf("cancelling what is cancelled: %v", err)
	}
	return op
}

// moment is where a migration is cancelled.
type moment struct {
	phase, what string
	request     func() api.MigrateRequest
	// holds the answer to such a request: by then the phase is reached.
	holds string
	// reached is another sign of it.
	reached func(id string)
}

// A migration is cancelled in each of its phases, the last word before the
// instance moves and the copying of disks and memory among them. Each time it ends
// within seconds, and both hosts hold what they held before, and nothing else.
// Deciding is no phase that could be aimed at: it asks nobody.
func TestCancelInEveryPhase(t *testing.T) {
	w := begin(t)
	w.atMost(2 * testTime)
	name, id := w.unique("vm"), w.unique("tpl")
	picture := w.picture("every", w.Name())
	w.template(w.a, id, picture, false)
	w.create(w.a, name, id, "linked")
	target, _, _ := w.unit(w.b, 1, 2*imageSize)
	w.locked(w.b, 2, "unit1.raw")
	target.IQN, target.CHAP = lockedIQN, &api.CHAP{User: lockedBy, Secret: lockedKey}
	h := w.holding(w.b)
	plain := func() api.MigrateRequest { return api.MigrateRequest{Destination: h.url} }
	onUnit := func() api.MigrateRequest {
		login := target
		return api.MigrateRequest{Destination: h.url, Disks: []api.DiskRequest{{Target: "vda", Connect: &login}}}
	}
	moments := []moment{
		{"offer", "the destination is asked what it has", plain, "POST /v1/incoming/facts", nil},
		{"connect", "a target is connected", onUnit, "POST /v1/targets", nil},
		{"prepare", "a target is connected, and room is asked for", onUnit, "POST /v1/incoming", nil},
		{"prepare", "a template is being staged", func() api.MigrateRequest {
			return api.MigrateRequest{Destination: h.url, Mode: api.ModeLinked, StageTemplates: true}
		}, "", func(string) {
			w.untilCopy(w.b, id, "to arrive", func(c api.TemplateCopy) bool { return c.State == api.CopySyncing })
		}},
		{"perform", "all is ready at the destination", onUnit, "POST /renew", nil},
		{"perform", "disks move", plain, "", func(id string) { w.copying(w.a, id) }},
		{"perform", "memory moves", plain, "", func(id string) { w.seenOp(w.a, id, "moving memory", movesMemory) }},
	}
	w.rate(w.a, "10mbit")
	before := map[*side]string{w.a: w.holdings(w.a), w.b: w.holdings(w.b)}
	for _, m := range moments {
		w.step(fmt.Sprintf("%s: %s", m.phase, m.what), func(w *world) { w.cancelledAt(m, h, name, before) })
	}
	w.must(w.a.Rate(w.ctx, "off"))

	w.template(w.b, id, picture, false)
	before[w.b] = w.holdings(w.b)
	w.step("prepare: a volume is seeded", func(w *world) {
		w.cancelledAt(moment{"prepare", "", func() api.MigrateRequest {
			return api.MigrateRequest{Destination: h.url, Mode: api.ModeFull}
		}, "POST /renew", nil}, h, name, before)
	})
	w.step("inspect: its QEMU hangs", func(w *world) {
		w.signalQEMU(w.a, name, "-STOP")
		id := w.asking(w.a, name, plain())
		w.seenOp(w.a, id, "inspecting", func(op api.Operation) bool { return op.Phase == "inspect" })
		w.cancelledIn("inspect", w.a, id, prompt)
		w.signalQEMU(w.a, name, "-CONT")
		for s, held := range before {
			w.holdsAgain(s, held)
		}
	})
	w.alive(name, w.a)
}

// cancelledAt cancels a migration at that moment, and wants both hosts as they were.
func (w *world) cancelledAt(m moment, h *held, name string, before map[*side]string) {
	w.Helper()
	kept := h.kept.Load()
	if m.holds != "" {
		h.want.Store(&m.holds)
		defer h.want.Store(nil)
	}
	id := w.asking(w.a, name, m.request())
	if m.reached != nil {
		m.reached(id)
	} else {
		w.seenOp(w.a, id, "held", func(op api.Operation) bool { return h.kept.Load() > kept && op.Phase == m.phase })
	}
	// From here on the destination answers again: what was made is taken back.
	h.want.Store(nil)
	op := w.cancelledIn(m.phase, w.a, id, prompt)
	if op.Error.Phase != m.phase {
		w.Errorf("problem %s; want it in phase %q", describe(op.Error), m.phase)
	}
	w.unreserved(w.b, id)
	w.idle(w.a, name)
	for s, held := range before {
		w.holdsAgain(s, held)
	}
	w.must(w.lab.Guest(name).WaitMore(w.ctx, w.a.Host, "vda", 1))
}

// movesMemory tells that all disks are there and memory is on its way.
func movesMemory(op api.Operation) bool {
	p := op.Progress
	return op.Phase == "perform" && p.Memory != nil && p.Memory.BytesDone > 0 && p.Disks[0].BytesDone >= p.Disks[0].BytesTotal
}

// signalQEMU sends a signal to the process of an instance.
func (w *world) signalQEMU(on *side, name, signal string) {
	w.Helper()
	w.exec(on, "sh", "-c", `kill "$1" "$(cat "/run/libvirt/qemu/$0.pid")"`, name, signal)
}

// The destination does not answer any more when a migration is cancelled. The call
// is answered as fast as ever; the operation takes as long as it takes to be sure
// that nobody answers, and, where the disks are on their way over a link that is
// cut, as libvirt takes to let go of its peer. The guest writes on all the while,
// and the destination takes back by itself what it made.
func TestCancelWithNobodyAtTheDestination(t *testing.T) {
	w := begin(t)
	w.atMost(2 * testTime)
	name := w.unique("vm")
	w.agentWith(w.a, "WHERRY_MIGRATION_LEASE=10s")
	w.heavy(w.a, name, 8*mib)
	h := w.holding(w.b)
	before := w.holdings(w.a)
	over := func(w *world, id string) {
		w.takenBack(w.b, id)
		w.clean(name, w.b)
		w.idle(w.a, name)
		w.holdsAgain(w.a, before)
	}
	writes := func() { w.must(w.lab.Guest(name).WaitMore(w.ctx, w.a.Host, "vda", 5)) }
	copying := func(w *world) string {
		w.rate(w.a, "10mbit")
		id := w.begun(w.a, name, api.MigrateRequest{})
		w.copying(w.a, id)
		return id
	}
	w.step("its agent hangs while all is ready", func(w *world) {
		last := "POST /renew"
		h.want.Store(&last)
		id := w.asking(w.a, name, api.MigrateRequest{Destination: h.url})
		w.seenOp(w.a, id, "held", func(api.Operation) bool { return h.kept.Load() > 0 })
		// Held to the end: it answers no question from here on.
		w.cancelledIn("perform", w.a, id, 3*prompt)
		h.want.Store(nil)
		over(w, id)
	})
	w.step("its agent is stopped while disks move", func(w *world) {
		id := copying(w)
		agent := w.exec(w.b, "cat", "/run/lab-agent.pid")
		w.cleanup("letting the agent go on", func(ctx context.Context) error {
			_, err := w.b.Exec(ctx, "kill", "-CONT", agent)
			return err
		})
		w.exec(w.b, "kill", "-STOP", agent)
		w.cancelledIn("perform", w.a, id, 4*prompt)
		writes()
		w.exec(w.b, "kill", "-CONT", agent)
		over(w, id)
	})
	w.step("the link is cut while disks move", func(w *world) {
		id := copying(w)
		join := w.cut(w.a)
		w.cancelledIn("perform", w.a, id, keepAlive+2*prompt)
		writes()
		over(w, id)
		join()
	})
	w.alive(name, w.a)
}
