package instance_test

import (
	"context"
	"testing"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// An instance that an operation has stopped to start it again is to run, where
// the host goes down in between: its next start sees to it.
func TestHostGoesDownBeforeAStartAgain(t *testing.T) {
	for name, begin := range map[string]func(w *world) (api.Operation, error){
		"a rebuild that is taken back": func(w *world) (api.Operation, error) {
			spec := operation.Spec{Kind: "rebuild", Project: ref.Project, Instance: ref.Name}
			return w.engine.Start(t.Context(), spec, func(ctx context.Context, op *operation.Op) (any, error) {
				if _, err := w.Down(ctx, op, uuid, api.StopRequest{OnTimeout: "force"}); err != nil {
					t.Errorf("down: %v", err)
				}
				return nil, w.Up(ctx, ref)
			})
		},
		"a restart": func(w *world) (api.Operation, error) {
			return w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
		},
		"a restart that the shutdown ends": func(w *world) (api.Operation, error) {
			w.ladder.down = func(ctx context.Context, _ power.Options) (power.Result, error) {
				_, err := w.engine.Cancel(ctx, w.engine.LockOf(ref).Operation)
				return power.Result{Rung: api.RungACPI}, err
			}
			return w.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{})
		},
	} {
		for _, managed := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				w.have(hypervisor.Running, managed)
				draining := api.NewProblem("not-ready", "this host is draining")
				w.options.Refuse = func() error { return draining }
				w.Options = w.options
				w.libvirt.fail["start"] = draining
				if op := w.ended(begin(w)); op.Status == api.StatusSucceeded {
					t.Errorf("operation %+v", op)
				}
				rec, ok := w.record()
				if d := w.domain(); ok != managed || managed && rec.PowerState != "running" || d.Active() {
					t.Errorf("record %v %+v, domain %+v; want it down, and to run", ok, rec, d)
				}
				w.owed(false)
			})
		}
	}
}
