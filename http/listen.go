package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/wherry-kvm/wherry/http/certs"
)

// Listeners says where to listen. An empty address is not listened on.
type Listeners struct {
	// Socket is the path of the Unix socket, Group its group where that group
	// exists. Default of Group: "wherry".
	Socket string
	Group  string
	// Address is host:port for TCP. With all three files clients must show a
	// certificate; anything less is for loopback, or for Insecure.
	Address  string
	Files    certs.Files
	Insecure bool
	// Probes is host:port for /metrics, /livez and /readyz in plain text.
	Probes string
}

// kind says how a listener knows its callers.
type kind int

const (
	kindLocal  kind = iota // the socket, or a listener that asks for no certificate
	kindMutual             // TLS with client certificates
	kindProbes             // metrics and probes only
)

type kindKey struct{}

type listener struct {
	net.Listener
	kind kind
}

// Listen opens all listeners, or none.
func (s *Server) Listen(l Listeners) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if l.Socket != "" {
		group := l.Group
		if group == "" {
			group = "wherry"
		}
		sock, err := listenUnix(l.Socket, group)
		if err != nil {
			return fmt.Errorf("listen on socket %q: %w", l.Socket, err)
		}
		s.listeners = append(s.listeners, listener{sock, kindLocal})
	}
	if l.Address != "" {
		tcp, err := s.listenTCP(l)
		if err != nil {
			return fmt.Errorf("listen on %q: %w", l.Address, err)
		}
		s.listeners = append(s.listeners, tcp)
	}
	if l.Probes != "" {
		tcp, err := new(net.ListenConfig).Listen(context.Background(), "tcp", l.Probes)
		if err != nil {
			return fmt.Errorf("listen for metrics on %q: %w", l.Probes, err)
		}
		s.listeners = append(s.listeners, listener{tcp, kindProbes})
	}
	return nil
}

// Addrs gives the addresses listened on, in the order of the fields of
// [Listeners]. A port 0 is given as the port that was chosen.
func (s *Server) Addrs() []net.Addr {
	out := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		out[i] = l.Addr()
	}
	return out
}

// Close closes what Listen opened and removes the socket file. Twice is no error.
func (s *Server) Close() error {
	s.drain()
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.listeners = nil
	return errors.Join(errs...)
}

func (s *Server) listenTCP(l Listeners) (listener, error) {
	address, err := net.ResolveTCPAddr("tcp", l.Address)
	if err != nil {
		return listener{}, err
	}
	if err := admit(address.IP, l.Files, l.Insecure); err != nil {
		return listener{}, err
	}
	var config *tls.Config
	if l.Files.Cert != "" {
		store, err := certs.Open(l.Files, s.log)
		if err != nil {
			return listener{}, err
		}
		config = store.Server()
	}
	tcp, err := net.ListenTCP("tcp", address)
	if err != nil {
		return listener{}, err
	}
	switch {
	case config == nil:
		return listener{tcp, kindLocal}, nil
	case l.Files.CA == "":
		return listener{tls.NewListener(cutListener{tcp}, config), kindLocal}, nil
	}
	return listener{tls.NewListener(cutListener{tcp}, config), kindMutual}, nil
}

// admit refuses a listener on which anybody who reaches it would be the
// administrator, unless only this host reaches it or the operator said so.
func admit(ip net.IP, f certs.Files, insecure bool) error {
	switch {
	case f.CA != "" && f.Cert != "" && f.Key != "":
		return nil
	case f.CA != "" && f.Cert == "":
		return errors.New("a CA is given but no certificate and key")
	case (f.Cert == "") != (f.Key == ""):
		return errors.New("a certificate and its key go together: one of them is missing")
	case ip.IsLoopback() || insecure:
		return nil
	}
	return errors.New("without CA, certificate and key everyone who reaches this address could do everything: " +
		"give all three, listen on loopback, or say \"insecure: true\"")
}
