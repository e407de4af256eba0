//go:build lab

package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
)

// What the host itself lacks is never blamed on the source: it is said, leaves
// nothing, and costs the source nothing while it lasts. Once it is put right,
// the copy comes by itself.
func TestTemplateFaultsOfTheHost(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	o := w.origin(w.a, "127.0.0.1")
	image := w.noise("local.raw", 20*mib)
	name := w.sourced(o, image)
	cases := []struct {
		what, pool, kind, broken, mended, code string
		says                                   []string
		asks                                   bool // the source is asked: how much comes is not known before
	}{
		{"no space", "full", "ext4", "fallocate -l 30M /srv/full/filler", "rm /srv/full/filler", "no-space", []string{"free", "/srv/full"}, true},
		{"an immutable folder on ext4", "ext", "ext4", "chattr +i /srv/ext", "chattr -i /srv/ext", "read-only", []string{"immutable", "/srv/ext"}, false},
		{"an immutable folder on XFS", "xfs", "xfs", "chattr +i /srv/xfs", "chattr -i /srv/xfs", "read-only", []string{"immutable", "/srv/xfs"}, false},
		{"a read-only file system", "ro", "ext4", "mount -o remount,ro /srv/ro", "mount -o remount,rw /srv/ro", "read-only", []string{"read-only", "/srv/ro"}, false},
	}
	id := func(pool string) string { return w.unique(pool) }
	for _, c := range cases {
		w.pool(w.a, c.pool, c.kind, map[string]int64{"ext4": 48 * mib, "xfs": 320 * mib}[c.kind])
		w.exec(w.a, "sh", "-c", c.broken)
		w.registered(w.a, api.TemplateRequest{ID: id(c.pool), Format: "raw", Pool: c.pool, URL: o.URL("plain", name+"?"+c.pool), Checksum: w.checksum(image)})
	}
	for _, c := range cases {
		w.substep(c.what, func(w *world) {
			failed := w.untilCopy(w.a, id(c.pool), "to have failed twice", func(c api.TemplateCopy) bool { return isFailed(c) && c.Attempts >= 2 })
			w.blamed(failed, c.code, "local", c.says...)
			if left := w.hidden(w.a, "/srv/"+c.pool); len(left) != 0 {
				w.Errorf("left in the folder: %q", left)
			}
			for _, r := range w.asked(o, name) {
				if strings.HasSuffix(r.URI, "?"+c.pool) && (!c.asks || r.Sent > 19*mib) {
					w.Errorf("the source was asked: %+v", r)
				}
			}
			w.exec(w.a, "sh", "-c", c.mended)
		})
	}
	for _, c := range cases {
		w.substep(c.what+", put right", func(w *world) { w.readied(w.a, id(c.pool), image) })
	}
}

// The pool's folder becomes immutable while the image is written there: what
// was written is not published, and comes once the folder is mutable.
func TestTemplateFolderImmutableInMidDownload(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	o := w.origin(w.a, "127.0.0.1")
	folder := w.pool(w.a, "xfs", "xfs", 320*mib)
	w.cleanup("making the folder mutable", func(ctx context.Context) error { return w.a.Immutable(ctx, folder, false) })
	image, id := w.noise("mid.raw", 8*mib), w.unique("tpl")
	w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", Pool: "xfs", URL: o.URL("plain", w.sourced(o, image)+"?rate=4m"), Checksum: w.checksum(image)})
	w.untilCopy(w.a, id, "to progress", func(c api.TemplateCopy) bool { return c.BytesDone > 0 })
	w.must(w.a.Immutable(w.ctx, folder, true))
	failed := w.untilCopy(w.a, id, "to fail", isFailed)
	w.blamed(failed, "read-only", "local", "immutable", folder)
	w.must(w.a.Immutable(w.ctx, folder, false))
	w.readied(w.a, id, image)
	if left := w.hidden(w.a, folder); len(left) != 0 {
		t.Errorf("left in the folder: %q", left)
	}
}

// A file of somebody else's that lies where the copy is to be is moved aside,
// and nothing of it is lost.
func TestTemplatePlaceTakenByAForeignFile(t *testing.T) {
	w := begin(t)
	image, id := w.picture("taken", w.Name()), w.unique("tpl")
	path := w.template(w.a, id, image, false).Copies[0].Path
	_, err := w.a.api.RemoveTemplate(w.ctx, id)
	w.must(err)
	w.exists(w.a, path, false)
	w.exec(w.a, "sh", "-c", `mkdir -p "$(dirname "$0")" && echo mine >"$0"`, path)
	c := w.template(w.a, w.unique("again"), image, false).Copies[0]
	if got := "sha256:" + strings.Fields(w.exec(w.a, "sha256sum", c.Path))[0]; c.Path != path || got != w.checksum(image) {
		t.Errorf("copy %+v with digest %s; want the image at %s", c, got, path)
	}
	aside := w.exec(w.a, "sh", "-c", `echo "$0".foreign-*`, path)
	if found := w.exec(w.a, "cat", aside); found != "mine" || !strings.Contains(c.Message, aside) {
		t.Errorf("%s has %q, and the copy says %q; want the foreign file, and to be told", aside, found, c.Message)
	}
}
