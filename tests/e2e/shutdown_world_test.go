//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// downfall is host a, with instances that are to go down with it.
type downfall struct {
	*world
	on  *side
	all []*stopped
	// pending is what happens in the middle.
	pending []<-chan error
}

// upAgainScript forgets that the host was shut down.
const upAgainScript = "rm -f /var/lib/wherry/shutdown.json /var/lib/wherry/start-again.json"

// downTime bounds the test of a host that goes down: several guests boot, shut
// down in their order, and what is away is waited for.
const downTime = 5 * time.Minute

// falls prepares a host's shutdown. After the test the host is up again.
func (w *world) falls() *downfall {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), downTime)
	w.Cleanup(cancel)
	w.ctx = ctx
	d := &downfall{world: w, on: w.a}
	w.cleanup("bringing the host up again", d.up)
	return d
}

// up brings back whatever a case has broken.
func (d *downfall) up(ctx context.Context) error {
	_, resumed := d.on.Exec(ctx, "sh", "-c", "kill -CONT $(cat /run/lab-agent.pid) 2>/dev/null; "+upAgainScript+`
if [ -e /run/store-is-corrupt ]; then rm -f /run/store-is-corrupt /var/lib/wherry/wherry.db; fi`)
	return errors.Join(resumed, d.on.Link(ctx, true), d.on.Libvirtd(ctx, "start"), d.noticed(ctx), d.on.Agent(ctx, "restart"))
}

// unnoticedScript prints what libvirt takes for running without a process, and
// the hooks that it has called.
const unnoticedScript = `for f in /run/libvirt/qemu/*.xml; do
	[ ! -e "$f" ] || kill -0 "$(cat "${f%.xml}.pid")" 2>/dev/null || echo "$f"
done
pgrep -af 'wherry [h]ook'
true`

// noticed waits for a libvirt that was away to have seen what ended without it,
// and told its hook. On a host that was really down there would be nothing to see.
func (d *downfall) noticed(ctx context.Context) error {
	return harness.Until(ctx, "libvirt to notice what ended without it", func(ctx context.Context) error {
		out, err := d.on.Exec(ctx, "sh", "-c", unnoticedScript)
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	})
}

// guest makes an instance of that policy and starts it. Its guest boots beside
// those of others: see boot.
func (d *downfall) guest(name string, p api.StopPolicy, change ...func(*harness.Domain)) *stopped {
	d.Helper()
	s := d.toStop(name, change...)
	_, err := d.on.api.SetStopPolicy(d.ctx, ref(s.name), p)
	d.must(err)
	op, err := d.on.api.Start(d.ctx, ref(s.name), "")
	d.run(d.on, op, err)
	d.all = append(d.all, s)
	return s
}

// boot waits until all guests write, and gives each a login that is owed.
func (d *downfall) boot() {
	d.Helper()
	for _, s := range d.all {
		s.booted(0)
		s.connect()
	}
}

// underSystemd runs a command as a service of systemd's would be, and keeps
// what it tells systemd (sd_notify(3)).
const underSystemd = `use Socket;
my $p = "/run/notify.sock"; unlink $p;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die $!;
bind($s, sockaddr_un($p)) or die $!;
$ENV{NOTIFY_SOCKET} = $p;
my $pid = fork; if (!$pid) { exec @ARGV or die $! }
waitpid $pid, 0; my $status = $? >> 8;
open(my $o, ">", "/run/notified") or die $!;
while (defined recv($s, my $b, 1000, MSG_DONTWAIT)) { print $o "$b\n" }
exit $status`

// command runs "wherry shutdown" on the host as its unit does, and gives what
// it said. Systemd has to be asked for more time.
func (d *downfall) command(words ...string) (api.ShutdownResult, string) {
	d.Helper()
	line := append([]string{"sh", "-c", `"$@" 2>/run/said; s=$?; cat /run/said >&2; exit $s`, "sh", "perl", "-e", underSystemd,
		"wherry", "shutdown", "--yes", "-o", "json"}, words...)
	out, err := d.on.Exec(d.ctx, line...)
	said, _ := d.on.Exec(d.ctx, "cat", "/run/said")
	if err != nil {
		d.Fatalf("wherry shutdown: %v\n%s", err, out)
	}
	if told := d.exec(d.on, "cat", "/run/notified"); !strings.HasPrefix(told, "EXTEND_TIMEOUT_USEC=45000000\n") {
		d.Errorf("systemd was told %q; want it asked for 45 s more", told)
	}
	var r api.ShutdownResult
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		d.Fatalf("wherry shutdown printed %s: %v", out, err)
	}
	return r, said
}

