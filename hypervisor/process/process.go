package process

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrGone says that a process has ended.
var ErrGone = errors.New("the process has ended")

// Process is a process that is pinned: its number cannot come to mean another
// one. Close it.
type Process struct {
	pid   int
	file  *os.File // the pidfd
	gone  chan struct{}
	ended sync.WaitGroup
}

// pin pins the process that has the number now; ErrGone when none has.
func pin(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	// Non-blocking, so that the runtime's poller waits for it and no thread does.
	p := &Process{pid: pid, file: os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid)), gone: make(chan struct{})}
	conn, err := p.file.SyscallConn()
	if err != nil {
		p.file.Close()
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	p.ended.Go(func() {
		// It returns early, and says nothing, where Close ends it.
		if conn.Read(hasEnded) == nil {
			close(p.gone)
		}
	})
	return p, nil
}

// hasEnded: a pidfd is readable once its process has ended (pidfd_open(2)).
func hasEnded(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1 && poll[0].Revents&unix.POLLIN != 0
	}
}

// PID gives the number, for people.
func (p *Process) PID() int { return p.pid }

// Gone is closed when the process has ended, and its files with it. After
// Close it stays as it is.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Ended asks now whether the process has ended.
func (p *Process) Ended() bool {
	ended := false
	err := p.control(func(fd uintptr) { ended = hasEnded(fd) })
	return err == nil && ended
}

// Signal sends a signal; ErrGone when the process has ended. SIGKILL works on
// a process that SIGSTOP stopped, SIGTERM waits there until SIGCONT.
func (p *Process) Signal(signal syscall.Signal) error {
	var sent error
	err := p.control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), signal, nil, 0) })
	if err = errors.Join(err, sent); errors.Is(err, unix.ESRCH) {
		err = ErrGone
	}
	if err != nil {
		return fmt.Errorf("signal %s to process %d: %w", unix.SignalName(signal), p.pid, err)
	}
	return nil
}

func (p *Process) control(do func(fd uintptr)) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(do)
}

// Close lets go of the process, and leaves it alone.
func (p *Process) Close() {
	p.file.Close()
	p.ended.Wait()
}
