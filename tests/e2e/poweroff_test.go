//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
)

// underInit runs what it is given as the first process of namespaces of its own,
// with a hierarchy of control groups that begins there: what systemd needs. Whoever
// ends this ends all of it.
const underInit = `set -eu
groups=/sys/fs/cgroup/systemd own=/sys/fs/cgroup/systemd/wherry-$$
mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir "$groups" && mount -t cgroup -o none,name=systemd cgroup "$groups"
mkdir "$own" && echo 0 >"$own/cgroup.procs"
setpriv --pdeathsig KILL unshare --cgroup --pid --ipc --uts --mount --fork --kill-child --propagation private sh -c "$0" "$@" </dev/null || echo "init ended with $?"
echo 0 >"$groups/cgroup.procs"
find "$own" -depth -type d -exec rmdir {} +`

// systemdScript boots the host once more, by systemd and the units of the
// packages; the kernel's settings are not its to change. What it adds is in
// /run: units that start the instance and, when its guest writes, switch the host
// off, and that note what goes down when.
const systemdScript = `set -eu
groups=/sys/fs/cgroup/systemd units=/run/systemd/system went=/var/log/went-down
umount "$groups" && mount -t cgroup -o none,name=systemd cgroup "$groups"
mount -t proc proc /proc && mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
rm -f "$went" /var/log/instance
note() { # note LINE...: further lines of the service $name
	mkdir -p "$units/$name.service.d"
	{ echo "[Service]"; printf '%s\n' "$@"; } >"$units/$name.service.d/note.conf"
}
for name in libvirtd virtlogd wherry; do note "ExecStop=/bin/sh -c 'echo $name >>$went'"; done
name=libvirt-guests && note ExecStop= "ExecStop=/bin/sh -c 'echo $name >>$went'" "ExecStop=/usr/lib/libvirt/libvirt-guests.sh stop"
name=wherry-shutdown && note "ExecStopPost=/bin/sh -c 'echo $name >>$went'"
mkdir -p "$units/multi-user.target.wants"
cat >"$units/network.service" <<END
[Unit]
Before=network.target network-online.target
Wants=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo network >>$went'
END
cat >"$units/instance.service" <<END
[Unit]
After=multi-user.target wherry-shutdown.service
[Service]
Type=oneshot
TimeoutStartSec=120
StandardOutput=append:/var/log/instance
StandardError=inherit
ExecStart=/bin/sh -c 'until wherry start $1; do sleep 0.5; done'
ExecStart=/bin/sh -c 'until grep -q "blk vda 2" /var/log/wherry-guest/$1.log; do sleep 0.2; done'
ExecStart=/bin/sh -c 'virsh -q list --name; ps -e -o unit=,comm= | grep qemu-system'
ExecStopPost=/bin/systemctl --no-block poweroff
END
for name in wherry wherry-shutdown; do ln -s "/lib/systemd/system/$name.service" "$units/multi-user.target.wants/"; done
for name in network instance; do ln -s "../$name.service" "$units/multi-user.target.wants/"; done
ln -s /dev/null "$units/console-getty.service"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=lab \
	/lib/systemd/systemd systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1`

// A host that runs systemd is switched off, and nobody asks Wherry to do
// anything: its unit stops the instances while libvirt, libvirt's own stopping of
// guests, the agent and the network are all still there. Each guest ends in order.
func TestPowerOffStopsInstancesFirst(t *testing.T) {
	w := begin(t)
	d := w.falls()
	s := w.toStop("vm")
	out, err := w.a.Exec(w.ctx, "systemd-analyze", "verify", "--man=no", "/lib/systemd/system/wherry.service", "/lib/systemd/system/wherry-shutdown.service")
	if err != nil || strings.Contains(out, "wherry") {
		t.Errorf("the units are not as they should be: %v\n%s", err, out)
	}
	w.must(w.a.Agent(w.ctx, "stop"))
	w.must(w.a.Libvirtd(w.ctx, "stop"))

	ctx, cancel := context.WithTimeout(w.ctx, 150*time.Second)
	defer cancel()
	out, err = w.a.Exec(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", underInit, systemdScript, "sh", s.name)
	if err != nil {
		t.Fatalf("systemd: %v %s", err, out)
	}
	ran := w.exec(w.a, "cat", "/var/log/instance")
	// Systemd knows the instance: it ends the scope itself, when it comes to that.
	if !strings.Contains(ran, "\n"+s.name+"\nmachine-qemu") {
		t.Fatalf("the instance did not run in a scope of systemd's: %s", ran)
	}
	went := strings.Fields(w.exec(w.a, "cat", "/var/log/went-down"))
	if len(went) != 6 || went[0] != "wherry-shutdown" {
		t.Errorf("units went down in the order %q; want the instances before all others", went)
	}
	var m shutdown.Marker
	w.must(json.Unmarshal([]byte(w.exec(w.a, "cat", "/var/lib/wherry/shutdown.json")), &m))
	if m.By != "agent" || m.Result == nil {
		t.Fatalf("what is noted of the shutdown is %+v; want it done by the agent", m)
	}
	d.all = append(d.all, s)
	d.asked(*m.Result, "agent")
	console, err := s.guest.Console(w.ctx, w.a.Host)
	w.must(err)
	s.boot = console.Boots()[0]
	if o := d.outcome(*m.Result, s); o.Outcome != api.ShutdownStopped {
		t.Errorf("%+v", o)
	}
	d.restored()
	d.endedInOrder()
}
