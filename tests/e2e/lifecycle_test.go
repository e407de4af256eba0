//go:build lab

package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// An instance that its definition has libvirt start again when its guest powers
// off (on_poweroff=restart) goes down when it is told to, and stays down; the
// next start finds the definition as it was.
func TestStopOfWhatWouldStartAgain(t *testing.T) {
	w := begin(t)
	for rung, change := range map[string]func(*harness.Domain){api.RungACPI: func(*harness.Domain) {}, api.RungAgent: extra(agentPort)} {
		s := w.toStop("by-"+rung, change)
		const restart = "<on_poweroff>restart</on_poweroff>"
		w.exec(s.on, "sh", "-c", `virsh -q dumpxml --inactive "$0" | sed "s#<on_poweroff>.*#$1#" >/tmp/again.xml && virsh -q define /tmp/again.xml`, s.name, restart)
		s.start()
		s.stop(api.StopRequest{}, rung)
		s.down(true)
		if text := w.exec(s.on, "virsh", "-q", "dumpxml", "--inactive", s.name); !strings.Contains(text, restart) {
			t.Errorf("by %s: the definition is %s", rung, text)
		}
	}
}

// The new root disk is whose the old one was, and a pool that takes no files is
// found out before a guest is stopped for it.
func TestRebuildWhereFilesAreNotRoots(t *testing.T) {
	w := begin(t)
	one := w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false)
	r := w.toRebuild("vm", one)
	root := r.root()
	w.exec(w.a, "sh", "-c", `chown 4242:4243 "$0" && chmod 640 "$0"`, root)

	w.must(w.a.Immutable(w.ctx, harness.ImagesPath, true))
	w.cleanup("letting files be made", func(ctx context.Context) error { return w.a.Immutable(ctx, harness.ImagesPath, false) })
	r.refused(api.RebuildRequest{Source: source(api.SourceOriginal), Force: true}, "pool-not-writable")
	w.must(w.a.Immutable(w.ctx, harness.ImagesPath, false))
	if boots, err := r.guest.Boots(w.ctx); err != nil || len(boots) != r.boots || r.root() != root {
		t.Errorf("boots %q, %v, root disk %s; want it untouched", boots, err, r.root())
	}

	r.rebuild(api.RebuildRequest{Source: source(api.SourceOriginal), Force: true})
	if got := strings.TrimSpace(w.exec(w.a, "stat", "-c", "%u:%g %a", r.root())); got != "4242:4243 640" || r.root() == root {
		t.Errorf("the new root disk %s is %s; the old one was 4242:4243 640", r.root(), got)
	}
	r.fresh("one", 0)
	r.sound(&one)
}

// Cancelled while its guest is asked, a rebuild leaves one that does not obey as
// it was: nobody wants its power cut any more.
func TestRebuildCancelledWhileTheGuestIsAsked(t *testing.T) {
	w := begin(t)
	one := w.template(w.a, w.unique("one"), w.picture("one", w.Name()), false)
	r := w.toRebuild("vm", one)
	op, err := w.a.api.Stop(w.ctx, ref(r.name), api.StopRequest{}, "")
	w.run(w.a, op, err)
	w.exec(w.a, "sh", "-c", `virsh -q dumpxml --inactive "$0" | sed "s#</cmdline># wherry.deaf=-1 wherry.agent=mute</cmdline>#" >/tmp/deaf.xml && virsh -q define /tmp/deaf.xml`, r.name)
	r.xml = r.rest()
	op, err = w.a.api.Start(w.ctx, ref(r.name), "")
	w.run(w.a, op, err)
	r.booted()

	op, err = w.a.api.Rebuild(w.ctx, ref(r.name), api.RebuildRequest{Source: source(api.SourceOriginal), Force: true, Timeout: seconds(15)}, "")
	w.must(err)
	w.must(r.guest.WaitLine(w.ctx, w.a.Host, "POWERKEY ignored"))
	_, err = w.a.api.Cancel(w.ctx, op.ID)
	w.must(err)
	if op := w.wait(w.a, op.ID); op.Status != api.StatusCancelled || op.Error.Hint != "" {
		t.Errorf("%s, %s; want it cancelled, and nothing left undone", op.Status, describe(op.Error))
	}
	if boots, err := r.guest.Boots(w.ctx); err != nil || len(boots) != r.boots {
		t.Errorf("boots %q, %v; want %d", boots, err, r.boots)
	}
	r.sound(&one)
	r.labelled("one", 0)
}
