//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// The agent stops all instances of its host and of no other: the highest
// priority first, each together. What ran is started again, the lowest first;
// what the operator had stopped is not.
func TestShutdownByPriorityAndStartAgain(t *testing.T) {
	w := begin(t)
	d := w.falls()
	high, high2 := d.guest("high", api.StopPolicy{Priority: 10}), d.guest("high2", api.StopPolicy{Priority: 10})
	low := d.guest("low", api.StopPolicy{Priority: -10})
	d.boot()
	off := w.toStop("off") // never started, which the record says as well
	stranger := harness.Domain{Name: w.unique("stranger"), MemoryMiB: 96, Disks: []harness.Disk{{Target: "vda", Source: w.loaded(w.a, "stranger.qcow2", mib)}}}
	w.foreign(w.a, stranger)
	elsewhere := w.unique("elsewhere")
	op, err := w.b.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: elsewhere, DomainXML: harness.Domain{Name: elsewhere, MemoryMiB: 96,
		Disks: []harness.Disk{{Target: "vda", Source: w.loaded(w.b, "elsewhere.qcow2", mib)}}}.XML()}, "")
	w.run(w.b, op, err)
	w.exec(w.b, "virsh", "-q", "start", "--paused", elsewhere) // nobody has to boot to be left alone
	there, offHere := w.recorded(w.b, elsewhere), w.recorded(w.a, off.name)

	events := w.heard(w.a)
	op, err = w.a.api.Shutdown(w.ctx, api.ShutdownRequest{Timeout: seconds(60)}, "")
	w.must(err)
	again, err := w.a.api.Shutdown(w.ctx, api.ShutdownRequest{}, "")
	if err != nil || again.ID != op.ID {
		t.Errorf("a second shutdown is %q, %v; want the first", again.ID, err)
	}
	if h, err := w.a.api.Host(w.ctx); err != nil || !h.Draining {
		t.Errorf("host %+v, %v; want it draining", h, err)
	}
	_, err = w.a.api.Start(w.ctx, ref(off.name), "")
	w.problem(err, "not-ready")
	var order []string
	for len(order) < 8 {
		w.event(events, "the end of an instance", func(e api.Event) bool {
			if what, ok := strings.CutPrefix(e.Detail, "host shutdown: "); ok && what != "waiting" {
				order = append(order, strings.Fields(what)[0]+" "+e.Instance)
				return true
			}
			return false
		})
	}
	at := func(what string) int {
		for i, o := range order {
			if o == what {
				return i
			}
		}
		t.Fatalf("events %q lack %q", order, what)
		return -1
	}
	if max(at("stopping "+high.name), at("stopping "+high2.name)) > min(at("stopped "+high.name), at("stopped "+high2.name)) {
		t.Errorf("events %q: those of one priority were not asked together", order)
	}
	if at("stopping "+stranger.Name) < max(at("stopped "+high.name), at("stopped "+high2.name)) || at("stopping "+low.name) < at("stopped "+stranger.Name) {
		t.Errorf("events %q; want the highest priority down first, then none, then the lowest", order)
	}
	w.run(w.a, op, nil)
	status, err := w.a.api.ShutdownStatus(w.ctx)
	w.must(err)
	d.asked(*status.Result, "agent")
	d.endedInOrder()
	if state, err := w.b.State(w.ctx, elsewhere); err != nil || state != "paused" {
		t.Errorf("an instance of the other host is %q (%v)", state, err)
	}
	if w.recorded(w.b, elsewhere) != there || w.recorded(w.a, off.name) != offHere {
		t.Error("the record of an instance that was not stopped has changed")
	}

	// The agent's next start. Targets are none that exist.
	for _, s := range d.all {
		s.untarget()
	}
	w.agentWith(w.a, "WHERRY_HOST_START_AGAIN=true")
	for _, name := range []string{low.name, stranger.Name, high.name, high2.name} {
		w.must(harness.Until(w.ctx, name+" to run again", func(ctx context.Context) error {
			state, err := w.a.State(ctx, name)
			if err == nil && state != "running" {
				err = fmt.Errorf("it is %s", state)
			}
			return err
		}))
	}
	if state, err := w.a.State(w.ctx, off.name); err != nil || state != "shut off" {
		t.Errorf("what the operator had stopped is %q (%v)", state, err)
	}
	ids := strings.Fields(w.exec(w.a, "virsh", "-q", "list", "--name")) // in the order of their starts
	if len(ids) != 4 || ids[0] != low.name || ids[1] != stranger.Name {
		t.Errorf("started in the order %q; want the lowest priority first", ids)
	}
	w.must(harness.Until(w.ctx, "the host to take instances again", func(ctx context.Context) error {
		h, err := w.a.api.Host(ctx)
		if err == nil && h.Draining {
			err = fmt.Errorf("it is draining")
		}
		return err
	}))
	// Another start of the agent starts nothing: the host was not down.
	for _, s := range d.all {
		w.exec(w.a, "virsh", "-q", "destroy", s.name)
	}
	w.must(w.a.Agent(w.ctx, "restart", "WHERRY_HOST_START_AGAIN=true"))
	op, err = w.a.api.Start(w.ctx, ref(off.name), "")
	w.run(w.a, op, err)
	if state, err := w.a.State(w.ctx, low.name); err != nil || state != "shut off" {
		t.Errorf("%s is %q (%v) after a restart of the agent; want it left alone", low.name, state, err)
	}
}

