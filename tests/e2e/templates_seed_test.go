//go:build lab

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// A template whose URL cannot work, by its scheme or its host: it fails, says
// why, and is tried again after one minute, two, four, five, five. Tests do not
// wait for minutes: the agent tells when it will try again, and one with
// shorter waits is watched while it does.
func TestTemplateWithAnInvalidURL(t *testing.T) {
	w := begin(t)
	cases := []struct{ what, id, url, code, class, says string }{
		{"scheme", w.unique("scheme"), "httpsinvalid://images.example/parrot.qcow2", "scheme", "policy", "httpsinvalid"},
		{"host", w.unique("host"), "https://images.example.invalid/parrot.raw", "unresolvable", "source", "images.example.invalid"},
	}
	for _, c := range cases {
		w.step("invalid "+c.what, func(w *world) {
			var op api.Operation
			var failed api.TemplateCopy
			w.step("1 create a template from an invalid URL", func(w *world) {
				op = w.registered(w.a, api.TemplateRequest{ID: c.id, URL: c.url})
			})
			w.step("2 the download fails and is cleaned up at once", func(w *world) {
				failed = w.untilCopy(w.a, c.id, "to fail", isFailed)
				if left := w.files(w.a); len(left) != 0 {
					w.Errorf("left in the pool: %q", left)
				}
				if left := w.hidden(w.a, harness.ImagesPath); len(left) != 0 {
					w.Errorf("left in the pool: %q", left)
				}
				op = w.wait(w.a, op.ID)
				if op.Status != api.StatusFailed || op.Error == nil || !strings.Contains(op.Error.Detail, c.says) {
					w.Errorf("operation %s, %s; want it failed for %q", op.Status, describe(op.Error), c.says)
				}
			})
			w.step("3 the only entry is failed and says why", func(w *world) {
				w.blamed(failed, c.code, c.class, c.says)
				if now := w.copyOf(w.a, c.id); now.State != api.CopyFailed {
					w.Errorf("copy %+v; want it failed still", now)
				}
			})
			w.step("4 it is tried again after a minute", func(w *world) {
				waits(w, failed, 1, time.Minute)
			})
		})
	}
	before := w.copyOf(w.a, cases[0].id)
	w.agentWith(w.a, quick...)
	w.step("4 a restart changes neither the number of attempts nor the time of the next", func(w *world) {
		after := w.copyOf(w.a, cases[0].id)
		if after.Attempts != before.Attempts || after.RetryAt == nil || !after.RetryAt.Equal(*before.RetryAt) || after.Message != before.Message {
			w.Errorf("after a restart %+v; want %+v", after, before)
		}
	})
	seen := map[string][]api.TemplateCopy{}
	w.step("4 three cycles in a row, each after the wait that was told", func(w *world) {
		for _, c := range cases {
			op, err := w.a.api.RetryTemplate(w.ctx, c.id, "")
			w.must(err)
			w.wait(w.a, op.ID)
		}
		for n := 1; n <= 4; n++ {
			for _, c := range cases {
				copied := w.untilCopy(w.a, c.id, fmt.Sprintf("to have failed %d times", n), func(found api.TemplateCopy) bool {
					return isFailed(found) && found.Attempts >= n
				})
				waits(w, copied, n, []time.Duration{time.Second, 2 * time.Second}[min(n-1, 1)])
				w.blamed(copied, c.code, c.class, c.says)
				if before := seen[c.id]; len(before) > 0 && copied.UpdatedAt.Before(*before[len(before)-1].RetryAt) {
					w.Errorf("attempt %d failed at %s; it was to begin at %s", n, copied.UpdatedAt, before[len(before)-1].RetryAt)
				}
				seen[c.id] = append(seen[c.id], copied)
			}
		}
	})
	w.step("4 never more than five minutes apart", func(w *world) {
		w.must(w.a.Agent(w.ctx, "restart"))
		for _, c := range cases {
			last := seen[c.id][len(seen[c.id])-1]
			copied := w.untilCopy(w.a, c.id, "to have failed as it does by default", func(found api.TemplateCopy) bool {
				return isFailed(found) && found.RetryAt != nil && found.RetryAt.Sub(found.UpdatedAt) > time.Minute
			})
			waits(w, copied, copied.Attempts, 5*time.Minute)
			if copied.Attempts <= last.Attempts || !copied.FailedSince.Equal(*last.FailedSince) {
				w.Errorf("%+v after %+v; want one row of failures", copied, last)
			}
		}
	})
}

