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

// stopped is an instance that is to be stopped, on host a: one with a record,
// whose disk proves how it ended, and with a login that is owed to be removed.
type stopped struct {
	*world
	on    *side
	name  string
	uuid  string
	guest *harness.Guest
	disk  string
	login string // the name of its secret
	boot  string // id of the last boot
}

// agentPort is where libvirt and the guest's agent meet.
const agentPort = `<controller type='virtio-serial'/><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`

// toStop makes the instance through the agent, from XML, and does not start it.
func (w *world) toStop(name string, change ...func(*harness.Domain)) *stopped {
	w.Helper()
	s := &stopped{world: w, on: w.a, name: w.unique(name)}
	s.guest, s.disk = w.lab.Guest(s.name), harness.ImagesPath+"/"+s.name+".qcow2"
	d := harness.Domain{Name: s.name, MemoryMiB: 96, Options: "wherry.pace=100ms", Disks: []harness.Disk{{Target: "vda", Source: s.disk}}}
	for _, c := range change {
		c(&d)
	}
	w.must(s.guest.Forget(w.ctx))
	w.volume(s.on, s.disk, "qcow2")
	op, err := s.on.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: s.name, DomainXML: d.XML()}, "")
	w.run(s.on, op, err)
	s.uuid = strings.TrimSpace(w.exec(s.on, "virsh", "-q", "domuuid", s.name))
	w.cleanup("letting its processes go on", func(ctx context.Context) error { return s.signal(ctx, "CONT") })
	return s
}

// atMost gives a test another deadline than testTime.
func (w *world) atMost(d time.Duration) {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	w.ctx = ctx
}

func options(text string) func(*harness.Domain) {
	return func(d *harness.Domain) { d.Options += " " + text }
}

func extra(xml string) func(*harness.Domain) { return func(d *harness.Domain) { d.Extra += xml } }

// start starts the instance, waits until its guest writes, and gives it a
// target that is connected: a login, whose secret libvirt keeps.
func (s *stopped) start() *stopped {
	s.Helper()
	s.untarget()
	boots, err := s.guest.Boots(s.ctx)
	s.must(err)
	op, err := s.on.api.Start(s.ctx, ref(s.name), "")
	s.run(s.on, op, err)
	s.booted(len(boots))
	s.connect()
	return s
}

// booted waits for a further boot, and until that one writes.
func (s *stopped) booted(before int) {
	s.Helper()
	s.must(harness.Until(s.ctx, "another boot of "+s.name, func(ctx context.Context) error {
		console, err := s.guest.Console(ctx, s.on.Host)
		if boots := console.Boots(); err == nil && len(boots) > before {
			s.boot = boots[len(boots)-1]
			return nil
		}
		return errors.Join(err, fmt.Errorf("its last lines are %q", console[max(0, len(console)-3):]))
	}))
	s.must(s.guest.WaitMore(s.ctx, s.on.Host, "vda", 2))
}

const recordScript = `cat >>"/var/lib/wherry/records/default/$0.yaml" <<END
targets:
  - type: iscsi
    portal: 127.0.0.1
    iqn: iqn.2024-01.org.wherry:$0
    lun: 1
    chap: {user: u, secret: s}
END
secret() { printf '<secret private="yes"><usage type="iscsi"><target>%s</target></usage></secret>' "$1"; }
secret "$1" | virsh -q secret-define /dev/stdin`

// connect does what a start does of an instance whose record names a target.
// That target need not be there for what is looked at here.
func (s *stopped) connect() {
	s.Helper()
	s.login = api.Target{Portal: "127.0.0.1", IQN: "iqn.2024-01.org.wherry:" + s.name, LUN: 1}.SecretUsage()
	s.untarget()
	s.exec(s.on, "sh", "-c", recordScript, s.name, s.login)
	if !slices.ContainsFunc(s.logins(s.on), func(l string) bool { return strings.Contains(l, s.name) }) {
		s.Fatalf("logins %q; want that of %q", s.logins(s.on), s.name)
	}
}

// untarget takes the target from the record: a start would really connect it.
func (s *stopped) untarget() {
	s.Helper()
	s.exec(s.on, "sh", "-c", `f="/var/lib/wherry/records/default/$0.yaml"
text=$(awk '/^targets:/ {skip = 1; next} /^[^ -]/ {skip = 0} !skip' "$f") && printf '%s\n' "$text" >"$f"`, s.name)
}

// record tells whether the instance's record has that text.
func (s *stopped) record(text string) bool {
	s.Helper()
	out := s.exec(s.on, "cat", "/var/lib/wherry/records/default/"+s.name+".yaml")
	return strings.Contains("\n"+out, "\n"+text)
}

// signal sends a signal to the instance's QEMU; none there is no error.
func (s *stopped) signal(ctx context.Context, signal string) error {
	_, err := s.on.Exec(ctx, "sh", "-c", `pkill "-$0" -f -- "-uuid $1" || [ $? = 1 ]`, signal, s.uuid)
	return err
}

