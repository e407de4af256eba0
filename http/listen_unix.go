package http

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeTimeout bounds the question whether something answers on a socket.
const probeTimeout = time.Second

// listenUnix listens on a socket file of mode 0660 and the given group, where
// that group exists.
func listenUnix(path, group string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// A socket is made with the mode of its descriptor (unix(7)), so nobody can
	// connect between bind and chmod.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, inner)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := share(path, group); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes a socket that a killed agent left behind. Whatever else
// lies there stays: a live socket, a file, or a socket that gives no clear answer.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something that is not a socket lies there; it is not replaced")
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(context.Background(), "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return errors.New("another agent answers there")
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("cannot tell whether another agent answers there: %w", err)
}

// share opens the socket to its group. The group comes first: the other way
// round the wrong group could connect for a moment.
func share(path, group string) error {
	g, err := user.LookupGroup(group)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
		return os.Chmod(path, 0o660)
	}
	if err != nil {
		return fmt.Errorf("look up group %q: %w", group, err)
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %q has the id %q", group, g.Gid)
	}
	if err := os.Chown(path, -1, id); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return os.Chmod(path, 0o660)
}