// waits wants a copy to have failed so often, and to be tried again so long
// after its failure.
func waits(w *world, c api.TemplateCopy, attempts int, wait time.Duration) {
	w.Helper()
	if c.Attempts != attempts || c.RetryAt == nil {
		w.Errorf("copy %+v; want %d attempts and a next one", c, attempts)
		return
	}
	if got := c.RetryAt.Sub(c.UpdatedAt); got < wait-100*time.Millisecond || got > wait+100*time.Millisecond {
		w.Errorf("after attempt %d it waits %s; want %s", attempts, got, wait)
	}
}

// A host whose copy was removed, and whose folder was made immutable, cannot
// bring it back. It says why, tries again and again, and has it once the folder
// is mutable; the instance on it is degraded meanwhile, and never stops.
func TestTemplateSyncFailure(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	folder := w.pool(w.a, "work", "ext4", 256*mib)
	w.cleanup("making the folder mutable", func(ctx context.Context) error { return w.a.Immutable(ctx, folder, false) })
	id, name := w.unique("tpl"), w.unique("vm")
	image := w.picture("sync", w.Name())
	var path string
	w.step("1 create a template and an instance on it", func(w *world) {
		o := w.origin(w.a, "127.0.0.1")
		r := api.TemplateRequest{ID: id, URL: o.URL("plain", w.sourced(o, image)), Checksum: w.checksum(image), Pool: "work", Format: "qcow2"}
		w.run(w.a, w.registered(w.a, r), nil)
		w.template(w.b, id, image, false)
		// From now on only the other host has the image.
		w.must(o.Stop())
		path = w.readied(w.a, id, image).Path
		w.create(w.a, name, id, "linked")
		if reasons := w.health(w.a, name, "ok"); len(reasons) != 0 {
			w.Errorf("reasons %q of an instance that is well", reasons)
		}
	})
	// recovers is what follows once the folder is mutable.
	recovers := func(w *world) {
		w.must(w.a.Immutable(w.ctx, folder, false))
		c := w.readied(w.a, id, image)
		if c.Path != path || !strings.Contains(c.Origin, w.b.Hostname()) {
			w.Errorf("copy %+v; want it at %s again, from host b", c, path)
		}
		if left := w.hidden(w.a, folder); len(left) != 0 {
			w.Errorf("left in the folder: %q", left)
		}
		w.health(w.a, name, "ok")
		w.rebooted(w.a, name)
	}
	told := w.told(w.a, id)
	w.step("2 option 1: remove the file, make the folder immutable", func(w *world) {
		before := w.sentBytes(w.b)
		w.exec(w.a, "sh", "-c", `rm -f "$0" && chattr +i "$1"`, path, folder)
		failed := w.untilCopy(w.a, id, "to fail", isFailed)
		w.blamed(failed, "read-only", "local", "immutable", folder)
		reasons := w.health(w.a, name, "degraded")
		if !slices.ContainsFunc(reasons, func(r string) bool { return strings.Contains(r, id) }) {
			w.Errorf("reasons %q; want one that names template %q", reasons, id)
		}
		w.alive(name, w.a)
		for _, metric := range []string{
			fmt.Sprintf("wherry_template_copy_state{pool=%q,state=%q,template=%q}", "work", "failed", id),
			fmt.Sprintf("wherry_template_refs{pool=%q,template=%q}", "work", id),
			fmt.Sprintf("wherry_template_failures_total{class=%q,code=%q}", "local", "read-only"),
		} {
			w.must(harness.Until(w.ctx, metric, func(ctx context.Context) error { return w.counted(ctx, w.a, metric, 1) }))
		}
		w.step("3 the backoff works for the sync", func(w *world) { w.backsOff(w.a, id, 3) })
		if sent := w.sentBytes(w.b) - before; sent > mib {
			w.Errorf("host b has sent %d bytes to a folder that takes none", sent)
		}
	})
	w.step("4 make it mutable: the copy is ready and the instance healthy by themselves", recovers)
	w.step("2 option 2: make the folder immutable in mid-transfer", func(w *world) {
		w.rate(w.b, "16mbit")
		w.exec(w.a, "rm", "-f", path)
		w.must(harness.Until(w.ctx, "the partial file", func(ctx context.Context) error {
			_, err := w.a.Exec(ctx, "sh", "-c", `test -s "$0"/.wherry-template-*/image`, folder)
			return err
		}))
		w.must(w.a.Immutable(w.ctx, folder, true))
		if c := w.copyOf(w.a, id); c.State != api.CopySyncing || c.BytesDone == 0 || c.BytesTotal < 8*mib || !strings.Contains(c.Origin, w.b.Hostname()) {
			w.Errorf("copy %+v; want it in the middle of a sync from host b", c)
		}
		failed := w.untilCopy(w.a, id, "to fail", func(c api.TemplateCopy) bool {
			if isReady(c) {
				w.Errorf("copy %+v; want it never ready while its folder is immutable", c)
			}
			return isFailed(c)
		})
		w.blamed(failed, "read-only", "local", "immutable", folder)
		w.health(w.a, name, "degraded")
		w.must(w.b.Rate(w.ctx, "off"))
		w.step("3 the backoff works for the sync", func(w *world) { w.backsOff(w.a, id, 1) })
	})
	w.step("4 after mid-transfer, too", recovers)
	states := told()
	for _, want := range []string{"missing changed", "failed read-only", "syncing", "ready"} {
		if !slices.Contains(states, want) {
			t.Errorf("events told of %q; want %q among them", states, want)
		}
	}
}

