package fault

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"syscall"
)

// classify makes a fault of an error that is none. The order matters: names
// and certificates arrive inside of network errors, and network errors carry
// the numbers that file errors carry too.
func classify(err error) *Fault {
	// The text of a URL error has the query in it, which may be a secret.
	if e, ok := errors.AsType[*url.Error](err); ok && e.Err != nil {
		f := Of(e.Err)
		return &Fault{Code: f.Code, Class: f.Class, Permanent: f.Permanent, Err: &worded{f.Error(), err}}
	}
	for _, judge := range []func(error) *Fault{cancelled, resolving, handshake, network, timeout, file, stream} {
		if f := judge(err); f != nil {
			return f
		}
	}
	return &Fault{Code: Internal, Class: Local, Err: err}
}

func cancelled(err error) *Fault {
	if errors.Is(err, context.Canceled) {
		return because(Interrupted, err, "interrupted")
	}
	return nil
}

func resolving(err error) *Fault {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case !ok:
		return nil
	case e.IsNotFound:
		return because(Unresolvable, err, "cannot resolve %q: no such host", e.Name)
	case e.IsTimeout && e.Server != "":
		return because(Unresolvable, err, "cannot resolve %q: no answer from the name server %s", e.Name, e.Server)
	case e.Server != "":
		return because(Unresolvable, err, "cannot resolve %q: %s (name server %s)", e.Name, e.Err, e.Server)
	}
	return because(Unresolvable, err, "cannot resolve %q: %s", e.Name, e.Err)
}

// network judges what a connection says.
func network(err error) *Fault {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return numbered(err, "the server")
	}
	who := "the server"
	if op.Addr != nil {
		who = op.Addr.String()
	}
	if op.Op == "proxyconnect" {
		who = "the proxy"
		// The error of the dial within has the proxy's address.
		if inner, ok := errors.AsType[*net.OpError](op.Err); ok && inner.Addr != nil {
			who += " " + inner.Addr.String()
		}
	}
	if f := numbered(err, who); f != nil {
		return f
	}
	if errno, ok := errors.AsType[syscall.Errno](op.Err); ok {
		return dialRefused(err, errno, who)
	}
	switch {
	case op.Timeout() && (op.Op == "dial" || op.Op == "proxyconnect"):
		return because(Unreachable, err, "no connection to %s in time", who)
	case op.Timeout():
		return because(Idle, err, "no data from %s in time", who)
	case op.Op == "dial":
		return because(Unreachable, err, "cannot connect to %s: %v", who, op.Err)
	}
	return because(ConnectionLost, err, "connection to %s lost: %v", who, op.Err)
}

// numbered knows the error numbers that only a network has.
func numbered(err error, who string) *Fault {
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.ECONNREFUSED:
		return because(ConnectionRefused, err, "connection refused by %s", who)
	case syscall.EHOSTUNREACH:
		return because(Unreachable, err, "no route to %s: host is unreachable", who)
	case syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT:
		return because(Unreachable, err, "no route to %s: %v", who, errno)
	case syscall.EHOSTDOWN, syscall.ENONET:
		return because(Unreachable, err, "%s is unreachable: %v", who, errno)
	case syscall.ETIMEDOUT:
		return because(Unreachable, err, "no answer from %s: connection timed out", who)
	case syscall.ECONNRESET:
		return because(ConnectionLost, err, "connection reset by %s", who)
	case syscall.ECONNABORTED, syscall.EPIPE, syscall.ENETRESET, syscall.ENOTCONN, syscall.ESHUTDOWN:
		return because(ConnectionLost, err, "connection to %s lost: %v", who, errno)
	}
	return nil
}

// dialRefused judges a number that is not of the network alone: from a
// connection, "not permitted" is a packet filter's word and no file's.
func dialRefused(err error, errno syscall.Errno, who string) *Fault {
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS:
		return because(Internal, err, "this host is out of resources for a connection to %s: %v", who, errno)
	case syscall.EACCES, syscall.EPERM:
		return because(Unreachable, err, "connection to %s: %v (a packet filter?)", who, errno)
	}
	return because(Unreachable, err, "connection to %s: %v", who, errno)
}

// timeout judges what is late without saying where.
func timeout(err error) *Fault {
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return because(Interrupted, err, "interrupted: it took longer than is allowed")
	case errors.As(err, &late) && late.Timeout() && !fileError(err):
		return because(Idle, err, "no data from the server in time")
	}
	return nil
}

func fileError(err error) bool {
	_, isPath := errors.AsType[*fs.PathError](err)
	return isPath
}

// file judges the errors of this host's disks. The text of a path error names
// the path already.
func file(err error) *Fault {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return nil
	}
	code := IO
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT:
		code = NoSpace
	case syscall.EROFS:
		code = ReadOnly
	case syscall.EPERM, syscall.EACCES:
		code = NotPermitted
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINVAL, syscall.EFAULT, syscall.EBADF:
		code = Internal
	}
	// A rename that failed for want of room or rights says that already.
	if link, ok := errors.AsType[*os.LinkError](err); ok && link.Op == "rename" && (code == IO || code == NotPermitted) {
		code = Rename
	}
	return because(code, err, "%s", fileWords(err, errno))
}

func fileWords(err error, errno syscall.Errno) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Op + " " + e.Path + ": " + errno.Error()
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Op + " " + e.Old + " to " + e.New + ": " + errno.Error()
	}
	return err.Error()
}

func stream(err error) *Fault {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return because(Truncated, err, "the content ended early")
	case errors.Is(err, io.EOF):
		return because(ConnectionLost, err, "the server closed the connection without an answer")
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return because(ConnectionLost, err, "connection closed")
	}
	return nil
}
