package http

import "net"

// cutListener gives connections that stay silent once a write has failed. TLS
// closes with an alert even then, after half a record or with a record missing
// before it: the other side would report a forged message ("bad record MAC")
// where it was merely cut off, and could not tell the one from the other.
type cutListener struct{ net.Listener }

func (l cutListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: c}, nil
}

// cutConn is written to by one goroutine at a time, which TLS sees to.
type cutConn struct {
	net.Conn
	failed error // of the first write that failed
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.failed != nil {
		return 0, c.failed
	}
	n, err := c.Conn.Write(b)
	c.failed = err
	return n, err
}