// stop asks for a stop, and wants it to end well, on that rung.
func (s *stopped) stop(r api.StopRequest, rung string) api.StopResult {
	s.Helper()
	op, err := s.on.api.Stop(s.ctx, ref(s.name), r, "")
	return s.result(s.run(s.on, op, err), rung)
}

func (s *stopped) result(op api.Operation, rung string) (r api.StopResult) {
	s.Helper()
	s.must(json.Unmarshal(op.Result, &r))
	if r.Rung != rung || len(r.Warnings) != 0 {
		s.Errorf("result %s; want rung %q, and no warning", op.Result, rung)
	}
	return r
}

// stopping asks for a stop, and gives its operation's id.
func (s *stopped) stopping(r api.StopRequest) string {
	s.Helper()
	op, err := s.on.api.Stop(s.ctx, ref(s.name), r, "")
	s.must(err)
	return op.ID
}

// down wants nothing left of the instance but what it owns, and its disk to
// say how it ended.
func (s *stopped) down(clean bool) {
	s.Helper()
	if state, err := s.on.State(s.ctx, s.name); err != nil || state != "shut off" {
		s.Fatalf("%q is %q (%v); want it shut off", s.name, state, err)
	}
	s.leftNothing()
	if !s.record("power_state: stopped") {
		s.Errorf("the record of %q does not say that it is stopped", s.name)
	}
	if slices.ContainsFunc(s.logins(s.on), func(l string) bool { return strings.Contains(l, s.name) }) {
		s.Errorf("logins %q; want none of %q", s.logins(s.on), s.name)
	}
	boot, err := s.on.Clean(s.ctx, s.disk, "qcow2")
	s.must(err)
	if want := map[bool]string{true: s.boot, false: ""}[clean]; boot != want {
		s.Errorf("the disk of %q says that boot %q ended in order; want %q", s.name, boot, want)
	}
}

// leftScript prints what must not be there of an instance that is down.
const leftScript = `pgrep -af -- "-uuid $1"
ls /run/libvirt/qemu/ | grep -F "$0."
find /var/lib/wherry/cleanup -name "$0*" -o -name ".$0*" 2>/dev/null
find /var/lib/wherry/records -name '.*' -type f
ls -l /proc/[0-9]*/fd 2>/dev/null | grep -F "$2"
true`

// leftNothing waits: while the agent is away libvirt's hook does what is owed,
// and leaves to the next agent what needs libvirt.
func (s *stopped) leftNothing() {
	s.Helper()
	s.must(harness.Until(s.ctx, "nothing to be left of "+s.name, func(ctx context.Context) error {
		out, err := s.on.Exec(ctx, "sh", "-c", leftScript, s.name, s.uuid, s.disk)
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	}))
	s.unheld()
}

func (s *stopped) unheld() {
	s.Helper()
	i, err := s.on.api.Instance(s.ctx, ref(s.name))
	if err != nil || i.Lock != nil || i.Operation != "" {
		s.Errorf("instance %+v, lock %+v, error %v; want it held by nobody", i, i.Lock, err)
	}
}

// runsOn wants the instance to run as if nobody had touched it, and nothing to
// be owed to it.
func (s *stopped) runsOn() {
	s.Helper()
	if state, err := s.on.State(s.ctx, s.name); err != nil || state != "running" {
		s.Fatalf("%q is %q (%v); want it running", s.name, state, err)
	}
	s.must(s.guest.WaitMore(s.ctx, s.on.Host, "vda", 2))
	_, err := s.guest.Verify(s.ctx, s.on.Host)
	s.must(err)
	if out := s.exec(s.on, "sh", "-c", "find /var/lib/wherry/cleanup -type f 2>/dev/null; true"); strings.TrimSpace(out) != "" {
		s.Errorf("notes are left: %s", out)
	}
	s.unheld()
}

// fails wants an operation to have failed with that code.
func (s *stopped) fails(id, code string) api.Operation {
	s.Helper()
	op := s.wait(s.on, id)
	if op.Status != api.StatusFailed || op.Error == nil || op.Error.Code != code {
		s.Fatalf("operation %s: %s; want it failed, %q", op.Status, describe(op.Error), code)
	}
	return op
}

// ended wants an operation to have been ended by another one.
func (s *stopped) ended(id, by string) {
	s.Helper()
	op := s.wait(s.on, id)
	if op.Status != api.StatusCancelled || op.Error == nil || op.Error.Operation != by || !strings.Contains(op.Error.Detail, by) {
		s.Errorf("operation %s %s: %s; want it cancelled by %s", op.Kind, op.Status, describe(op.Error), by)
	}
}

// line waits for a line of the guest.
func (s *stopped) line(text string) {
	s.Helper()
	s.must(s.guest.WaitLine(s.ctx, s.on.Host, text))
}

// within wants an operation to end in that time.
func (s *stopped) within(d time.Duration, what string, do func()) {
	s.Helper()
	began := time.Now()
	do()
	if took := time.Since(began); took > d {
		s.Errorf("%s took %s; want it within %s", what, took.Round(time.Millisecond), d)
	}
}
