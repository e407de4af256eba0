package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A socket's path may have 107 bytes, and a state folder's any: the folder is
// named by a descriptor.
func within(dir, name string, do func(short string) error) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(do(fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)), folder.Close())
}

// errTaken says that the operation has a guard already.
var errTaken = errors.New("another guard of this operation is there")

// listen makes the socket, which only this user may use. What an earlier guard
// has left there nobody answers on; where somebody does, errTaken.
func listen(dir, name string) (l *net.UnixListener, err error) {
	l, err = bind(dir, name)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askedWithin)
	defer cancel()
	if conn, err := dial(ctx, dir, name); err == nil {
		return nil, errors.Join(errTaken, conn.Close())
	}
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return bind(dir, name)
}

func bind(dir, name string) (l *net.UnixListener, err error) {
	err = within(dir, name, func(short string) error {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if l != nil {
		l.SetUnlinkOnClose(false) // by a path that is none any more
	}
	return l, err
}

func dial(ctx context.Context, dir, name string) (conn *net.UnixConn, err error) {
	err = within(dir, name, func(short string) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", short)
		if err == nil {
			conn = c.(*net.UnixConn)
		}
		return err
	})
	return conn, err
}

// peer gives the process at the other end.
func peer(c *net.UnixConn) (pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	asked := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(asked, err); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}