func (d *downfall) outcome(r api.ShutdownResult, s *stopped) api.ShutdownInstance {
	d.Helper()
	i := slices.IndexFunc(r.Instances, func(i api.ShutdownInstance) bool { return i.UUID == s.uuid })
	if i < 0 {
		d.Fatalf("no %q in %+v", s.name, r)
	}
	return r.Instances[i]
}

// asked wants every instance to have been stopped by its guest.
func (d *downfall) asked(r api.ShutdownResult, by string) {
	d.Helper()
	if r.By != by {
		d.Errorf("done by %q; want %q", r.By, by)
	}
	for _, s := range d.all {
		if o := d.outcome(r, s); o.Outcome != api.ShutdownStopped || o.Rung != api.RungACPI {
			d.Errorf("%+v; want it stopped by its guest", o)
		}
	}
}

// endedInOrder wants the instances to be gone whole, each disk to say that its guest
// has shut down in order, and the records to say that they are to run again.
// The agent and libvirt are there again.
func (d *downfall) endedInOrder() {
	d.Helper()
	for _, s := range d.all {
		d.must(harness.Until(d.ctx, "nothing to be owed to "+s.name, func(ctx context.Context) error {
			out, err := d.on.Exec(ctx, "sh", "-c", "find /var/lib/wherry/cleanup -type f 2>/dev/null; true")
			if err == nil && strings.TrimSpace(out) != "" {
				err = fmt.Errorf("notes: %s", out)
			}
			return err
		}))
		s.leftNothing()
		if !s.record("power_state: running") {
			d.Errorf("the record of %q does not say that it ran", s.name)
		}
		if slices.ContainsFunc(d.logins(d.on), func(l string) bool { return strings.Contains(l, s.name) }) {
			d.Errorf("logins %q; want none of %q", d.logins(d.on), s.name)
		}
		d.inOrder(s)
	}
}

// inOrder wants the disk to say that its last boot ended in order.
func (d *downfall) inOrder(s *stopped) {
	d.Helper()
	if state, err := d.on.State(d.ctx, s.name); err != nil || state != "shut off" {
		d.Errorf("%q is %q (%v); want it shut off", s.name, state, err)
	}
	boot, err := d.on.Clean(d.ctx, s.disk, "qcow2")
	d.must(err)
	if boot != s.boot {
		d.Errorf("the disk of %q says that boot %q ended in order; want %q", s.name, boot, s.boot)
	}
}

// restored brings back what a case has broken, in the middle of a test.
func (d *downfall) restored() {
	d.Helper()
	for _, done := range d.pending {
		d.must(<-done)
	}
	d.pending = nil
	// A host that comes back has none of the processes that it had. Libvirt tells of no state before it has run the
	// hook of an end; where it is down it runs none.
	for _, s := range d.all {
		_, _ = d.on.State(d.ctx, s.name)
	}
	d.must(harness.Until(d.ctx, "libvirt's hooks to be done", func(ctx context.Context) error {
		out, err := d.on.Exec(ctx, "sh", "-c", "pgrep -af '[w]herry hook' || [ $? = 1 ]")
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	}))
	d.must(d.up(d.ctx))
}

// soon does something some time from now, which restored waits for.
func (d *downfall) soon(after time.Duration, do func(context.Context) error) {
	done := make(chan error, 1)
	time.AfterFunc(after, func() { done <- do(d.ctx) })
	d.pending = append(d.pending, done)
}

// recorded gives the record of an instance as it lies there.
func (w *world) recorded(on *side, name string) string {
	w.Helper()
	return w.exec(on, "cat", "/var/lib/wherry/records/default/"+name+".yaml")
}
