//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// An agent that dies, or is told to stop, in the middle of a download takes it
// up where it was: the server is asked for the rest, if its content is still
// the same.
func TestTemplateDownloadResumedByTheNextAgent(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	for _, end := range []string{"kill", "stop"} {
		w.substep(end, func(w *world) {
			const size = 160 * mib
			image := w.noise(end+".raw", size)
			name, id := w.sourced(o, image), w.unique(end)
			w.cleanup("starting the agent", func(ctx context.Context) error { return w.a.Agent(ctx, "start") })
			op := w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", URL: o.URL("plain", name+"?rate=80m"), Checksum: w.checksum(image)})
			w.untilCopy(w.a, id, "to be beyond half", func(c api.TemplateCopy) bool { return c.BytesDone > size/2 })
			w.must(w.a.Agent(w.ctx, end))
			partial := w.exec(w.a, "sh", "-c", "stat -c %s "+harness.ImagesPath+"/.wherry-template-*/image")
			w.must(w.a.Agent(w.ctx, "start"))
			c := w.readied(w.a, id, image)
			if c.Attempts != 1 {
				w.Errorf("copy %+v; want it to be the same attempt", c)
			}
			asked := w.asked(o, name)
			if len(asked) != 2 {
				w.Fatalf("asked for %+v with %s bytes kept; want the whole and the rest", asked, partial)
			}
			var from int64
			rest := asked[1]
			if _, err := fmt.Sscanf(rest.Range, "bytes=%d-", &from); err != nil || from < size/4 || rest.Status != http.StatusPartialContent || rest.IfRange == "" || rest.Sent != size-from {
				w.Errorf("asked for %+v with %s bytes kept; want the rest alone", rest, partial)
			}
			if left := w.hidden(w.a, harness.ImagesPath); len(left) != 0 {
				w.Errorf("left in the pool: %q", left)
			}
			w.wait(w.a, op.ID)
			var peak int64
			if _, err := fmt.Sscan(w.exec(w.a, "sh", "-c", "sed -n 's/^VmHWM: *//p' /proc/$(cat /run/lab-agent.pid)/status"), &peak); err != nil || peak > 150<<10 {
				w.Errorf("the agent took %d KiB of memory at most (%v) for an image of %d MiB", peak, err, size/mib)
			}
		})
	}
}

// What another agent has begun is worth nothing once the server has other
// content: it is begun anew, and no byte of the old is in the copy.
func TestTemplateChangedWhileTheAgentWasAway(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	const size = 160 * mib
	before, after := w.noise("before.raw", size), w.noise("after.raw", size)
	name, id := w.sourced(o, before), w.unique("tpl")
	w.cleanup("starting the agent", func(ctx context.Context) error { return w.a.Agent(ctx, "start") })
	w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", URL: o.URL("plain", name+"?rate=80m"), Checksum: w.checksum(after)})
	w.untilCopy(w.a, id, "to be beyond half", func(c api.TemplateCopy) bool { return c.BytesDone > size/2 })
	w.must(w.a.Agent(w.ctx, "kill"))
	w.must(os.Rename(o.File(w.sourced(o, after)), o.File(name)))
	w.must(w.a.Agent(w.ctx, "start"))
	w.readied(w.a, id, after)
	asked := w.asked(o, name)
	if last := asked[len(asked)-1]; last.Status != http.StatusOK || last.Sent != size {
		t.Errorf("asked for %+v; want the whole of the new content", asked)
	}
}

// Ten restarts bring no download: what is ready stays ready.
func TestTemplateSurvivesRestarts(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	image := w.picture("restarts", w.Name())
	name, id := w.sourced(o, image), w.unique("tpl")
	w.run(w.a, w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("plain", name), Checksum: w.checksum(image)}), nil)
	before := w.readied(w.a, id, image)
	for range 10 {
		w.must(w.a.Agent(w.ctx, "restart"))
		if c := w.copyOf(w.a, id); c.State != api.CopyReady || c.Path != before.Path {
			t.Fatalf("copy %+v; want %+v", c, before)
		}
	}
	w.readied(w.a, id, image)
	if asked := w.asked(o, name); len(asked) != 1 {
		t.Errorf("asked for %+v; want one download", asked)
	}
}

// A network that is away for a moment costs nothing; one that is away for
// longer than the idle limit costs an attempt, and the copy comes by itself
// when it is back.
func TestTemplateDownloadOverABrokenNetwork(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	o := w.origin(w.b, "10.77.0.2")
	w.substep("for a moment", func(w *world) {
		image := w.noise("moment.raw", 24*mib)
		name, id := w.sourced(o, image), w.unique("tpl")
		w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", URL: o.URL("plain", name+"?rate=12m"), Checksum: w.checksum(image)})
		c := w.untilCopy(w.a, id, "to progress", func(c api.TemplateCopy) bool { return c.BytesDone > mib })
		join := w.cut(w.a)
		// The link is away for as long as it takes to see that nothing comes.
		last := c.BytesDone
		w.untilCopy(w.a, id, "to stand still", func(c api.TemplateCopy) bool {
			still := c.BytesDone == last
			last = c.BytesDone
			return still
		})
		join()
		w.readied(w.a, id, image)
	})
	w.substep("for longer than the idle limit", func(w *world) {
		image := w.noise("longer.raw", mib)
		name, id := w.sourced(o, image), w.unique("tpl")
		w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", URL: o.URL("plain", name+"?rate=256k"), Checksum: w.checksum(image)})
		w.untilCopy(w.a, id, "to progress", func(c api.TemplateCopy) bool { return c.BytesDone > 0 })
		join := w.cut(w.a)
		failed := w.untilCopy(w.a, id, "to fail", isFailed)
		w.blamed(failed, failed.Code, "source")
		join()
		w.readied(w.a, id, image)
	})
}

// A copy that is removed while it comes does not come, and its name can be used
// again, time after time.
func TestTemplateRemovedInMidDownload(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	image := w.noise("removed.raw", 16*mib)
	name, id := w.sourced(o, image), w.unique("tpl")
	r := api.TemplateRequest{ID: id, Format: "raw", URL: o.URL("plain", name+"?rate=4m"), Checksum: w.checksum(image)}
	for range 3 {
		op := w.registered(w.a, r)
		w.untilCopy(w.a, id, "to progress", func(c api.TemplateCopy) bool { return c.BytesDone > 0 })
		_, err := w.a.api.RemoveTemplate(w.ctx, id)
		w.must(err)
		if left := append(w.files(w.a), w.hidden(w.a, harness.ImagesPath)...); len(left) != 0 {
			t.Errorf("left in the pool: %q", left)
		}
		if op = w.wait(w.a, op.ID); op.Status == api.StatusSucceeded {
			t.Errorf("operation %+v succeeded with what was removed", op)
		}
	}
	r.URL = o.URL("plain", name)
	w.run(w.a, w.registered(w.a, r), nil)
	w.readied(w.a, id, image)
}