// Each thing that may be away while the host goes down: the guests are asked
// all the same, and what is owed to them is done as soon as it can be.
func TestShutdownOffline(t *testing.T) {
	for _, c := range []struct {
		name   string
		breaks func(d *downfall)
		by     string
		words  []string
		// recordless: nothing of the records is to be judged.
		recordless bool
	}{
		{name: "agent dead", by: "command", breaks: func(d *downfall) { d.must(d.on.Agent(d.ctx, "kill")) }},
		{name: "store missing", by: "command", breaks: func(d *downfall) {
			d.must(d.on.Agent(d.ctx, "kill"))
			d.exec(d.on, "rm", "/var/lib/wherry/wherry.db")
		}},
		{name: "store corrupt", by: "command", breaks: func(d *downfall) {
			d.must(d.on.Agent(d.ctx, "kill"))
			d.exec(d.on, "sh", "-c", "head -c 100000 /dev/urandom >/var/lib/wherry/wherry.db; touch /run/store-is-corrupt")
		}},
		{name: "store locked by an agent that hangs", by: "command", breaks: func(d *downfall) { d.exec(d.on, "sh", "-c", "kill -STOP $(cat /run/lab-agent.pid)") }},
		{name: "network down, peers and management away", by: "agent", breaks: func(d *downfall) { d.must(d.on.Link(d.ctx, false)) }},
		{name: "network down, agent dead", by: "command", breaks: func(d *downfall) {
			d.must(d.on.Agent(d.ctx, "kill"))
			d.must(d.on.Link(d.ctx, false))
			d.exec(d.on, "sh", "-c", "mv /etc/resolv.conf /run/ 2>/dev/null; true")
		}},
		{name: "records missing", by: "command", recordless: true, breaks: func(d *downfall) {
			d.must(d.on.Agent(d.ctx, "kill"))
			d.exec(d.on, "mv", "/var/lib/wherry/records", "/run/records")
		}},
		{name: "libvirtd restarted in the middle", by: "agent", breaks: func(d *downfall) {
			d.soon(1500*time.Millisecond, func(ctx context.Context) error { return d.on.Libvirtd(ctx, "restart") })
		}},
		{name: "libvirtd restarted in the middle, agent dead", by: "command", breaks: func(d *downfall) {
			d.must(d.on.Agent(d.ctx, "kill"))
			d.soon(1500*time.Millisecond, func(ctx context.Context) error { return d.on.Libvirtd(ctx, "restart") })
		}},
		{name: "libvirtd down, agent dead", by: "command", breaks: func(d *downfall) {
			d.must(d.on.Agent(d.ctx, "kill"))
			d.must(d.on.Libvirtd(d.ctx, "kill"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := begin(t)
			d := w.falls()
			// Slow enough for something to happen in the middle.
			d.guest("first", api.StopPolicy{Priority: 1}, options("wherry.slow=2s"))
			d.guest("second", api.StopPolicy{})
			d.boot()
			c.breaks(d)
			began := time.Now()
			r, said := d.command("--timeout", "60s")
			t.Logf("it took %s; said %q; warnings %q", time.Since(began).Round(100*time.Millisecond), said, r.Warnings)
			if !c.recordless && d.outcome(r, d.all[0]).Priority != 1 {
				t.Errorf("result %+v; want the priorities of the records", r)
			}
			d.asked(r, c.by)
			if c.recordless {
				d.exec(d.on, "sh", "-c", "rm -rf /var/lib/wherry/records && mv /run/records /var/lib/wherry/records")
			}
			d.restored()
			if !c.recordless {
				d.endedInOrder()
				return
			}
			for _, s := range d.all {
				d.inOrder(s)
			}
		})
	}
}

// The root disk's storage is let go of: nobody is logged in to the target any
// more. A record is not needed for that.
func TestShutdownReleasesTheRootDisk(t *testing.T) {
	w := begin(t)
	d := w.falls()
	_, url, _ := w.unit(w.b, 1, 2*imageSize)
	w.foreign(w.a, harness.Domain{Name: w.unique("vm"), MemoryMiB: 96, Disks: []harness.Disk{{Target: "vda", Source: url, Format: "raw"}}})
	sessions := func() string {
		return w.exec(w.b, "sh", "-c", "tgtadm --lld iscsi --op show --mode target | grep -c 'Initiator:'; true")
	}
	if got := strings.TrimSpace(sessions()); got == "0" {
		t.Fatal("nobody is logged in to the target while its disk is in use")
	}
	w.must(w.a.Agent(w.ctx, "kill"))
	r, _ := d.command("--timeout", "60s")
	if len(r.Instances) != 1 || r.Instances[0].Rung != api.RungACPI {
		t.Errorf("result %+v; want it asked", r)
	}
	if got := strings.TrimSpace(sessions()); got != "0" {
		t.Errorf("%s sessions are left", got)
	}
}

// A migration that is under way is given up on either side: the guest goes down
// with the host that it is on, and stays with the host that it was to leave.
func TestShutdownGivesMigrationsUp(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 24*mib)
	w.rate(w.a, slow)
	w.cleanup("bringing the other host up again", func(ctx context.Context) error {
		_, err := w.b.Exec(ctx, "sh", "-c", upAgainScript)
		return errors.Join(err, w.b.Agent(ctx, "restart"))
	})

	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	op, err := w.b.api.Shutdown(w.ctx, api.ShutdownRequest{Timeout: seconds(60)}, "")
	op = w.run(w.b, op, err)
	if !strings.Contains(string(op.Result), api.ShutdownReturned) {
		t.Errorf("result %s; want what was arriving given back", op.Result)
	}
	if op := w.wait(w.a, id); op.Status != api.StatusFailed {
		t.Errorf("the migration ended as %s: %s", op.Status, describe(op.Error))
	}
	w.stayed(name, w.a, id)
	op, err = w.a.api.Migrate(w.ctx, ref(name), api.MigrateRequest{Destination: w.b.URL()}, "")
	w.must(err)
	if op = w.wait(w.a, op.ID); op.Status != api.StatusFailed || op.Error == nil || op.Error.Code != "not-ready" {
		t.Errorf("a migration to a host that is draining ended as %s: %s; want it refused", op.Status, describe(op.Error))
	}
	_, err = w.b.Exec(w.ctx, "sh", "-c", upAgainScript)
	w.must(err)

	d := w.falls()
	id = w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	r, _ := d.command("--timeout", "90s")
	if len(r.Instances) != 1 || r.Instances[0].Outcome != api.ShutdownStopped || r.Instances[0].Rung != api.RungACPI {
		t.Errorf("result %+v; want it stopped here, by its guest", r)
	}
	if op := w.wait(w.a, id); op.Status != api.StatusCancelled {
		t.Errorf("the migration ended as %s: %s", op.Status, describe(op.Error))
	}
	if state, err := w.a.State(w.ctx, name); err != nil || state != "shut off" {
		t.Errorf("it is %q (%v)", state, err)
	}
	w.clean(name, w.b)
}
