//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// several boots so many instances.
func (w *world) several(on *side, n int, data int64) []string {
	w.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = w.unique(fmt.Sprintf("%s%d", on.Name, i))
		w.heavy(on, names[i], data)
	}
	return names
}

func inLine(op api.Operation) bool {
	return op.Status == api.StatusPending && op.Phase == "queued" && op.Progress.Queue != nil
}

// One leaves at a time. The others are seen to wait, in their order, over a
// kill of the agent too; one that is cancelled is gone at once.
func TestOneLeavesAtATime(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, "WHERRY_MIGRATION_MAX_OUTGOING=1")
	names := w.several(w.a, 3, 16*mib)
	w.rate(w.a, slow)
	var ids []string
	for _, name := range names {
		ids = append(ids, w.begun(w.a, name, api.MigrateRequest{}))
	}
	w.copying(w.a, ids[0])
	for i, id := range ids[1:] {
		op := w.seenOp(w.a, id, "in the line", inLine)
		if q := op.Progress.Queue; q.Direction != "outgoing" || q.Position != i+1 || len(q.Operations) != 1 || q.Operations[0] != ids[0] {
			t.Errorf("operation %d waits as %+v; want place %d behind %s", i+1, q, i+1, ids[0])
		}
	}
	if n := w.scraped(w.a)[`wherry_migrations_queued{direction="outgoing"}`]; n != 2 {
		t.Errorf("the metrics count %v in the line; want 2", n)
	}
	if _, err := w.a.api.Cancel(w.ctx, ids[1]); err != nil {
		t.Errorf("cancelling: %v", err)
	}
	if op := w.wait(w.a, ids[1]); op.Status != api.StatusCancelled {
		t.Errorf("cancelled in the line, it ended as %s: %s", op.Status, describe(op.Error))
	}
	w.must(w.a.Agent(w.ctx, "kill"))
	w.must(w.a.Agent(w.ctx, "start", "WHERRY_MIGRATION_MAX_OUTGOING=1"))
	op := w.seenOp(w.a, ids[2], "in the line again", inLine)
	if q := op.Progress.Queue; q.Position != 1 {
		t.Errorf("after the kill it waits as %+v; want it next", q)
	}
	w.must(w.a.Rate(w.ctx, "off"))
	w.moved(names[0], w.a, ids[0])
	w.moved(names[2], w.a, ids[2])
	w.stayed(names[1], w.a, ids[1])
}

// A destination that is full is waited for, not failed at.
func TestFullDestinationIsWaitedFor(t *testing.T) {
	w := begin(t)
	w.agentWith(w.b, "WHERRY_MIGRATION_MAX_INCOMING=1")
	names := w.several(w.a, 2, 16*mib)
	w.rate(w.a, slow)
	first := w.begun(w.a, names[0], api.MigrateRequest{})
	w.copying(w.a, first)
	second := w.begun(w.a, names[1], api.MigrateRequest{})
	op := w.seenOp(w.a, second, "waiting for the destination", inLine)
	if q := op.Progress.Queue; q.Direction != "incoming" || !op.Cancellable {
		t.Errorf("it waits as %+v, cancellable: %v", q, op.Cancellable)
	}
	w.must(w.a.Rate(w.ctx, "off"))
	w.moved(names[0], w.a, first)
	w.moved(names[1], w.a, second)
}

// Two hosts that fill each other do not keep each other for ever.
func TestTwoHostsThatFillEachOther(t *testing.T) {
	w := begin(t)
	names := map[*side][]string{}
	ids := map[*side][]string{}
	for _, s := range w.sides() {
		w.agentWith(s, "WHERRY_MIGRATION_MAX_OUTGOING=1", "WHERRY_MIGRATION_MAX_INCOMING=1")
		names[s] = w.several(s, 2, mib)
	}
	for i := range 2 {
		for _, s := range w.sides() {
			ids[s] = append(ids[s], w.begun(s, names[s][i], api.MigrateRequest{}))
		}
	}
	for _, s := range w.sides() {
		for i, id := range ids[s] {
			w.moved(names[s][i], s, id)
		}
	}
}

