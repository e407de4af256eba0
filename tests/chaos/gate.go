package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

const (
	// finish is libvirt's call that tells the destination that everything has moved and that it may start the guest
	// (REMOTE_PROC_DOMAIN_MIGRATE_FINISH3_PARAMS of its remote protocol).
	finish = 306
	// headSize is that of what each packet begins with: length, program, version, procedure, type, serial, status.
	headSize = 28
	// packetSize bounds a finish call, which carries a cookie: a few thousand bytes.
	packetSize = 4 << 20
	// holdTime is how long a moment lasts at most: shorter than it takes anybody to believe that the peer is gone.
	holdTime = 6 * time.Second
)

// gate stands before a host's libvirt, where the other host's libvirt calls. It passes everything on, and makes the two
// moments of a handover last until what waits for them is done.
type gate struct {
	listener net.Listener
	dial     func() (net.Conn, error)
	mu       sync.Mutex
	handings []*handing
	ends     sync.WaitGroup
	open     map[io.Closer]bool
}

// handing is one handover that is waited for.
type handing struct {
	instance string
	moments  map[schedule.Moment]*pause
}

// pause is a moment of a handover, which nobody is past before it is let go.
type pause struct {
	reached, over chan struct{}
	reach, end    func()
	lost          bool // the connection ends here; written before over is closed
}

func newPause() *pause {
	p := &pause{reached: make(chan struct{}), over: make(chan struct{})}
	p.reach, p.end = sync.OnceFunc(func() { close(p.reached) }), sync.OnceFunc(func() { close(p.over) })
	return p
}

func (p *pause) has() bool {
	select {
	case <-p.reached:
		return true
	default:
		return false
	}
}

// hold is the moment itself. It returns an error where the connection is to end.
func (p *pause) hold() error {
	if p == nil {
		return nil
	}
	p.reach()
	late := time.NewTimer(holdTime)
	defer late.Stop()
	select {
	case <-p.over:
		if p.lost {
			return errors.New("lost")
		}
	case <-late.C:
	}
	return nil
}

// newGate serves until it is closed.
func newGate(listener net.Listener, dial func() (net.Conn, error)) *gate {
	g := &gate{listener: listener, dial: dial, open: map[io.Closer]bool{listener: true}}
	g.ends.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			g.ends.Go(func() { g.serve(from) })
		}
	})
	return g
}

// port is where it listens.
func (g *gate) port() string {
	_, port, _ := net.SplitHostPort(g.listener.Addr().String())
	return port
}

func (g *gate) close() {
	g.mu.Lock()
	for _, h := range g.handings {
		for _, p := range h.moments {
			p.end()
		}
	}
	for c := range g.open {
		_ = c.Close() // the lab is given up
	}
	g.open = nil
	g.mu.Unlock()
	g.ends.Wait()
}

// keep remembers a connection, to end it with the gate.
func (g *gate) keep(c net.Conn, err error) bool {
	if err != nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		_ = c.Close()
		return false
	}
	g.open[c] = true
	return true
}

func (g *gate) serve(from net.Conn) {
	if !g.keep(from, nil) {
		return
	}
	to, err := g.dial()
	if !g.keep(to, err) {
		_ = from.Close() // nobody is at home
		return
	}
	var both sync.Once
	end := func() {
		both.Do(func() {
			_, _ = from.Close(), to.Close()
			g.mu.Lock()
			delete(g.open, from)
			delete(g.open, to)
			g.mu.Unlock()
		})
	}
	w := &wire{gate: g, calls: map[uint32]*handing{}}
	g.ends.Go(func() { defer end(); _ = w.pass(to, from, w.called) })
	_ = w.pass(from, to, w.answered)
	end()
}

// expect makes the gate watch for the handover of an instance, and wait at those moments of it.
func (g *gate) expect(instance string, moments ...schedule.Moment) *handing {
	h := &handing{instance: instance, moments: map[schedule.Moment]*pause{}}
	for _, m := range moments {
		h.moments[m] = newPause()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handings = append(g.handings, h)
	return h
}

// take gives the first handover that is waited for and whose instance the call is about, at most once.
func (g *gate) take(packet []byte) *handing {
	g.mu.Lock()
	defer g.mu.Unlock()
	for n, h := range g.handings {
		if bytes.Contains(packet, []byte(h.instance)) {
			g.handings = append(g.handings[:n:n], g.handings[n+1:]...)
			return h
		}
	}
	return nil
}

// wire is one connection through the gate.
type wire struct {
	gate  *gate
	mu    sync.Mutex
	calls map[uint32]*handing // by the call's serial
}

// pass hands packets on, those about a handover past see.
func (w *wire) pass(to io.Writer, from io.Reader, see func(serial uint32, packet []byte) error) error {
	for {
		var head [headSize]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[:4])) - headSize
		if size < 0 {
			return fmt.Errorf("a packet of %d bytes", size+headSize)
		}
		if binary.BigEndian.Uint32(head[12:16]) != finish || size > packetSize {
			if _, err := to.Write(head[:]); err != nil {
				return err
			}
			if _, err := io.CopyN(to, from, size); err != nil {
				return err
			}
			continue
		}
		packet := append(head[:], make([]byte, size)...)
		if _, err := io.ReadFull(from, packet[headSize:]); err != nil {
			return err
		}
		if err := see(binary.BigEndian.Uint32(head[20:24]), packet); err != nil {
			return err
		}
		if _, err := to.Write(packet); err != nil {
			return err
		}
	}
}

func (w *wire) called(serial uint32, packet []byte) error {
	h := w.gate.take(packet)
	if h == nil {
		return nil
	}
	w.mu.Lock()
	w.calls[serial] = h
	w.mu.Unlock()
	return h.moments[schedule.Handover].hold()
}

func (w *wire) answered(serial uint32, _ []byte) error {
	w.mu.Lock()
	h := w.calls[serial]
	w.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.moments[schedule.Started].hold()
}
