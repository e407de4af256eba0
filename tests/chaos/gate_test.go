package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

// packet is one of libvirt's.
func packet(procedure, serial uint32, body string) []byte {
	out := make([]byte, headSize, headSize+len(body))
	binary.BigEndian.PutUint32(out, uint32(headSize+len(body)))
	binary.BigEndian.PutUint32(out[12:], procedure)
	binary.BigEndian.PutUint32(out[20:], serial)
	return append(out, body...)
}

// dialled are both ends of a connection through a gate.
func dialled(t *testing.T) (g *gate, caller, libvirt net.Conn) {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	behind := listen()
	t.Cleanup(func() { _ = behind.Close() })
	g = newGate(listen(), func() (net.Conn, error) { return net.Dial("tcp", behind.Addr().String()) })
	t.Cleanup(g.close)
	caller, err := net.Dial("tcp", "127.0.0.1:"+g.port())
	if err != nil {
		t.Fatal(err)
	}
	if libvirt, err = behind.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = caller.Close(), libvirt.Close() })
	return g, caller, libvirt
}

func send(t *testing.T, to net.Conn, packet []byte) {
	t.Helper()
	if _, err := to.Write(packet); err != nil {
		t.Fatal(err)
	}
}

func comes(t *testing.T, from net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// The handover of the instance that is waited for stands still at both moments, everything else passes.
func TestGateHoldsAHandover(t *testing.T) {
	g, caller, libvirt := dialled(t)
	h := g.expect("i1-s1", schedule.Handover, schedule.Started)
	for _, p := range [][]byte{packet(1, 1, "a call"), packet(finish, 2, "of another instance, i2-s1")} {
		send(t, caller, p)
		comes(t, libvirt, p)
	}
	call, answer, event := packet(finish, 3, "...i1-s1..."), packet(finish, 3, "done"), packet(7, 0, "an event")
	send(t, caller, call)
	<-h.moments[schedule.Handover].reached
	send(t, libvirt, event)
	comes(t, caller, event)
	if h.moments[schedule.Started].has() {
		t.Error("started, though the call has not passed")
	}
	h.moments[schedule.Handover].end()
	comes(t, libvirt, call)
	send(t, libvirt, answer)
	<-h.moments[schedule.Started].reached
	h.moments[schedule.Started].end()
	comes(t, caller, answer)
	// It is over: another handover of the same instance is no concern.
	send(t, caller, call)
	comes(t, libvirt, call)
}

func TestGateLosesAHandover(t *testing.T) {
	g, caller, libvirt := dialled(t)
	p := g.expect("i1-s1", schedule.Handover).moments[schedule.Handover]
	send(t, caller, packet(finish, 1, "i1-s1"))
	<-p.reached
	p.lost = true
	p.end()
	for who, conn := range map[string]net.Conn{"the caller": caller, "libvirt": libvirt} {
		if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%s reads %d bytes, %v; want the end", who, n, err)
		}
	}
}
