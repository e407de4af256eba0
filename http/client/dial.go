package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
)

// Stages of a call at which an agent may turn out to be unreachable.
const (
	StageDial     = "dial"     // nothing answers there
	StageTLS      = "tls"      // the certificates do not suit each other
	StageExchange = "exchange" // connected, but no whole answer came back
)

// Unreachable says that no answer came from an agent. After StageDial and
// StageTLS nothing was done there; after StageExchange the request may have
// been carried out.
type Unreachable struct {
	Address string // as given to New
	Stage   string
	Err     error
}

// Error gives the address, the stage in words and the cause.
func (e *Unreachable) Error() string {
	switch e.Stage {
	case StageDial:
		return fmt.Sprintf("agent %q cannot be reached: %v", e.Address, e.Err)
	case StageTLS:
		return fmt.Sprintf("no TLS with agent %q: %v", e.Address, e.Err)
	}
	return fmt.Sprintf("no answer from agent %q: %v", e.Address, e.Err)
}

// Unwrap gives the cause.
func (e *Unreachable) Unwrap() error { return e.Err }

// stageError carries the stage out of the transport's dialler.
type stageError struct {
	stage string
	err   error
}

func (e *stageError) Error() string { return e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTimeout}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, &stageError{StageDial, err}
	}
	return conn, nil
}

func dialTLS(ctx context.Context, network, address string, config *tls.Config) (net.Conn, error) {
	raw, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, &stageError{StageTLS, errors.Join(err, raw.Close())}
	}
	return conn, nil
}

// unreachable words a failure of the transport. With TLS 1.3 a server refuses
// a client's certificate after the client's handshake is over, so that refusal
// comes with the first read.
func (c *Client) unreachable(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // its own text repeats method and URL
	}
	stage := StageExchange
	if e, ok := errors.AsType[*stageError](err); ok {
		stage, err = e.stage, e.err
	} else if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // crypto/tls names an alert so
		stage = StageTLS
	}
	return &Unreachable{Address: c.address, Stage: stage, Err: err}
}
