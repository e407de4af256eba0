//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// shuttle is an instance with a record that is moved to and fro, without a boot
// in between, while something is killed.
type shuttle struct {
	*world
	name string
	from *side // of the last migration
	on   *side // where it runs
	ok   *bool // it is where the last case should have left it
}

// leases is the agents' setting: a destination that its source could not tell to
// take back what it made does so this much later.
const leases = "WHERRY_MIGRATION_LEASE=10s"

// toCross makes the instance through the agent of host a, and starts it.
func (w *world) toCross(name string) *shuttle {
	w.Helper()
	for _, s := range w.sides() {
		w.agentWith(s, leases)
	}
	c := &shuttle{world: w, name: w.unique(name), ok: new(bool)}
	c.create()
	return c
}

func (c *shuttle) create() {
	c.Helper()
	c.on = c.a
	d := harness.Domain{Name: c.name, MemoryMiB: 96, Options: "wherry.pace=50ms",
		Disks: []harness.Disk{{Target: "vda", Source: c.loaded(c.on, c.name+".qcow2", mib)}}}
	c.must(c.lab.Guest(c.name).Forget(c.ctx))
	op, err := c.on.api.Create(c.ctx, api.DefaultProject, api.CreateRequest{Name: c.name, DomainXML: d.XML(), Start: true}, "")
	c.run(c.on, op, err)
	c.must(c.lab.Guest(c.name).WaitBlock(c.ctx, c.on.Host, "vda", 3))
	*c.ok = true
}

// within is the shuttle as one case sees it: after a case that failed it begins
// with another instance.
func (c *shuttle) within(t *testing.T) *shuttle {
	t.Helper()
	w := *c.world
	w.TB = t
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	w.ctx = ctx // its own: a slow case is not to fail the next
	in := *c
	in.world = &w
	if !*c.ok {
		for _, s := range w.sides() {
			w.must(errors.Join(s.Libvirtd(w.ctx, "start"), s.Agent(w.ctx, "start", leases), s.empty(w.ctx)))
		}
		w.doubtless()
		in.create()
	}
	*c.ok = false
	t.Cleanup(func() {
		*c.ok = !t.Failed()
		c.on = in.on
		if t.Failed() {
			w.logs()
		}
	})
	in.from = in.on
	return &in
}

// victim is an agent, or a libvirtd.
type victim struct {
	on      *side
	libvirt bool
}

func (v victim) control(ctx context.Context, command string) error {
	switch {
	case v.libvirt:
		return v.on.Libvirtd(ctx, command)
	case command == "start":
		return v.on.Agent(ctx, command, leases)
	}
	return v.on.Agent(ctx, command)
}

