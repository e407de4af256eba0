package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// KillAgent ends the host's agent by SIGKILL, as soon as can be: its process is known from its socket, and no command of
// the host is needed. It returns when the agent is gone. One that does not run is no error.
func (h *Host) KillAgent(ctx context.Context) error {
	if pid, err := h.agentProcess(); err == nil {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("killing the agent of host %s, process %d: %w", h.Name, pid, err)
		}
	}
	// Where its socket is not seen from here, or nobody answers on it, this does all; else it waits for the end.
	return h.Agent(ctx, "kill")
}

// agentProcess is the agent's process id as this machine counts it.
func (h *Host) agentProcess() (int, error) {
	conn, err := net.Dial("unix", h.Socket())
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	asked := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(asked, err); err != nil {
		return 0, fmt.Errorf("who answers on %s: %w", h.Socket(), err)
	}
	return int(peer.Pid), nil
}
