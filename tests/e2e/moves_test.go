//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

// slow is a link on which copying a loaded disk takes seconds.
const slow = "50mbit"

// loaded makes a qcow2 volume that stands alone and holds that much data, which
// the guest verifies, and gives its path on the host.
func (w *world) loaded(on *side, file string, data int64) string {
	w.Helper()
	raw := filepath.Join(w.TempDir(), file+".raw")
	w.must(image.Make(raw, "loaded", w.Name()[:min(32, len(w.Name()))], 2*imageSize, data))
	out := filepath.Join(on.Images(), file)
	if msg, err := exec.CommandContext(w.ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out).CombinedOutput(); err != nil {
		w.Fatalf("making a volume: %v: %s", err, msg)
	}
	return filepath.Join(harness.ImagesPath, file)
}

// heavy boots an instance that Wherry did not create, on a disk with that much
// data.
func (w *world) heavy(on *side, name string, data int64) {
	w.Helper()
	w.foreign(on, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{{Target: "vda", Source: w.loaded(on, name+".qcow2", data)}}})
}

// later is a deadline for what is put back after a test, however that ended.
func later() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

// cleanup runs a step after the test; its error fails the test.
func (w *world) cleanup(what string, fn func(context.Context) error) {
	w.Cleanup(func() {
		ctx, cancel := later()
		defer cancel()
		if err := fn(ctx); err != nil {
			w.Errorf("%s: %v", what, err)
		}
	})
}

// rate slows what a host sends until the test ends.
func (w *world) rate(on *side, rate string) {
	w.Helper()
	w.cleanup("lifting the limit", func(ctx context.Context) error { return on.Rate(ctx, "off") })
	w.must(on.Rate(w.ctx, rate))
}

// cut cuts a host off until the test ends, or joins it again before.
func (w *world) cut(on *side) (join func()) {
	w.Helper()
	w.cleanup("joining the link", func(ctx context.Context) error { return on.Link(ctx, true) })
	w.must(on.Link(w.ctx, false))
	return func() { w.Helper(); w.must(on.Link(w.ctx, true)) }
}

// agentWith restarts a host's agent with settings in its environment, until
// the test ends.
func (w *world) agentWith(on *side, environment ...string) {
	w.Helper()
	w.cleanup("restarting the agent as it was", func(ctx context.Context) error { return on.Agent(ctx, "restart") })
	w.must(on.Agent(w.ctx, "restart", environment...))
}

func ref(name string) api.Ref { return api.Ref{Project: api.DefaultProject, Name: name} }

// begun starts a migration and gives its operation's id.
func (w *world) begun(from *side, name string, r api.MigrateRequest) string {
	w.Helper()
	if r.Destination == "" {
		r.Destination = w.other(from).URL()
	}
	op, err := from.api.Migrate(w.ctx, ref(name), r, "")
	w.must(err)
	return op.ID
}

// seenOp waits until an operation looks as wanted.
func (w *world) seenOp(on *side, id, what string, ok func(api.Operation) bool) api.Operation {
	w.Helper()
	var op api.Operation
	w.must(harness.Until(w.ctx, "operation "+id+" to be "+what, func(ctx context.Context) error {
		var err error
		if op, err = on.api.Operation(ctx, id); err != nil {
			return err
		}
		if !ok(op) {
			if op.Ended() {
				w.Fatalf("operation %s ended as %s before it was %s: %s", id, op.Status, what, describe(op.Error))
			}
			return fmt.Errorf("phase %q, %s, %+v", op.Phase, op.Status, op.Progress)
		}
		return nil
	}))
	return op
}

// copying waits until bytes of the disks are on their way, with some to come.
func (w *world) copying(on *side, id string) api.Operation {
	w.Helper()
	return w.seenOp(on, id, "copying disks", func(op api.Operation) bool {
		if op.Phase != "perform" {
			return false
		}
		for _, d := range op.Progress.Disks {
			if d.BytesDone > 0 && d.BytesDone < d.BytesTotal {
				return true
			}
		}
		return false
	})
}

// failed waits for the end of a migration that must not succeed, and wants its
// problem to name the phase, the disk and the cause.
func (w *world) failed(on *side, id, code, phase, disk string, cause ...string) api.Operation {
	w.Helper()
	op := w.wait(on, id)
	if op.Status != api.StatusFailed || op.Error == nil {
		w.Fatalf("the operation ended as %s (%s); want it failed", op.Status, describe(op.Error))
	}
	if p := op.Error; p.Code != code || p.Phase != phase || p.Disk != disk || p.Hint == "" {
		w.Errorf("problem %s; want code %q in phase %q about disk %q, with a hint", describe(p), code, phase, disk)
	}
	for _, words := range cause {
		if !strings.Contains(op.Error.Detail, words) {
			w.Errorf("detail %q lacks the cause %q", op.Error.Detail, words)
		}
	}
	return op
}

// stayed wants the instance to run on where it was, unharmed, and the other
// host to hold nothing of the operation that failed.
func (w *world) stayed(name string, on *side, id string) {
	w.Helper()
	w.alive(name, on)
	w.clean(name, w.other(on))
	w.unreserved(w.other(on), id)
	w.idle(on, name)
}

// takenBack waits until the host has ended that operation's reservation, at the
// latest with its lease.
func (w *world) takenBack(on *side, id string) {
	w.Helper()
	w.must(harness.Until(w.ctx, "host "+on.Name+" to take back what it made", func(ctx context.Context) error {
		in, err := on.api.Incoming(ctx, id)
		switch {
		case err == nil:
			return fmt.Errorf("the reservation is still there, %s", in.State)
		case api.CodeOf(err) != "not-found":
			return err
		}
		return nil
	}))
}

// unreserved wants no reservation of that operation on the host.
func (w *world) unreserved(on *side, id string) {
	w.Helper()
	_, err := on.api.Incoming(w.ctx, id)
	w.problem(err, "not-found")
}

// idle wants no job and no copy left on a domain.
func (w *world) idle(on *side, name string) {
	w.Helper()
	if out := w.exec(on, "virsh", "domjobinfo", name); !strings.Contains(out, "None") {
		w.Errorf("a job is left on %q on host %s: %s", name, on.Name, out)
	}
	if out := w.exec(on, "virsh", "qemu-monitor-command", name, `{"execute":"query-block-jobs"}`); !strings.Contains(out, `"return":[]`) {
		w.Errorf("block jobs are left on %q on host %s: %s", name, on.Name, out)
	}
}

// moved wants a succeeded operation, the instance at the other host and
// nothing on this one.
func (w *world) moved(name string, from *side, id string) api.MigrateResult {
	w.Helper()
	op := w.run(from, api.Operation{ID: id}, nil)
	var result api.MigrateResult
	w.must(json.Unmarshal(op.Result, &result))
	w.alive(name, w.other(from))
	w.clean(name, from)
	return result
}
