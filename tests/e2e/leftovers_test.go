//go:build lab

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// leftOver gives what the host lists, by id.
func (w *world) leftOver(on *side) map[string]api.Leftover {
	w.Helper()
	list, err := on.api.Leftovers(w.ctx)
	w.must(err)
	out := map[string]api.Leftover{}
	for _, l := range list.Leftovers {
		if l.Why == "" || l.Delete == "" {
			w.Errorf("%+v does not say why, or what deleting does", l)
		}
		out[l.ID] = l
	}
	return out
}

// What nothing owns is listed. What Wherry has made goes on request; anything
// else only by its path; what has an owner, or is in use, not even so.
func TestLeftoversAreListedAndDeleted(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.b, name, mib)
	in := func(file string) string { return filepath.Join(harness.ImagesPath, file) }
	ours, foreign := ".wherry-01JZZZZZZZZZZZZZZZZZZZZZZZ-vda", w.unique("old.qcow2")
	for _, file := range []string{ours, foreign} {
		w.exec(w.b, "dd", "if=/dev/zero", "of="+in(file), "bs=64K", "count=1")
	}
	login, theirs := w.login("wherry iscsi://10.77.0.9:3260/iqn.2024-01.org.wherry:left/1"), w.login("iscsi://an.operators/own/0")
	left := w.leftOver(w.b)
	if l, ok := left[in(ours)]; !ok || !l.Made || l.Bytes == 0 || l.Operation != "01JZZZZZZZZZZZZZZZZZZZZZZZ" {
		t.Errorf("%s is %+v; want it listed as ours", ours, l)
	}
	if l, ok := left[in(foreign)]; !ok || l.Made {
		t.Errorf("%s is %+v; want it listed as anybody's", foreign, l)
	}
	if l, ok := left["secret:"+login]; !ok || !l.Made || l.ModifiedAt.IsZero() {
		t.Errorf("the login of a target that nobody uses is %+v; want it listed", l)
	}
	for _, id := range []string{in(name + ".qcow2"), "secret:" + theirs} {
		if l, ok := left[id]; ok {
			t.Errorf("somebody's own: %+v", l)
		}
		if out, err := w.command(w.b, "wherry operation leftovers --delete "+id); err == nil {
			t.Errorf("somebody's own was deleted: %s", out)
		}
	}
	if out, err := w.command(w.b, "wherry operation leftovers"); err != nil || !strings.Contains(out, "--delete --all") {
		t.Errorf("%v: %s; want the command that deletes", err, out)
	}
	w.exists(w.b, ours, true)
	if out, err := w.command(w.b, "wherry operation leftovers --delete --all"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	w.exists(w.b, ours, false)
	w.exists(w.b, foreign, true)
	w.exists(w.b, name+".qcow2", true)
	if kept := w.exec(w.b, "virsh", "-q", "secret-list"); strings.Contains(kept, login) || !strings.Contains(kept, theirs) {
		t.Errorf("libvirt keeps the logins %q; want the operator's alone", kept)
	}
	if out, err := w.command(w.b, "wherry operation leftovers --delete "+in(foreign)); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	w.exists(w.b, foreign, false)
	w.alive(name, w.b)
}

// login has libvirt on host b keep one since some hours ago, and gives its UUID.
func (w *world) login(usage string) (uuid string) {
	w.Helper()
	out := w.exec(w.b, "sh", "-c", `f=$(mktemp) && echo "<secret ephemeral='no' private='yes'><usage type='iscsi'><target>$0</target></usage></secret>" >"$f" && virsh secret-define "$f"; rm "$f"`, usage)
	fields := strings.Fields(out)
	if len(fields) < 2 {
		w.Fatalf("defining a secret: %q", out)
	}
	uuid = fields[1]
	w.cleanup("removing the login", func(ctx context.Context) error {
		_, err := w.b.Exec(ctx, "sh", "-c", `virsh -q secret-undefine "$0" 2>/dev/null; true`, uuid)
		return err
	})
	w.exec(w.b, "touch", "-d", "2 hours ago", "/etc/libvirt/secrets/"+uuid+".xml")
	return uuid
}

// What a migration has left in a QEMU that runs on is listed with the operation
// that made it, and goes without the guest noticing. The same in an instance
// that Wherry never moved is its owner's affair.
func TestLeftoversInARunningInstance(t *testing.T) {
	w := begin(t)
	name, other := w.unique("vm"), w.unique("other")
	w.heavy(w.a, name, mib)
	w.heavy(w.b, other, mib)
	op := w.begun(w.a, name, api.MigrateRequest{})
	w.moved(name, w.a, op)
	for _, vm := range []string{name, other} {
		w.exec(w.b, "virsh", "-q", "qemu-monitor-command", vm,
			`{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"migration-vda-storage"}}`)
	}
	left := w.leftOver(w.b)
	id := "node:" + name + "/migration-vda-storage"
	if l, ok := left[id]; !ok || l.Instance != name || l.Operation != op || !l.Made {
		t.Errorf("the node is %+v; want it listed as operation %s's", l, op)
	}
	if l, ok := left["node:"+other+"/migration-vda-storage"]; ok {
		t.Errorf("of an instance that was never moved: %+v", l)
	}
	if out, err := w.command(w.b, "wherry operation leftovers --delete "+id); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if l, ok := w.leftOver(w.b)[id]; ok {
		t.Errorf("the node is still there: %+v", l)
	}
	w.alive(name, w.b)
}