// resetBandwidth undoes a bandwidth that was set: it would outlive a test.
func (w *world) resetBandwidth(ctx context.Context) error {
	_, err := w.a.api.ResetBandwidth(ctx)
	return err
}

// What all migrations may send together holds for the copies under way, and is
// changed while they are.
func TestBandwidthOfTheHostIsShared(t *testing.T) {
	w := begin(t)
	// So little that no copy is over before all was seen.
	const whole, set = mib, mib / 4
	configured := fmt.Sprintf("WHERRY_MIGRATION_HOST_BANDWIDTH=%d", whole)
	w.agentWith(w.a, configured)
	w.cleanup("resetting the bandwidth", w.resetBandwidth)
	names := w.several(w.a, 2, 16*mib)
	speed := func(name string, want int64) {
		t.Helper()
		w.must(harness.Until(w.ctx, fmt.Sprintf("the copy of %s to be limited to %d", name, want), func(ctx context.Context) error {
			reply, err := w.a.Exec(ctx, "virsh", "qemu-monitor-command", name, `{"execute":"query-block-jobs"}`)
			if err != nil {
				return err
			}
			var jobs struct {
				Return []struct{ Speed int64 }
			}
			if err := json.Unmarshal([]byte(reply), &jobs); err != nil {
				return err
			}
			if len(jobs.Return) != 1 || jobs.Return[0].Speed != want {
				return fmt.Errorf("jobs %+v", jobs.Return)
			}
			return nil
		}))
	}
	first := w.begun(w.a, names[0], api.MigrateRequest{})
	speed(names[0], whole)
	second := w.begun(w.a, names[1], api.MigrateRequest{})
	speed(names[1], whole/2)
	speed(names[0], whole/2)
	b, err := w.a.api.SetBandwidth(w.ctx, set)
	w.must(err)
	if len(b.Shares) != 2 || b.Shares[0].Bandwidth != set/2 || b.Shares[1].Bandwidth != set/2 {
		t.Errorf("shares %+v; want two halves", b)
	}
	speed(names[0], set/2)
	// It is whole after a kill, for what runs and for whoever asks.
	w.must(w.a.Agent(w.ctx, "kill"))
	w.must(w.a.Agent(w.ctx, "start", configured))
	kept, err := w.a.api.Bandwidth(w.ctx)
	w.must(err)
	if kept.Bandwidth != set || kept.Source != api.BandwidthSet || kept.SetBy != b.SetBy || kept.SetAt == nil || kept.Configured != whole {
		t.Errorf("after a kill: %+v", kept)
	}
	speed(names[1], set/2)
	back, err := w.a.api.ResetBandwidth(w.ctx)
	w.must(err)
	if back.Bandwidth != whole || back.Source != api.BandwidthConfigured {
		t.Errorf("reset to %+v", back)
	}
	speed(names[0], whole/2)
	// What another host fetches takes part, for as long as it does.
	template := w.unique("tpl")
	image := w.noise("shared.raw", 8*mib)
	w.held(w.a, api.TemplateRequest{ID: template, Format: "raw"}, image)
	fetched := w.registered(w.b, api.TemplateRequest{ID: template, Format: "raw", URL: nowhere, Checksum: w.checksum(image), SyncFrom: w.a.URL()})
	speed(names[0], whole/3)
	if b, err := w.a.api.Bandwidth(w.ctx); err != nil || len(b.Shares) != 3 || b.Shares[2].Content == "" {
		t.Errorf("shares %+v (%v); want one of a content", b, err)
	}
	if _, err := w.a.api.SetBandwidth(w.ctx, 0); err != nil {
		t.Error(err)
	}
	w.run(w.b, fetched, nil)
	w.moved(names[0], w.a, first)
	w.moved(names[1], w.a, second)
}
