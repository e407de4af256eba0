//go:build lab

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// finish is libvirt's call that starts the instance at the destination
// (REMOTE_PROC_DOMAIN_MIGRATE_FINISH3_PARAMS of its remote protocol).
const finish = 306

// libvirtWithout stands before a host's libvirt and hangs up on whoever makes
// that call, as soon as it is on its way: it is carried out and nobody hears of
// it. Right before it is passed on, before is done. It gives the port.
func (w *world) libvirtWithout(on *side, procedure uint32, before func(), hung *atomic.Bool) string {
	w.Helper()
	listener, err := on.Listen("tcp", ":0")
	w.must(err)
	w.Cleanup(func() { listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := on.Dial("tcp", "127.0.0.1:16509")
			if err != nil {
				from.Close()
				continue
			}
			go func() { _, _ = io.Copy(from, to); from.Close() }()
			go func() {
				defer from.Close()
				silenced := func() {
					before()
					_ = from.SetWriteDeadline(time.Unix(1, 0)) // the answer may be quicker than the end of this connection
				}
				if forward(to, from, procedure, silenced) == nil {
					hung.Store(true)
				}
				// What was called goes on; the end of the connection would end it.
			}()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	w.must(err)
	return port
}

// forward passes libvirt's packets on (length, program, version, procedure, ...)
// and returns nil once the call has been passed.
func forward(to io.Writer, from io.Reader, procedure uint32, before func()) error {
	for {
		var head [16]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return err
		}
		rest := make([]byte, int(binary.BigEndian.Uint32(head[:4]))-len(head))
		if _, err := io.ReadFull(from, rest); err != nil {
			return err
		}
		called := binary.BigEndian.Uint32(head[12:]) == procedure
		if called {
			before()
		}
		if _, err := to.Write(append(head[:], rest...)); err != nil {
			return err
		}
		if called {
			return nil
		}
	}
}

// Libvirt hands the guest over, the destination starts it, and the answer is
// lost. Libvirt would start it again at the source: two copies, each writing to
// disks of its own. It cannot, since the agent holds the disks that were handed
// over; the agents find out where the guest runs, and nobody has to be asked.
func TestAnswerLostAtTheSwitchover(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	var hung atomic.Bool
	w.agentWith(w.b, fmt.Sprintf("WHERRY_MIGRATION_LIBVIRT_URI=qemu+tcp://wherry-b:%s/system", w.libvirtWithout(w.b, finish, func() {}, &hung)))
	id := w.begun(w.a, name, api.MigrateRequest{})
	result := w.moved(name, w.a, id)
	if !hung.Load() {
		t.Fatal("libvirt never made the call that starts the instance")
	}
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "it runs at the destination") {
		t.Errorf("warnings %q; want to be told that libvirt reported a failure", result.Warnings)
	}
	w.noneTwice(name)
}

// The same, and the source's agent is dead just then, for as long as it takes
// libvirt to give up: nobody starts the copy there, and the agent that comes back
// finishes the migration.
func TestAnswerLostWhileTheAgentIsDead(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	w.cleanup("starting the agent", func(ctx context.Context) error { return w.a.Agent(ctx, "start") })
	killed := make(chan error, 1)
	var hung atomic.Bool
	port := w.libvirtWithout(w.b, finish, func() { killed <- w.a.KillAgent(w.ctx) }, &hung)
	w.agentWith(w.b, fmt.Sprintf("WHERRY_MIGRATION_LIBVIRT_URI=qemu+tcp://wherry-b:%s/system", port))
	id := w.begun(w.a, name, api.MigrateRequest{})
	select {
	case err := <-killed:
		w.must(err)
	case <-w.ctx.Done():
		t.Fatal("libvirt never made the call that starts the instance")
	}
	w.must(harness.Until(w.ctx, "libvirt to have failed to start the source's copy", func(ctx context.Context) error {
		state, err := w.a.Virsh(ctx, "domstate", "--reason", name)
		if err == nil && state != "paused (api error)" {
			err = fmt.Errorf("it is %q", state)
		}
		return err
	}))
	w.must(w.a.Agent(w.ctx, "start"))
	w.moved(name, w.a, id)
	w.noneTwice(name)
	if out, err := w.a.Exec(w.ctx, "sh", "-c", "pgrep -a wherry | grep ' guard ' || true"); err != nil || out != "" {
		t.Errorf("of what kept it from starting there is left %q (%v)", out, err)
	}
}

// noneTwice wants that no block was written by both copies.
func (w *world) noneTwice(name string) {
	w.Helper()
	guest := w.lab.Guest(name)
	here, err := guest.Console(w.ctx, w.a.Host)
	w.must(err)
	there, err := guest.Console(w.ctx, w.b.Host)
	w.must(err)
	for _, n := range here.Blocks("vda") {
		if slices.Contains(there.Blocks("vda"), n) {
			w.Errorf("block %d was written by both copies", n)
		}
	}
}
