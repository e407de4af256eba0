package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limits of a child. They are wide for what qemu-img needs to open the largest
// image that our own reader lets through, and narrow for the host.
type limits struct {
	memory    uint64        // of address space, bytes
	cpu       uint64        // seconds of processor time
	files     uint64        // descriptors
	processes uint64        // of its user; threads count
	output    int           // bytes kept of its standard output
	reads     int64         // bytes of the image
	grace     time.Duration // for its pipes to close once it is gone
}

var defaultLimits = limits{
	memory: 1 << 30, cpu: 10, files: 64, processes: 256, output: 1 << 20, reads: 128 << 20, grace: 2 * time.Second,
}

const maxStderr = 4 << 10

// socketFD is where a child finds its end of the connection: the first of
// [exec.Cmd.ExtraFiles].
const socketFD = 3

// outcome is how a child ended.
type outcome struct {
	stdout, stderr []byte
	overflow       bool  // it wrote more than is kept
	ended          error // of its context: nil if it ended by itself
	wait           error // as of [exec.Cmd.Wait]
	cpu            time.Duration
	opened         bool  // it asked for the image
	served         error // as of export.serve
}

// run starts a program that may read an image from its descriptor socketFD,
// and waits until it and all that it started are gone. The error is about
// starting it; everything else is in the outcome. program is a whole path.
func run(ctx context.Context, l limits, e *export, program string, args ...string) (outcome, error) {
	cred, err := unprivileged()
	if err != nil {
		return outcome{}, err
	}
	args, err = confined(l, cred != nil, append([]string{program}, args...))
	if err != nil {
		return outcome{}, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return outcome{}, err
	}
	defer func() { _ = ours.Close() }() // a second time does nothing
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stdout, stderr := &head{limit: l.output, strict: true}, &head{limit: maxStderr}
	cmd := command(ctx, cred, l, theirs, args)
	cmd.Stdout, cmd.Stderr = stdout, stderr

	// Whatever this process was given, or a library opened without O_CLOEXEC, is
	// none of the child's business.
	_ = unix.CloseRange(socketFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) // old kernels cannot

	// The death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return outcome{}, fmt.Errorf("start %s: %w", program, err)
	}
	served := make(chan error, 1)
	go func() {
		err := e.serve(ours)
		if errors.Is(err, errGreedy) || errors.Is(err, errProtocol) || errors.Is(err, errUnreadable) {
			stop(err) // nothing that it does from now on is of interest
		}
		_ = ours.Close()
		served <- err
	}()
	reap(cmd.Process.Pid)
	err = cmd.Wait()
	_ = ours.Close()
	out := outcome{stdout: stdout.buf.Bytes(), stderr: stderr.buf.Bytes(), overflow: stdout.over,
		wait: err, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), served: <-served}
	out.opened = e.opened
	if err != nil && ctx.Err() != nil {
		out.ended = context.Cause(ctx)
	}
	return out, nil
}

// command makes a child of its own group, and of root also of its own
// namespaces: it sees no network, and when it dies the kernel kills whatever it
// started, even what left the group.
func command(ctx context.Context, cred *syscall.Credential, l limits, socket *os.File, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{} // nil would be ours
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{socket}
	cmd.WaitDelay = l.grace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: cred}
	if cred != nil {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// confined prefixes a command with what limits it, from util-linux: nobody but
// the process itself, or who may exceed all limits, may limit one of another
// user. It never gains a privilege again, not by a set-user-ID program either.
func confined(l limits, ownUser bool, args []string) ([]string, error) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		return nil, err
	}
	prlimit, err := exec.LookPath("prlimit")
	if err != nil {
		return nil, err
	}
	out := []string{
		setpriv, "--no-new-privs", "--", prlimit, "--core=0", "--fsize=0",
		fmt.Sprintf("--as=%d", l.memory), fmt.Sprintf("--cpu=%d", l.cpu), fmt.Sprintf("--nofile=%d", l.files),
	}
	if ownUser {
		// It counts all that the user runs, which says nothing about a person.
		out = append(out, fmt.Sprintf("--nproc=%d", l.processes))
	}
	return append(append(out, "--"), args...), nil
}

// reap waits for the child's end and then kills what is left of its group. The
// child is a zombie meanwhile, so that its number cannot be somebody else's.
func reap(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // nobody may be left
}

func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "image")
	defer file.Close()
	theirs = os.NewFile(uintptr(fds[1]), "image")
	if ours, err = net.FileConn(file); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// head keeps the first limit bytes. A strict one takes no more: os/exec then
// closes the pipe, and who goes on talking ends. Else the rest is swallowed.
type head struct {
	buf    bytes.Buffer
	limit  int
	strict bool
	over   bool
}

func (h *head) Write(p []byte) (int, error) {
	room := h.limit - h.buf.Len()
	h.over = h.over || len(p) > room
	h.buf.Write(p[:min(len(p), room)])
	if h.over && h.strict {
		return 0, errTalk
	}
	return len(p), nil
}

var errTalk = errors.New("too much output")