// told follows what events say of a template's copies from now on, each as its
// state and code; what it returns ends that and gives them.
func (w *world) told(on *side, id string) func() []string {
	w.Helper()
	ctx, stop := context.WithCancel(w.ctx)
	var states []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// It ends with its context: what it has not told is missed below.
		_ = on.api.Events(ctx, 0, func(e api.Event) error {
			if c := e.Template; c != nil && c.ID == id {
				states = append(states, strings.TrimSpace(c.State+" "+c.Code))
			}
			return nil
		})
	}()
	return func() []string {
		stop()
		<-ended
		return states
	}
}

// backsOff wants so many more failures, each after the wait that was told.
func (w *world) backsOff(on *side, id string, times int) {
	w.Helper()
	last := w.untilCopy(on, id, "to have failed", isFailed)
	for range times {
		next := w.untilCopy(on, id, fmt.Sprintf("to fail after attempt %d", last.Attempts), func(c api.TemplateCopy) bool {
			return isFailed(c) && c.Attempts > last.Attempts
		})
		waits(w, next, last.Attempts+1, 2*time.Second)
		if next.UpdatedAt.Before(*last.RetryAt) {
			w.Errorf("attempt %d failed at %s; it was to begin at %s", next.Attempts, next.UpdatedAt, last.RetryAt)
		}
		last = next
	}
}

// rebooted stops an instance and starts it again, so that its guest reads the
// template's file as it is now, and wants every byte in its place.
func (w *world) rebooted(on *side, name string) {
	w.Helper()
	op, err := on.api.Stop(w.ctx, api.Ref{Name: name}, api.StopRequest{}, "")
	w.run(on, op, err)
	op, err = on.api.Start(w.ctx, api.Ref{Name: name}, "")
	w.run(on, op, err)
	guest := w.lab.Guest(name)
	w.must(guest.WaitMore(w.ctx, on.Host, "vda", 1))
	reports, err := guest.Verify(w.ctx, on.Host)
	w.must(err)
	if len(reports) == 0 || reports[0].Template == 0 {
		w.Errorf("guest reports %+v; want the template's blocks", reports)
	}
}
