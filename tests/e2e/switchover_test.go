//go:build lab

package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
)

// finish is libvirt's call that starts the instance at the destination
// (REMOTE_PROC_DOMAIN_MIGRATE_FINISH3_PARAMS of its remote protocol).
const finish = 306

// libvirtWithout stands before a host's libvirt and hangs up on whoever makes
// that call, as soon as it is on its way: it is carried out and nobody hears of
// it. It gives the port.
func (w *world) libvirtWithout(on *side, procedure uint32, hung *atomic.Bool) string {
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
				if forward(to, from, procedure) == nil {
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
func forward(to io.Writer, from io.Reader, procedure uint32) error {
	for {
		var head [16]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return err
		}
		rest := make([]byte, int(binary.BigEndian.Uint32(head[:4]))-len(head))
		if _, err := io.ReadFull(from, rest); err != nil {
			return err
		}
		if _, err := to.Write(append(head[:], rest...)); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(head[12:]) == procedure {
			return nil
		}
	}
}

// Libvirt hands the guest over, the destination starts it, and the answer is
// lost. Libvirt then starts it again at the source: two copies, each writing to
// disks of its own. One of them is stopped at once, the one that users reach
// runs on, and the choice is left to a person.
func TestAnswerLostAtTheSwitchover(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, mib)
	var hung atomic.Bool
	w.agentWith(w.b, fmt.Sprintf("WHERRY_MIGRATION_LIBVIRT_URI=qemu+tcp://wherry-b:%s/system", w.libvirtWithout(w.b, finish, &hung)))
	op := w.wait(w.a, w.begun(w.a, name, api.MigrateRequest{}))
	if !hung.Load() {
		t.Fatalf("libvirt never made the call that starts the instance; the operation ended as %s: %s", op.Status, describe(op.Error))
	}
	if op.Status != api.StatusNeedsDecision || op.Error.Code != "needs-decision" || op.Error.Phase != "perform" || !strings.Contains(op.Error.Detail, "it runs at the destination") || op.Error.Hint == "" {
		t.Errorf("the operation ended as %s: %s; want a decision to be needed, and the facts", op.Status, describe(op.Error))
	}
	for s, want := range map[*side]string{w.a: "paused", w.b: "running"} {
		if state, err := s.State(w.ctx, name); err != nil || state != want {
			t.Errorf("on host %s it is %q (%v); want %s", s.Name, state, err, want)
		}
		w.exists(s, name+".qcow2", true)
	}
	guest := w.lab.Guest(name)
	w.must(guest.WaitMore(w.ctx, w.b.Host, "vda", 3))
	if reports, err := guest.Verify(w.ctx, w.b.Host); err != nil {
		t.Errorf("%+v, %v", reports, err)
	}
}
