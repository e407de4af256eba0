//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// debianTime bounds the test of a real guest: it is built where it is not cached,
// and boots three times, which takes minutes each on a busy machine.
const debianTime = 20 * time.Minute

// debian is an instance of a real guest: Debian with systemd and the guest agent.
type debian struct {
	*world
	on    *side
	name  string
	disk  string // of this machine
	boots int
}

// debian makes the instance through the agent. Its kernel and its initramfs lie
// beside its disk.
func (w *world) debian() *debian {
	w.Helper()
	d := &debian{world: w, on: w.a, name: w.unique("vm"), disk: filepath.Join(w.a.Images(), "debian-disk.raw")}
	out, err := exec.CommandContext(w.ctx, "../lab/lab", "debian").Output()
	if err != nil {
		w.Fatalf("building the guest: %v", err)
	}
	for _, file := range []string{"vmlinuz", "initrd.img", "disk.raw"} {
		to := filepath.Join(w.a.Images(), "debian-"+file)
		msg, err := exec.CommandContext(w.ctx, "cp", "--sparse=always", filepath.Join(strings.TrimSpace(string(out)), file), to).CombinedOutput()
		if err != nil {
			w.Fatalf("%v: %s", err, msg)
		}
	}
	w.must(w.lab.Guest(d.name).Forget(w.ctx))
	op, err := d.on.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: d.name, DomainXML: d.xml("", agentPort)}, "")
	w.run(d.on, op, err)
	return d
}

func (d *debian) xml(uuid, port string) string {
	at := harness.ImagesPath + "/debian-"
	x := harness.Domain{Name: d.name, UUID: uuid, MemoryMiB: 384, Options: "root=/dev/vda rw", Extra: port,
		Disks: []harness.Disk{{Target: "vda", Source: at + "disk.raw", Format: "raw"}}}.XML()
	return strings.NewReplacer("/srv/guest/vmlinuz", at+"vmlinuz", "/srv/guest/initrd.img", at+"initrd.img").Replace(x)
}

// start starts it, and waits until systemd has reached its last unit.
func (d *debian) start() {
	d.Helper()
	began := time.Now()
	op, err := d.on.api.Start(d.ctx, ref(d.name), "")
	d.run(d.on, op, err)
	d.must(harness.Until(d.ctx, "Debian to be up", func(ctx context.Context) error {
		log, err := d.on.Exec(ctx, "cat", "/var/log/wherry-guest/"+d.name+".log")
		if n := strings.Count(log, "DEBIAN-IS-UP"); err == nil && n <= d.boots {
			err = fmt.Errorf("up %d times; its last words are %q", n, log[max(0, len(log)-200):])
		}
		return err
	}))
	d.boots++
	d.Logf("up after %s", time.Since(began).Round(time.Second))
}

// stop stops it, and wants that rung to have ended it, and its disk to say
// whether systemd did.
func (d *debian) stop(r api.StopRequest, rung string, inOrder bool) {
	d.Helper()
	op, err := d.on.api.Stop(d.ctx, ref(d.name), r, "")
	op = d.run(d.on, op, err)
	if !strings.Contains(string(op.Result), fmt.Sprintf(`"rung":%q`, rung)) {
		d.Errorf("result %s; want %s", op.Result, rung)
	}
	// What a guest that was cut off has written is in the journal of its file
	// system, which the check of the next boot would read.
	out, err := exec.CommandContext(d.ctx, "/sbin/e2fsck", "-p", "-E", "journal_only", d.disk).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) { // 1: there was one
		d.Fatalf("e2fsck: %v: %s", err, out)
	}
	out, err = exec.CommandContext(d.ctx, "/sbin/debugfs", "-R", "cat /var/ended-in-order", d.disk).Output()
	d.must(err)
	if (strings.TrimSpace(string(out)) == "yes") != inOrder {
		d.Errorf("stopped by %s, the disk says %q; want that systemd ended in order: %v", rung, out, inOrder)
	}
}

// A real guest shuts down in order by its agent, and by the power button where
// it has none. What it wrote when systemd stopped its units is the proof: a
// guest whose power was cut has not written it.
func TestDebianShutsDownInOrder(t *testing.T) {
	w := begin(t)
	w.atMost(debianTime)
	d := w.debian()
	asked := api.StopRequest{Timeout: seconds(300)}

	d.start()
	w.must(harness.Until(w.ctx, "the guest's agent to answer", func(ctx context.Context) error {
		_, err := d.on.Virsh(ctx, "qemu-agent-command", "--timeout", "5", d.name, `{"execute":"guest-ping"}`)
		return err
	}))
	d.stop(asked, api.RungAgent, true)

	d.start()
	d.stop(api.StopRequest{Force: true}, api.RungQuit, false)

	// Without the port there is no agent: the button is left.
	w.must(d.on.Define(w.ctx, d.xml(w.exec(d.on, "virsh", "-q", "domuuid", d.name), "")))
	d.start()
	d.stop(asked, api.RungACPI, true)
}