// aim finds the victim's process by its socket, and gives what kills it as fast
// as can be.
func (v victim) aim() (strike func() error, err error) {
	socket := v.on.Socket()
	if v.libvirt {
		socket = filepath.Join(v.on.Root(), "/run/libvirt/libvirt-sock")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return func() error { return nil }, nil // not of this machine: it is killed a moment later
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	if asked := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || asked != nil {
		return nil, errors.Join(err, asked)
	}
	return func() error { return syscall.Kill(int(peer.Pid), syscall.SIGKILL) }, nil
}

// each does something to all victims at the same time.
func (c *shuttle) each(victims []victim, do func(victim) error) {
	c.Helper()
	errs := make([]error, len(victims))
	var all sync.WaitGroup
	for i, v := range victims {
		all.Go(func() { errs[i] = do(v) })
	}
	all.Wait()
	c.must(errors.Join(errs...))
}

// struck asks for a migration, kills the victims the moment that the step is
// journalled, starts them again, and gives how the migration ended.
func (c *shuttle) struck(step string, victims []victim) api.Operation {
	c.Helper()
	var strikes []func() error
	for _, v := range victims {
		strike, err := v.aim()
		c.must(err)
		strikes = append(strikes, strike)
	}
	asking, forget := context.WithCancel(c.ctx)
	defer forget()
	answered := make(chan struct{})
	id := c.journals(step, func() {
		defer close(answered)
		_, _ = c.from.api.Migrate(asking, ref(c.name), api.MigrateRequest{Destination: c.other(c.from).URL()}, "")
	}, func() error {
		var errs []error
		for _, strike := range strikes {
			errs = append(errs, strike())
		}
		return errors.Join(errs...)
	})
	c.each(victims, func(v victim) error { return v.control(c.ctx, "kill") }) // which waits for its end
	for _, v := range victims {
		if v == (victim{on: c.from}) {
			forget() // before it is back: it must not be asked again
			<-answered
		}
	}
	c.each(victims, func(v victim) error { return v.control(c.ctx, "start") })
	return c.wait(c.from, id)
}

// stepTime bounds what a migration of the shuttle takes to come to a step.
const stepTime = 40 * time.Second

// journals follows a migration that ask asks for until it has journalled the
// step, does what is to be done right then, and gives the migration's id.
func (c *shuttle) journals(step string, ask func(), then func() error) (id string) {
	c.Helper()
	c.follow(ask, func(op *api.Operation, detail string) (bool, error) {
		id = op.ID
		switch {
		case detail == step:
			return true, then()
		case op.Ended():
			return true, fmt.Errorf("the migration ended as %s before %q was journalled: %s", op.Status, step, describe(op.Error))
		}
		return false, nil
	})
	return id
}

// follow hands over what a migration that ask asks for journals, until that is
// enough.
func (c *shuttle) follow(ask func(), each func(op *api.Operation, detail string) (enough bool, err error)) {
	c.Helper()
	earlier := map[string]bool{}
	all, err := c.from.api.Operations(c.ctx, client.OperationFilter{Instance: c.name})
	c.must(err)
	for _, op := range all {
		earlier[op.ID] = true
	}
	ctx, cancel := context.WithTimeout(c.ctx, stepTime)
	defer cancel()
	enough := errors.New("enough")
	go ask() // whatever comes before the stream is there is replayed
	err = c.from.api.Events(ctx, 0, func(e api.Event) error {
		op := e.Operation
		if op == nil || op.Kind != "migrate" || op.Instance != c.name || earlier[op.ID] || e.Detail == "progress" {
			return nil
		}
		switch over, err := each(op, e.Detail); {
		case err != nil:
			return err
		case over:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		c.Fatalf("following a migration: %v", err)
	}
}

// crosses moves the instance with nothing in its way, and gives what was journalled.
func (c *shuttle) crosses() (steps []string) {
	c.Helper()
	c.from = c.on
	var id string
	c.follow(func() {
		_, _ = c.from.api.Migrate(c.ctx, ref(c.name), api.MigrateRequest{Destination: c.other(c.from).URL()}, "")
	}, func(op *api.Operation, detail string) (bool, error) {
		id = op.ID
		steps = append(steps, detail)
		return op.Ended(), nil
	})
	if op := c.wait(c.from, id); op.Status != api.StatusSucceeded || !c.judge(op) {
		c.Errorf("asked once more it ended as %s: %s", op.Status, describe(op.Error))
	}
	return steps
}

// holdsScript prints all that a host has of an instance, in one command: each
// costs as much as what it does.
const holdsScript = `
if virsh -q list --all --name | grep -Fqx "$0"; then
	echo "state $(virsh -q domstate "$0")"
	ask() { virsh qemu-monitor-command "$name" "{\"execute\":\"$1\"}"; }
	name=$0
	jobs=$(virsh domjobinfo "$0"; ask query-block-jobs)
	case $jobs in *None*'"return":[]'*) echo 'copies none' ;; *) echo "copies $jobs" ;; esac
	nbd=$(ask query-named-block-nodes | grep -oE '"driver": ?"nbd"'; ask query-block-exports | grep -v '"return":\[\]')
	echo "nbd ${nbd:-none}"
else
	echo 'state none'
fi
find /var/lib/libvirt/images /srv/second /var/lib/wherry/records \( -name "*$0*" -o -name '.wherry-*' \) ! -name .wherry-lock | sort`

// holds wants the host to have exactly that of the instance.
func (c *shuttle) holds(on *side, want ...string) {
	c.Helper()
	out, err := on.Exec(c.ctx, "sh", "-c", holdsScript, c.name)
	if got := strings.Split(strings.TrimSpace(out), "\n"); err != nil || !slices.Equal(got, want) {
		c.Errorf("host %s holds %q (%v); want %q", on.Name, got, err, want)
	}
}

// judge looks from outside at what has come of a migration: the instance has
// moved, or stayed, with every byte of it and nothing left on the other host, and
// the operation says so. It gives which.
func (c *shuttle) judge(op api.Operation) (moved bool) {
	c.Helper()
	to := c.other(c.from)
	switch op.Status {
	case api.StatusSucceeded:
		c.on = to
		var result api.MigrateResult
		c.must(json.Unmarshal(op.Result, &result))
		if len(result.Warnings) > 0 {
			c.Errorf("warnings %q", result.Warnings)
		}
		if in, err := to.api.Incoming(c.ctx, op.ID); err != nil || in.State != "committed" {
			c.Errorf("reservation %+v, %v; want it committed", in, err)
		}
	case api.StatusFailed:
		if p := op.Error; p == nil || p.Code == "internal" || p.Phase == "" && p.Code != "interrupted" || p.Detail == "" || p.Hint == "" {
			c.Errorf("problem %s; want to be told what happened, when and what to do", describe(p))
		}
		c.takenBack(to, op.ID)
	default:
		c.Fatalf("it ended as %s: %s", op.Status, describe(op.Error))
	}
	c.holds(c.on, "state running", "copies none", "nbd none", "/var/lib/libvirt/images/"+c.name+".qcow2", "/var/lib/wherry/records/default/"+c.name+".yaml")
	c.holds(c.other(c.on), "state none")
	guest := c.lab.Guest(c.name)
	c.must(guest.WaitMore(c.ctx, c.on.Host, "vda", 1))
	_, err := guest.Verify(c.ctx, c.on.Host)
	c.must(err)
	if boots, err := guest.Boots(c.ctx); err != nil || len(boots) != 1 {
		c.Errorf("boots %q, %v; want one", boots, err)
	}
	for _, s := range c.sides() {
		inst, err := s.api.Instance(c.ctx, ref(c.name))
		switch {
		case s == c.on && (err != nil || inst.Operation != "" || inst.Lock != nil):
			c.Errorf("host %s says %+v, %v; want it held by nobody", s.Name, inst, err)
		case s != c.on && api.CodeOf(err) != "not-found":
			c.Errorf("host %s says %+v, %v; want it not to know it", s.Name, inst, err)
		}
	}
	return op.Status == api.StatusSucceeded
}
