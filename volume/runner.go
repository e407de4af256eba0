package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Runner runs external commands. Both methods end the command when ctx ends,
// wait until it is gone, and return ctx's cause; a command that fails is a
// *CommandError.
type Runner interface {
	// Run returns what the command wrote to its standard output.
	Run(ctx context.Context, name string, args ...string) ([]byte, error)
	// Stream hands each line of the standard output to line as it comes; a
	// carriage return ends a line too. line must not keep its argument, and
	// is not called any more once Stream has returned.
	Stream(ctx context.Context, line func([]byte), name string, args ...string) error
}

// Bounds of what is kept of a command's output.
const (
	maxOutput = 16 << 20
	maxStderr = 8 << 10
	maxLine   = 64 << 10
)

// ErrStuck says that a killed command does not die, as one that waits for a
// dead file server does not. It may still hold files open.
var ErrStuck = errors.New("command does not end")

// CommandError is a command that failed.
type CommandError struct {
	// Name is the command with its first argument, such as "qemu-img create".
	// The others are left out: they may be long, or private.
	Name string
	// Output is the end of what it wrote to its standard error.
	Output string
	// Err says how it ended: an *exec.ExitError, ctx's cause, ErrStuck.
	Err error
}

func (e *CommandError) Error() string {
	if out := strings.TrimSpace(e.Output); out != "" {
		return fmt.Sprintf("%s: %s (%v)", e.Name, out, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Name, e.Err)
}

func (e *CommandError) Unwrap() error { return e.Err }

// Exec is the Runner that starts processes on this host. Each runs with
// LC_ALL=C, in a process group of its own, with no core file and a bounded
// address space, and dies with this process. The zero value is ready to use.
type Exec struct {
	// AddressSpace bounds the command's memory in bytes; 0 means 8 GiB. An
	// image whose header asks for more fails alone instead of taking the host.
	AddressSpace uint64
	// Grace is how long a killed command may take to vanish; 0 means 10 s.
	Grace time.Duration
}

var _ Runner = Exec{}

// Run implements Runner.
func (e Exec) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	out := &limited{limit: maxOutput}
	if err := e.exec(ctx, out, name, args); err != nil {
		return nil, err
	}
	if out.over {
		return nil, &CommandError{Name: commandName(name, args), Err: fmt.Errorf("output exceeds %d bytes", maxOutput)}
	}
	return out.buf.Bytes(), nil
}

// Stream implements Runner.
func (e Exec) Stream(ctx context.Context, line func([]byte), name string, args ...string) error {
	out := &lines{each: line}
	if err := e.exec(ctx, out, name, args); err != nil {
		return err
	}
	out.flush()
	return nil
}

func (e Exec) exec(ctx context.Context, stdout io.Writer, name string, args []string) error {
	stderr := &tail{limit: maxStderr}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A grandchild may keep the pipes open after the command is gone.
	cmd.WaitDelay = e.grace() / 2

	done := make(chan error, 1)
	go func() {
		// The death signal fires when the *thread* that started the child
		// ends, so the thread must stay until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			done <- err
			return
		}
		e.limit(cmd.Process.Pid)
		done <- cmd.Wait()
	}()
	fail := func(err error, output string) error {
		return &CommandError{Name: commandName(name, args), Output: output, Err: err}
	}
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		grace := time.NewTimer(e.grace())
		defer grace.Stop()
		select {
		case err = <-done:
		case <-grace.C:
			return fail(errors.Join(context.Cause(ctx), ErrStuck), "")
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fail(context.Cause(ctx), stderr.String())
	}
	return fail(err, stderr.String())
}

// limit is applied just after the start: what it guards against comes from
// reading images, later. A failure means that the process is gone already.
func (e Exec) limit(pid int) {
	space := e.AddressSpace
	if space == 0 {
		space = 8 << 30
	}
	_ = unix.Prlimit(pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: space, Max: space}, nil)
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
}

func (e Exec) grace() time.Duration {
	if e.Grace > 0 {
		return e.Grace
	}
	return 10 * time.Second
}

func commandName(name string, args []string) string {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") && !strings.Contains(args[0], "/") {
		return name + " " + args[0]
	}
	return name
}

// limited keeps the first limit bytes and remembers that there were more. It
// goes on swallowing, so that the command is not stopped by a full pipe.
type limited struct {
	buf   bytes.Buffer
	limit int
	over  bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := l.limit - l.buf.Len()
	if len(p) > room {
		l.over = true
	}
	l.buf.Write(p[:min(len(p), room)])
	return len(p), nil
}

// tail keeps the last limit bytes.
type tail struct {
	buf   []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.buf) }

// lines cuts what is written to it at newlines and carriage returns. A line
// longer than maxLine is cut there.
type lines struct {
	each func([]byte)
	buf  []byte
}

func (l *lines) Write(p []byte) (int, error) {
	for _, c := range p {
		if c == '\n' || c == '\r' {
			l.flush()
			continue
		}
		if l.buf = append(l.buf, c); len(l.buf) == maxLine {
			l.flush()
		}
	}
	return len(p), nil
}

func (l *lines) flush() {
	if len(l.buf) > 0 {
		l.each(l.buf)
		l.buf = l.buf[:0]
	}
}
