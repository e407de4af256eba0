//go:build lab

package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// narrow is one of the moments between the end of memory and the end of a migration.
type narrow string

const (
	beforeFinish narrow = "memory is done, and the call that starts the guest is on its way"
	beforeAnswer narrow = "the guest was started, and the answer is on its way"
	beforeCommit narrow = "libvirt is done, and the agent's word is on its way"
)

// strait is where everything between the hosts passes that a switchover consists
// of: it stands before the destination's libvirt and before its agent.
type strait struct {
	*world
	libvirt string // where the source's libvirt finds the destination's
	agent   string // and the source's agent the destination's
	mu      sync.Mutex
	held    *letter // what to hold next, or is held
	// confirmed counts the answers by which the destination has taken an instance.
	confirmed atomic.Int64
}

// letter is one message that is kept back.
type letter struct {
	at      narrow
	once    sync.Once
	reached chan struct{}
	gone    chan struct{} // closed: it may go on
}

// strait stands before a host's libvirt and agent.
func (w *world) strait(before *side) *strait {
	w.Helper()
	s := &strait{world: w}
	listener, err := before.Listen("tcp", ":0")
	w.must(err)
	w.Cleanup(func() { listener.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	w.must(err)
	s.libvirt = fmt.Sprintf("qemu+tcp://%s:%s/system", before.Hostname(), port)
	go func() {
		for {
			source, err := listener.Accept()
			if err != nil {
				return
			}
			destination, err := before.Dial("tcp", "127.0.0.1:16509")
			if err != nil {
				source.Close() // it is killed, and not back yet
				continue
			}
			go s.pass(destination, source, beforeFinish, 0)
			go s.pass(source, destination, beforeAnswer, 1)
		}
	}()
	s.agent = s.proxyTelling(before, s.commits, func(r *http.Response) {
		if r.StatusCode == http.StatusOK && strings.HasSuffix(r.Request.URL.Path, "/commit") {
			s.confirmed.Add(1)
		}
	})
	return s
}

// pass passes libvirt's packets on: length, program, version, procedure, type (0 is
// a call, 1 the answer). One that is held back holds back no other: those that
// keep the connection alive, above all. The end of one direction is that of both.
func (s *strait) pass(to, from net.Conn, at narrow, kind uint32) {
	defer to.Close()
	defer from.Close()
	var writing sync.Mutex
	write := func(packet []byte) error {
		writing.Lock()
		defer writing.Unlock()
		_, err := to.Write(packet)
		return err
	}
	for {
		var size [4]byte
		if _, err := io.ReadFull(from, size[:]); err != nil {
			return
		}
		packet := append(size[:], make([]byte, binary.BigEndian.Uint32(size[:])-4)...)
		if _, err := io.ReadFull(from, packet[4:]); err != nil {
			return
		}
		if binary.BigEndian.Uint32(packet[12:]) == finish && binary.BigEndian.Uint32(packet[16:]) == kind {
			if h := s.take(at); h != nil {
				go func() {
					<-h.gone
					_ = write(packet) // nobody may be left to hear it
				}()
				continue
			}
		}
		if write(packet) != nil {
			return
		}
	}
}

// commits holds the agent's word back. A source that gives up has not said it.
func (s *strait) commits(_ http.ResponseWriter, r *http.Request) (answered bool) {
	if !strings.HasSuffix(r.URL.Path, "/commit") {
		return false
	}
	if h := s.take(beforeCommit); h != nil {
		select {
		case <-h.gone:
		case <-r.Context().Done():
			return true
		}
	}
	return false
}

// hold has the next message at that moment kept back, until the test ends.
func (s *strait) hold(at narrow) *letter {
	h := &letter{at: at, reached: make(chan struct{}), gone: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = h
	return h
}

// take gives what is to be held at that moment, once.
func (s *strait) take(at narrow) *letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held
	if h == nil || h.at != at {
		return nil
	}
	s.held = nil
	close(h.reached)
	return h
}

// release lets the message go on; again is no harm.
func (h *letter) release() { h.once.Do(func() { close(h.gone) }) }

// killQEMU kills a host's QEMU of an instance, and waits until it is gone.
func (w *world) killQEMU(on *side, name string) {
	w.Helper()
	w.exec(on, "sh", "-c", `pid=$(cat "/run/libvirt/qemu/$0.pid") && kill -KILL "$pid" && while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done`, name)
}

// noQEMU wants none of the instance on that host.
func (w *world) noQEMU(on *side, name string) {
	w.Helper()
	if out, err := on.Exec(w.ctx, "pgrep", "-f", "qemu-system.*guest="+name+","); err == nil {
		w.Errorf("a QEMU of %q is on host %s: %s", name, on.Name, out)
	}
}
