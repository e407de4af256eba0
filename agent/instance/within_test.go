package instance_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// An operation that holds the instance brings it down and up again without
// asking for a lock that it has.
func TestDownAndUpWithinAnotherOperation(t *testing.T) {
	w := newWorld(t)
	w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9", Start: true}))
	uuid := w.domain().UUID
	spec := operation.Spec{Kind: "rebuild", Project: ref.Project, Instance: ref.Name}
	op := w.succeeded(w.engine.Start(t.Context(), spec, func(ctx context.Context, op *operation.Op) (any, error) {
		for range 2 { // the second finds in the journal what the first has done
			r, err := w.Down(ctx, op, uuid, api.StopRequest{OnTimeout: "force"})
			if err != nil || r.Rung != api.RungACPI {
				t.Errorf("down: %+v, %v", r, err)
			}
			if rec, _ := w.record(); rec.PowerState != "stopped" || w.domain().State != hypervisor.Shutoff {
				t.Errorf("record %q, state %s", rec.PowerState, w.domain().State)
			}
		}
		return nil, w.Up(ctx, ref)
	}))
	if rec, _ := w.record(); rec.PowerState != "running" || w.domain().State != hypervisor.Running {
		t.Errorf("record %q, state %s", rec.PowerState, w.domain().State)
	}
	w.owed(false)
	var steps []string
	for _, s := range op.Steps {
		steps = append(steps, s.Name)
	}
	if !slices.Equal(steps, []string{"stop", "clean"}) {
		t.Errorf("steps %q", steps)
	}
}

func TestDownThatFailsSaysSo(t *testing.T) {
	w := newWorld(t)
	w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9", Start: true}))
	w.libvirt.fail["down"] = errors.New("the ladder broke")
	spec := operation.Spec{Kind: "rebuild", Project: ref.Project, Instance: ref.Name}
	fails := w.failed(w.engine.Start(t.Context(), spec, func(ctx context.Context, op *operation.Op) (any, error) {
		_, err := w.Down(ctx, op, w.domain().UUID, api.StopRequest{})
		return nil, err
	}))
	if p := fails("internal"); p.Phase != "stop" {
		t.Errorf("phase %q", p.Phase)
	}
	if w.domain().State != hypervisor.Running {
		t.Errorf("state %s", w.domain().State)
	}
}

// What was begun with force may be gone on with without.
func TestDownAgainWithoutForce(t *testing.T) {
	w := newWorld(t)
	w.succeeded(w.create(api.CreateRequest{Name: "vm", Template: "rocky9", Start: true}))
	uuid := w.domain().UUID
	spec := operation.Spec{Kind: "rebuild", Project: ref.Project, Instance: ref.Name}
	w.succeeded(w.engine.Start(t.Context(), spec, func(ctx context.Context, op *operation.Op) (any, error) {
		w.libvirt.fail["down"] = errors.New("cancelled, say")
		if _, err := w.Down(ctx, op, uuid, api.StopRequest{Timeout: api.Duration(time.Minute), OnTimeout: "force"}); err == nil {
			t.Error("no error")
		}
		delete(w.libvirt.fail, "down")
		_, err := w.Down(ctx, op, uuid, api.StopRequest{OnTimeout: "fail"})
		return nil, err
	}))
	var forced []bool
	for _, o := range w.ladder.told {
		forced = append(forced, o.ForceAfter)
		if o.Timeout.Round(time.Minute) != time.Minute {
			t.Errorf("timeout %s", o.Timeout)
		}
	}
	if !slices.Equal(forced, []bool{true, false}) {
		t.Errorf("forced: %v; want the first", forced)
	}
}

func (w *world) domain() hypervisor.Domain {
	w.t.Helper()
	d, err := w.libvirt.Domain(w.t.Context(), ref.Name)
	must(w.t, err)
	return d
}
