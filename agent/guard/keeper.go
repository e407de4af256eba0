package guard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// startDeadline is for a guard to be a process, connected to libvirt.
const startDeadline = 10 * time.Second

// Keeper sets guards, and finds those that an earlier agent has set.
type Keeper struct {
	Dir string // of their sockets; this user's alone
	// Command is a guard: it reads its [Spec] from standard input, and serves in Dir.
	Command []string
	// Apart are the words of a command that runs another one where nothing ends it
	// together with this process; none = it is only a session of its own.
	Apart []string
	Log   *slog.Logger
}

// Set has a process guard the spec's instance, and returns when it would hear
// the handover. One that guards this operation already is left as it is. An
// error says that there is none, or none in time.
func (k *Keeper) Set(ctx context.Context, s Spec) error {
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	if conn, err := dial(ctx, k.Dir, socket(s.Operation)); err == nil {
		return conn.Close()
	}
	in, err := json.Marshal(s)
	if err != nil {
		return err
	}
	err = k.start(ctx, s.Operation, in, slices.Concat(k.Apart, k.Command))
	if err != nil && k.serves(s.Operation) {
		// One that a killed agent had begun to start was there first; or it is slow.
		k.Log.Warn("a guard is there, and may hear of the handover late", "operation", s.Operation, "error", err)
		return nil
	}
	if err != nil && len(k.Apart) > 0 && ctx.Err() == nil {
		k.Log.Warn("a guard that would end with the agent's service is better than none", "operation", s.Operation, "error", err)
		err = k.start(ctx, s.Operation, in, k.Command)
	}
	return err
}

// serves tells whether a guard of the operation can be asked, and so be lifted.
func (k *Keeper) serves(operation string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), askedWithin)
	defer cancel()
	conn, err := dial(ctx, k.Dir, socket(operation))
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was said
	return true
}

// start returns when the guard has said that it is ready, or has ended. One that
// is not there yet when ctx ends is ended: it would come when nobody knows of it
// any more, and never be lifted.
func (k *Keeper) start(ctx context.Context, operation string, in []byte, command []string) error {
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it outlives whoever starts it
	cmd.Dir, cmd.Stdin, cmd.Stderr = "/", bytes.NewReader(in), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(out, 64)).ReadString('\n')
		if err == nil && line != ready+"\n" {
			err = fmt.Errorf("it said %q", line)
		}
		said <- err
		if err := cmd.Wait(); err != nil { // which closes the pipe, once it has ended
			k.Log.Warn("a guard has ended early", "operation", operation, "error", err)
		}
	}()
	select {
	case err := <-said:
		if err != nil {
			err = fmt.Errorf("the guard's process ended: %w", err)
		}
		return err
	case <-ctx.Done():
		if !k.serves(operation) {
			_ = cmd.Process.Kill() // it may just have ended
		}
		return fmt.Errorf("the guard's process does not hear libvirt: %w", context.Cause(ctx))
	}
}

// Rest ends the listening of the operation's guard, and tells what it has of the
// volumes, or had when the instance's QEMU ended. It holds on until Lift.
func (k *Keeper) Rest(operation string) Hold {
	answer, err := k.ask(operation, askRest)
	if err != nil && !absent(err) {
		k.Log.Warn("asking a guard", "operation", operation, "error", err)
	}
	switch h := Hold(answer); h {
	case Held, HeldLate:
		return h
	}
	if _, err := os.Lstat(filepath.Join(k.Dir, witness(operation))); err == nil {
		return Held
	}
	return Free
}

// Lift has the operation's guard let go, and returns when it has. Where there is
// none it does nothing, but to forget that there was one.
func (k *Keeper) Lift(operation string) {
	defer k.remove(witness(operation))
	_, err := k.ask(operation, askLift)
	if err == nil {
		return
	}
	if !absent(err) {
		k.Log.Warn("a guard does not let go by itself", "operation", operation, "error", err)
	}
	k.remove(socket(operation))
}

func (k *Keeper) remove(name string) {
	if err := os.Remove(filepath.Join(k.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		k.Log.Warn("removing what a guard has left", "error", err)
	}
}

// Sweep lifts the guards of operations that are not to be kept: an agent may
// have been killed just before it did.
func (k *Keeper) Sweep(keep func(operation string) bool) {
	entries, err := os.ReadDir(k.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.Log.Warn("looking for guards", "error", err)
	}
	for _, e := range entries {
		operation := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if (e.Name() == socket(operation) || e.Name() == witness(operation)) && !keep(operation) {
			k.Lift(operation)
		}
	}
}

// ask has one line answered. A guard that is there and does not answer is ended:
// no guard is better than one that nobody can lift.
func (k *Keeper) ask(operation, question string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), askedWithin)
	defer cancel()
	conn, err := dial(ctx, k.Dir, socket(operation))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	deadline, _ := ctx.Deadline()
	err = conn.SetDeadline(deadline)
	if err == nil {
		_, err = fmt.Fprintln(conn, question)
	}
	if err == nil {
		answer, err = bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
	}
	if err == nil {
		return strings.TrimSuffix(answer, "\n"), nil
	}
	pid, gone := peer(conn)
	if gone == nil {
		gone = syscall.Kill(pid, syscall.SIGKILL)
	}
	return "", errors.Join(err, gone)
}

// absent tells whether there was nobody to ask.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}
