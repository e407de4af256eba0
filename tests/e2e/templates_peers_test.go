//go:build lab

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// held has a host download an image. Its origin, which this returns, is stopped.
func (w *world) held(on *side, r api.TemplateRequest, file string) *harness.Origin {
	w.Helper()
	o := w.origin(on, "127.0.0.1")
	r.URL, r.Checksum = o.URL("plain", w.sourced(o, file)), w.checksum(file)
	w.run(on, w.registered(on, r), nil)
	w.readied(on, r.ID, file)
	w.must(o.Stop())
	return o
}

// nowhere is a URL that nobody answers at.
const nowhere = "http://127.0.0.1:1/gone"

// From a peer only data travels, and only data takes room where it arrives;
// from ext4 to XFS, too.
func TestTemplateSyncKeepsHoles(t *testing.T) {
	w := begin(t)
	w.pool(w.b, "ext", "ext4", 512*mib)
	folder := w.pool(w.a, "xfs", "xfs", 512*mib)
	const size, data = 256 * mib, 16 * mib
	image, id := w.raw("holes", size, data), w.unique("tpl")
	w.held(w.b, api.TemplateRequest{ID: id, Format: "raw", Pool: "ext"}, image)
	// Where the zeros travelled, they take no room either.
	if _, allocated := w.allocated(w.b, w.copyOf(w.b, id).Path); allocated > data*5/4 {
		t.Errorf("the download takes %d bytes for %d of data", allocated, data)
	}
	before := w.sentBytes(w.b)
	w.rate(w.b, "100mbit")
	op := w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", Pool: "xfs", URL: nowhere, Checksum: w.checksum(image), SyncFrom: w.b.URL()})
	c := w.untilCopy(w.a, id, "to come from a peer", func(c api.TemplateCopy) bool { return c.State == api.CopySyncing && c.BytesDone > 0 })
	if !strings.Contains(c.Origin, w.b.Hostname()) || c.BytesTotal < data || c.BytesTotal > size {
		t.Errorf("copy %+v; want it to name host b and how much is to come", c)
	}
	w.run(w.a, op, nil)
	c = w.readied(w.a, id, image)
	if !strings.HasPrefix(c.Path, folder+"/") || !strings.Contains(c.Origin, w.b.Hostname()) {
		t.Errorf("copy %+v; want it in %s, from host b", c, folder)
	}
	if sent := w.sentBytes(w.b) - before; sent < data || sent > data*5/4 {
		t.Errorf("host b has sent %d bytes for %d of data", sent, data)
	}
	length, allocated := w.allocated(w.a, c.Path)
	if length != size || allocated < data || allocated > data*5/4 || c.Allocated != allocated {
		t.Errorf("a file of %d bytes that takes %d (%+v); want %d and about %d", length, allocated, c, size, data)
	}
}

// A file of a ready copy that is gone, or is another one, is noticed without
// being asked for and brought from the peer; one that was only touched is read
// again and stays.
func TestTemplateFileLostOrChanged(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	image, id := w.picture("lost", w.Name()), w.unique("tpl")
	w.held(w.b, api.TemplateRequest{ID: id}, image)
	o := w.held(w.a, api.TemplateRequest{ID: id}, image)
	path := w.copyOf(w.a, id).Path
	inode := func(w *world) string { return w.exec(w.a, "stat", "-c", "%i", path) }
	first := inode(w)
	w.substep("touched", func(w *world) {
		before := w.exec(w.a, "stat", "-c", "%z", path)
		w.exec(w.a, "touch", "-d", "@1000000000", path)
		if before == w.exec(w.a, "stat", "-c", "%z", path) {
			w.Fatal("touching the file left no mark")
		}
		w.must(harness.Until(w.ctx, "the file to be read again", func(ctx context.Context) error {
			return w.counted(ctx, w.a, `wherry_template_checks_total{result="verified"}`, 1)
		}))
		if c := w.readied(w.a, id, image); inode(w) != first {
			w.Errorf("copy %+v at inode %s; want it left alone at %s", c, inode(w), first)
		}
	})
	for what, script := range map[string]string{
		"gone":      `rm -f "$0"`,
		"changed":   `chmod u+w "$0" && printf x | dd of="$0" bs=1 seek=300000 conv=notrunc status=none && chmod u-w "$0"`,
		"truncated": `chmod u+w "$0" && truncate -s 1000 "$0" && chmod u-w "$0"`,
	} {
		w.substep(what, func(w *world) {
			before := w.copyOf(w.a, id)
			w.exec(w.a, "sh", "-c", script, path)
			w.untilCopy(w.a, id, "to be noticed and brought again", func(c api.TemplateCopy) bool {
				return isReady(c) && c.UpdatedAt.After(before.UpdatedAt)
			})
			if c := w.readied(w.a, id, image); c.Path != path || !strings.Contains(c.Origin, w.b.Hostname()) {
				w.Errorf("copy %+v; want it at %s, from host b", c, path)
			}
		})
	}
	if files := w.files(w.a); len(files) != 1 {
		t.Errorf("files %q; want the copy alone", files)
	}
	w.substep("somebody else's", func(w *world) {
		w.exec(w.a, "sh", "-c", `echo mine >"$0.x" && mv -f "$0.x" "$0"`, path)
		// It is theirs: it is moved aside, and they are told where.
		c := w.untilCopy(w.a, id, "to be brought again", func(c api.TemplateCopy) bool { return isReady(c) && strings.Contains(c.Message, ".foreign-") })
		if aside := w.exec(w.a, "sh", "-c", `cat "$0".foreign-*`, path); aside != "mine" {
			w.Errorf("aside lies %q", aside)
		}
		if got := "sha256:" + strings.Fields(w.exec(w.a, "sha256sum", c.Path))[0]; c.Path != path || got != w.checksum(image) {
			w.Errorf("copy %+v with digest %s; want the image at %s", c, got, path)
		}
	})
	w.substep("on both hosts", func(w *world) {
		// Nobody has it any more but the server, which is there again.
		w.must(o.Start(w.ctx))
		before := w.copyOf(w.a, id)
		w.must(w.b.Agent(w.ctx, "stop"))
		w.cleanup("starting the agent", func(ctx context.Context) error { return w.b.Agent(ctx, "start") })
		w.exec(w.b, "rm", "-f", path)
		w.exec(w.a, "rm", "-f", path)
		w.must(w.b.Agent(w.ctx, "start"))
		w.untilCopy(w.a, id, "to come from its URL", func(c api.TemplateCopy) bool {
			return isReady(c) && c.UpdatedAt.After(before.UpdatedAt) && strings.HasPrefix(c.Origin, "http://127.0.0.1")
		})
		w.readied(w.a, id, image)
	})
}

