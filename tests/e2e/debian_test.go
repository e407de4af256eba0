//go:build lab

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// agentChannel is the port of the guest's agent: without it there is none.
const agentChannel = `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`

// debianTime bounds the test of a real guest: it boots in a minute or two, twice.
const debianTime = 15 * time.Minute

// A real guest, Debian with systemd: it shuts down in order by its agent, and by
// the power button where it has none that answers. What it wrote when systemd
// stopped its units is the proof.
func TestDebianShutsDownInOrder(t *testing.T) {
	w := begin(t)
	ctx, cancel := context.WithTimeout(t.Context(), debianTime)
	defer cancel()
	w.ctx = ctx
	out, err := exec.CommandContext(w.ctx, "../lab/lab", "debian").Output()
	if err != nil {
		t.Fatalf("building the guest: %v", err)
	}
	from := strings.TrimSpace(string(out))
	for _, file := range []string{"vmlinuz", "initrd.img", "disk.raw"} {
		msg, err := exec.CommandContext(w.ctx, "cp", "--sparse=always", filepath.Join(from, file), filepath.Join(w.a.Images(), "debian-"+file)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, msg)
		}
	}
	name := w.unique("debian")
	at := harness.ImagesPath + "/debian-"
	x := harness.Domain{Name: name, MemoryMiB: 384, Extra: agentPort, Disks: []harness.Disk{{Target: "vda", Source: at + "disk.raw", Format: "raw"}}}.XML()
	x = strings.NewReplacer("/srv/guest/vmlinuz", at+"vmlinuz", "/srv/guest/initrd.img", at+"initrd.img",
		"console=ttyS0 quiet loglevel=1 no_timer_check", "console=ttyS0 root=/dev/vda rw quiet no_timer_check").Replace(x)
	guest := w.lab.Guest(name)
	w.must(guest.Forget(w.ctx))
	op, err := w.a.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: name, DomainXML: x}, "")
	w.run(w.a, op, err)

	for boots, rung := range []string{api.RungAgent, api.RungACPI} {
		op, err := w.a.api.Start(w.ctx, ref(name), "")
		w.run(w.a, op, err)
		w.must(harness.Until(w.ctx, "Debian to be up", func(ctx context.Context) error {
			log, err := w.a.Exec(ctx, "cat", "/var/log/wherry-guest/"+name+".log")
			if n := strings.Count(log, "DEBIAN-IS-UP"); err == nil && n <= boots {
				err = fmt.Errorf("up %d times; its last words are %q", n, log[max(0, len(log)-200):])
			}
			return err
		}))
		ping := func(ctx context.Context) error {
			_, err := w.a.Virsh(ctx, "qemu-agent-command", "--timeout", "5", name, `{"execute":"guest-ping"}`)
			return err
		}
		w.must(harness.Until(w.ctx, "the guest's agent to answer", ping))
		if rung == api.RungACPI {
			_, err := w.a.Input(w.ctx, agentChannel, "virsh", "-q", "detach-device", name, "/dev/stdin")
			w.must(err)
		}
		op, err = w.a.api.Stop(w.ctx, ref(name), api.StopRequest{Timeout: seconds(180)}, "")
		op = w.run(w.a, op, err)
		if !strings.Contains(string(op.Result), fmt.Sprintf(`"rung":%q`, rung)) {
			t.Errorf("result %s; want %s", op.Result, rung)
		}
		proof, err := exec.CommandContext(w.ctx, "debugfs", "-R", "cat /var/ended-in-order", filepath.Join(w.a.Images(), "debian-disk.raw")).Output()
		if err != nil || strings.TrimSpace(string(proof)) != "yes" {
			t.Errorf("the disk says %q (%v); want that systemd ended in order", proof, err)
		}
	}
}
