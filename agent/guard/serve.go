package guard

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/durable"
)

// What is asked of a guard, and what it answers: a line each. They stay as they
// are from one version to the next, since an agent that was upgraded asks a
// guard that was not.
const (
	askRest = "rest"
	askLift = "lift"
	ready   = "ready"
)

const (
	lookEvery   = 5 * time.Second // whether the instance's QEMU is there still
	askedWithin = 5 * time.Second // for a question, and for an answer
)

// Serve guards in this process until it is lifted, ctx ends, or the instance's
// QEMU has ended. It writes a line to out once the handover would be heard. dir
// is where the agent looks for its socket. runs tells whether the instance has a
// QEMU; to be in doubt is a yes.
func Serve(ctx context.Context, w *Watch, dir string, runs func(name, uuid string) (bool, error), out io.Writer) error {
	defer w.Lift()
	l, err := listen(dir, socket(w.spec.Operation))
	if err != nil {
		return fmt.Errorf("guard of operation %s: %w", w.spec.Operation, err)
	}
	lifted := make(chan struct{})
	s := server{w, sync.OnceFunc(func() {
		_ = os.Remove(filepath.Join(dir, socket(w.spec.Operation))) // or the agent does
		_ = l.Close()
	})}
	defer s.close()
	go func() {
		if s.answer(l) {
			close(lifted)
		}
	}()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	told := w.Ready()
	for {
		select {
		case <-told:
			told = nil
			if _, err := fmt.Fprintln(out, ready); err != nil {
				w.log.Debug("the agent does not listen", "error", err)
			}
		case <-look.C:
			if there, err := runs(w.spec.Name, w.spec.UUID); err == nil && !there {
				return w.testify(dir)
			}
		case <-lifted:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// server answers the agent. Once, close takes the socket away.
type server struct {
	*Watch
	close func()
}

// answer answers one after the other, until the socket is closed (false), or
// somebody has the guard lifted.
func (s server) answer(l *net.UnixListener) (lifted bool) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return false
		}
		if s.converse(conn) {
			return true
		}
	}
}

func (s server) converse(conn *net.UnixConn) (lifted bool) {
	defer func() { _ = conn.Close() }() // what was written was read, or nobody asks
	if err := conn.SetDeadline(time.Now().Add(askedWithin)); err != nil {
		return false
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
	if err != nil {
		return false
	}
	answer := Free
	switch line {
	case askRest + "\n":
		answer = s.Rest()
	case askLift + "\n":
		s.Lift()
		s.close()
		lifted = true
	default:
		return false
	}
	if _, err := fmt.Fprintln(conn, answer); err != nil {
		s.log.Debug("the agent does not listen", "error", err)
	}
	return lifted
}

// testify leaves word that the volumes were held from the handover until the
// instance's QEMU had ended: the copy here has not run since.
func (w *Watch) testify(dir string) error {
	if w.Rest() != Held {
		return nil
	}
	return durable.WriteFile(filepath.Join(dir, witness(w.spec.Operation)), nil)
}

func socket(operation string) string  { return operation + ".sock" }
func witness(operation string) string { return operation + ".held" }