// counted wants a metric of a host's agent to have that value or more.
func (w *world) counted(ctx context.Context, on *side, metric string, least float64) error {
	text, err := on.api.Metrics(ctx)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		value, is := strings.CutPrefix(string(line), metric+" ")
		var got float64
		if _, err := fmt.Sscan(value, &got); is && err == nil && got >= least {
			return nil
		}
	}
	return fmt.Errorf("no %s of %g or more", metric, least)
}

// Where the peer is gone, and where it sends other bytes than were promised,
// the image comes from its URL; what was wrong with the peer is said where that
// does not help either.
func TestTemplatePeersThatDoNotHelp(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	image := w.picture("peers", w.Name())
	o := w.origin(w.a, "127.0.0.1")
	name, sum := w.sourced(o, image), w.checksum(image)
	other, otherID := w.picture("other", w.Name()), w.unique("other")
	w.held(w.b, api.TemplateRequest{ID: otherID}, other)
	lies := w.proxy(w.b, func(_ http.ResponseWriter, r *http.Request) bool {
		// Whatever content is asked for, that of another template comes.
		if strings.HasSuffix(r.URL.Path, "/content") {
			r.URL.Path, r.URL.RawPath = "/v1/templates/"+otherID+"/content", ""
		}
		return false
	})
	peers := []struct{ what, url string }{
		{"it is not there", "https://" + w.b.Hostname() + ":1"},
		{"it does not know the template", w.b.URL()},
		{"it sends other bytes", lies},
	}
	for i, c := range peers {
		w.substep(c.what, func(w *world) {
			id := fmt.Sprintf("%s-%d", w.unique("tpl"), i)
			before := len(w.asked(o, name))
			w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("plain", name), Checksum: sum, SyncFrom: c.url})
			got := w.readied(w.a, id, image)
			if asked := w.asked(o, name)[before:]; len(asked) != 1 || asked[0].Status != 200 || strings.Contains(got.Origin, w.b.Hostname()) {
				w.Errorf("copy %+v, asked for %+v; want the image from its URL", got, asked)
			}
			_, err := w.a.api.RemoveTemplate(w.ctx, id)
			w.must(err)
		})
		w.substep(c.what+", nor is the URL", func(w *world) {
			id := fmt.Sprintf("%s-%d", w.unique("tpl"), i)
			w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("status-404", name), Checksum: sum, SyncFrom: c.url})
			failed := w.untilCopy(w.a, id, "to fail", isFailed)
			w.blamed(failed, failed.Code, "source", w.b.Hostname(), "404")
			if left := w.hidden(w.a, harness.ImagesPath); len(left) != 0 {
				w.Errorf("left in the pool: %q", left)
			}
			_, err := w.a.api.RemoveTemplate(w.ctx, id)
			w.must(err)
		})
	}
}

// A host sends to so many at once and no more; who comes later waits, and all
// get what they asked for. The sender dies in between, and all get it still.
func TestTemplateSendersAreFew(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	w.agentWith(w.b, "WHERRY_TEMPLATES_SENDERS=1")
	const many = 4
	images := map[string]string{}
	for i := range many {
		id := fmt.Sprintf("%s-%d", w.unique("tpl"), i)
		images[id] = w.noise(fmt.Sprintf("few-%d.raw", i), 4*mib)
		w.held(w.b, api.TemplateRequest{ID: id, Format: "raw"}, images[id])
	}
	w.rate(w.b, "50mbit")
	for id, image := range images {
		w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", URL: nowhere, Checksum: w.checksum(image), SyncFrom: w.b.URL()})
	}
	w.must(harness.Until(w.ctx, "one of them to come", func(context.Context) error {
		for id := range images {
			if c := w.copyOf(w.a, id); c.State == api.CopySyncing && c.BytesDone > 0 {
				return nil
			}
		}
		return fmt.Errorf("none is coming")
	}))
	w.kill(w.b)
	w.must(w.b.Agent(w.ctx, "start"))
	for id, image := range images {
		w.readied(w.a, id, image)
	}
}
