package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/guard"
	"github.com/wherry-kvm/wherry/volume"
)

// The test's program is an agent and a guard too, see the two functions.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "be-an-agent":
			os.Exit(beAnAgent(os.Args[2]))
		case "be-a-guard":
			os.Exit(beAGuard(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

// beAnAgent sets a guard, says so, and waits to be killed.
func beAnAgent(dir string) int {
	var s guard.Spec
	err := json.NewDecoder(os.Stdin).Decode(&s)
	if err == nil {
		err = keeper(dir).Set(context.Background(), s)
	}
	if err != nil {
		_, _ = os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	_, _ = os.Stdout.WriteString("set\n")
	select {}
}

// beAGuard guards where libvirt and QEMU are files in the folder dir.
func beAGuard(dir string) int {
	var s guard.Spec
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		return 1
	}
	w := guard.Begin(context.Background(), folder(dir), s, slog.New(slog.DiscardHandler))
	if guard.Serve(context.Background(), w, filepath.Join(dir, "guards"), folder(dir).runs, os.Stdout) != nil {
		return 1
	}
	return 0
}

// folder is a libvirt: "handed" is there when QEMU has handed the guest over,
// "away" while libvirt is, "ended" when QEMU is gone.
type folder string

func (f folder) has(name string) bool {
	_, err := os.Stat(filepath.Join(string(f), name))
	return err == nil
}

// SentMark is what the file says.
func (f folder) SentMark(context.Context, string) (string, error) {
	mark, err := os.ReadFile(filepath.Join(string(f), "handed"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return "mark " + string(mark), err
}

func (f folder) runs(string, string) (bool, error) { return !f.has("ended"), nil }

func (f folder) HandedOver(ctx context.Context, _ string) (<-chan error, error) {
	if f.has("away") {
		return nil, errors.New("libvirt is away")
	}
	out := make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			switch {
			case f.has("away"):
				out <- errors.New("libvirt went away")
				return
			case f.has("handed") && !f.has("before"):
				out <- nil
				return
			}
			<-tick.C
		}
	}()
	return out, nil
}

func keeper(dir string) *guard.Keeper {
	return &guard.Keeper{Dir: filepath.Join(dir, "guards"), Command: []string{os.Args[0], "be-a-guard", dir}, Log: slog.New(slog.DiscardHandler)}
}

type world struct {
	*testing.T
	dir, disk string
	spec      guard.Spec
}

func newWorld(t *testing.T) *world {
	// Longer than a socket's path may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	w := &world{T: t, dir: dir, disk: filepath.Join(dir, "disk")}
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(w.disk, []byte("the guest's"), 0o600))
	owned, err := volume.Identify(w.disk)
	must(t, err)
	w.spec = guard.Spec{Operation: "01OP", Name: "vm", UUID: "uuid", Files: []volume.Owned{owned}}
	t.Cleanup(func() { keeper(dir).Lift(w.spec.Operation) })
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) happens(what string) {
	w.Helper()
	must(w.T, os.WriteFile(filepath.Join(w.dir, what), nil, 0o600))
}

// barred tells whether a QEMU could take the disk for writing now.
func (w *world) barred() bool {
	w.Helper()
	f, err := os.OpenFile(w.disk, os.O_RDWR, 0)
	must(w.T, err)
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 201, Len: 1}
	must(w.T, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock))
	return lock.Type != unix.F_UNLCK
}

func (w *world) until(what string, is func() bool) {
	w.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-end:
			w.Fatalf("never: %s", what)
		}
	}
}

// agent is a process that has set the guard.
func (w *world) agent() *exec.Cmd {
	w.Helper()
	in, err := json.Marshal(w.spec)
	must(w.T, err)
	cmd := exec.Command(os.Args[0], "be-an-agent", w.dir)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.StdoutPipe()
	must(w.T, err)
	must(w.T, cmd.Start())
	w.Cleanup(func() { _ = cmd.Process.Kill() }) // twice is no harm
	said := make([]byte, 256)
	n, err := out.Read(said)
	must(w.T, err)
	if got := string(said[:n]); got != "set\n" {
		w.Fatalf("the agent said %q", got)
	}
	return cmd
}

// The agent is killed with its whole session, before the guest is handed over: it
// is held all the same, and the next agent knows, and lets go.
func TestGuardOutlivesTheAgent(t *testing.T) {
	w := newWorld(t)
	agent := w.agent()
	must(t, agent.Process.Signal(syscall.SIGKILL))
	_ = agent.Wait() // it says that it was killed
	if w.barred() {
		t.Fatal("it is held before it was handed over: QEMU could not go on by itself")
	}
	w.happens("handed")
	w.until("held", w.barred)
	next := keeper(w.dir)
	must(t, next.Set(t.Context(), w.spec)) // which is there already
	if next.Rest(w.spec.Operation) != guard.Held || !w.barred() {
		t.Error("the next agent does not know that it is held")
	}
	next.Lift(w.spec.Operation)
	if w.barred() {
		t.Error("it is held on")
	}
	if next.Rest(w.spec.Operation) != guard.Free {
		t.Error("a guard that was lifted is there still")
	}
}

func TestGuardWithoutHandover(t *testing.T) {
	w := newWorld(t)
	k := keeper(w.dir)
	must(t, k.Set(t.Context(), w.spec))
	if k.Rest(w.spec.Operation) != guard.Free || w.barred() {
		t.Error("it is held, and was not handed over")
	}
	w.happens("handed")
	k.Lift(w.spec.Operation)
	k.Lift(w.spec.Operation) // nothing, a second time
	if w.barred() {
		t.Error("it is held after all")
	}
}

// What happens while libvirt is away is asked for when it is back.
func TestGuardWaitsForLibvirt(t *testing.T) {
	w := newWorld(t)
	k := keeper(w.dir)
	must(t, k.Set(t.Context(), w.spec))
	w.happens("away")
	w.happens("handed")
	must(t, os.Remove(filepath.Join(w.dir, "away")))
	w.until("held", w.barred)
}

// It was handed over in an earlier migration, and went on here: that is not this
// one, which has to be able to fail.
func TestEarlierHandover(t *testing.T) {
	w := newWorld(t)
	w.happens("handed")
	w.happens("before")
	w.spec.Underway, w.spec.Before = true, "mark "
	k := keeper(w.dir)
	must(t, k.Set(t.Context(), w.spec))
	if k.Rest(w.spec.Operation) != guard.Free || w.barred() {
		t.Error("it is held for an earlier migration")
	}
}

// It was handed over before anybody listened, and is found to be.
func TestGuardSetTooLate(t *testing.T) {
	w := newWorld(t)
	w.happens("handed")
	w.spec.Underway = true
	k := keeper(w.dir)
	must(t, k.Set(t.Context(), w.spec))
	w.until("held", w.barred)
	if got := k.Rest(w.spec.Operation); got != guard.HeldLate {
		t.Errorf("it is %q: nobody knows what was before", got)
	}
	w.happens("ended")
	w.until("let go", func() bool { return !w.barred() })
	w.until("free", func() bool { return k.Rest(w.spec.Operation) == guard.Free })
}

// Nobody lifts it, and there is nothing left to start.
func TestGuardEndsWithTheInstance(t *testing.T) {
	w := newWorld(t)
	agent := w.agent()
	must(t, agent.Process.Signal(syscall.SIGKILL))
	_ = agent.Wait()
	w.happens("handed")
	w.until("held", w.barred)
	w.happens("ended")
	w.until("let go", func() bool { return !w.barred() })
	// The next agent has to know that the copy here has not run since.
	next := keeper(w.dir)
	if got := next.Rest(w.spec.Operation); got != guard.Held {
		t.Errorf("it was %q; want it held to the end", got)
	}
	next.Lift(w.spec.Operation)
	if got := next.Rest(w.spec.Operation); got != guard.Free {
		t.Errorf("after it was lifted it is %q", got)
	}
}

// An agent may be killed between the end of an operation and the lifting.
func TestGuardsOfEndedOperationsAreSwept(t *testing.T) {
	w := newWorld(t)
	w.happens("handed")
	w.spec.Underway = true
	k := keeper(w.dir)
	must(t, k.Set(t.Context(), w.spec))
	w.until("held", w.barred)
	k.Sweep(func(operation string) bool { return operation == w.spec.Operation })
	if !w.barred() {
		t.Error("a guard that is needed was swept")
	}
	k.Sweep(func(string) bool { return false })
	left, err := os.ReadDir(k.Dir)
	if w.barred() || err != nil || len(left) > 0 {
		t.Errorf("held: %v, left: %v (%v)", w.barred(), left, err)
	}
}

// A guard that is stopped cannot let go: it is ended.
func TestGuardThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	w.happens("handed")
	w.spec.Underway = true
	k := keeper(w.dir)
	must(t, k.Set(t.Context(), w.spec))
	w.until("held", w.barred)
	pid := w.holder()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	k.Lift(w.spec.Operation)
	w.until("let go", func() bool { return !w.barred() })
}

// holder is the process that has the disk open.
func (w *world) holder() int {
	w.Helper()
	out, err := exec.Command("pgrep", "-f", "be-a-guard "+w.dir).Output()
	must(w.T, err)
	var pid int
	must(w.T, json.Unmarshal(bytes.TrimSpace(out), &pid))
	return pid
}

// Where the way to start it apart is none, it is started all the same; a guard
// that cannot be is an error that says why.
func TestGuardIsStartedAsItCanBe(t *testing.T) {
	w := newWorld(t)
	k := keeper(w.dir)
	k.Apart = []string{"/bin/false"}
	must(t, k.Set(t.Context(), w.spec))
	k.Lift(w.spec.Operation)
	k.Command = []string{"/bin/false"}
	if err := k.Set(t.Context(), w.spec); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("set: %v; want it said that the process ended", err)
	}
}

// The migration is cancelled while its guard is being started. One that came up
// afterwards would be nobody's, and hold the disks at the next handover.
func TestGuardThatIsNotWantedAnyMore(t *testing.T) {
	w := newWorld(t)
	gate, pid := filepath.Join(w.dir, "gate"), filepath.Join(w.dir, "pid")
	must(t, syscall.Mkfifo(gate, 0o600))
	k := keeper(w.dir)
	k.Command = []string{"/bin/sh", "-c", `echo $$ >"$1.new" && mv "$1.new" "$1" && read -r x <"$2" && exec "$3" be-a-guard "$4"`, "sh", pid, gate, os.Args[0], w.dir}
	ctx, cancel := context.WithCancel(t.Context())
	set := make(chan error, 1)
	go func() { set <- k.Set(ctx, w.spec) }()
	w.until("it is being started", func() bool { _, err := os.Stat(pid); return err == nil })
	cancel()
	if err := <-set; !errors.Is(err, context.Canceled) {
		t.Errorf("set: %v; want that it was cancelled", err)
	}
	k.Lift(w.spec.Operation)
	open, err := os.OpenFile(gate, os.O_RDWR, 0) // both ends, not to wait for a reader
	must(t, err)
	defer open.Close()
	_, err = open.WriteString("go\n")
	must(t, err)
	text, err := os.ReadFile(pid)
	must(t, err)
	var p int
	must(t, json.Unmarshal(bytes.TrimSpace(text), &p))
	w.until("the process has ended", func() bool { return errors.Is(syscall.Kill(p, 0), syscall.ESRCH) })
}

// An agent that was killed had begun to start a guard, and the next one does too:
// the second gives way, or the first could never be lifted.
func TestOneGuardOfAnOperation(t *testing.T) {
	w := newWorld(t)
	k := keeper(w.dir)
	must(t, k.Set(t.Context(), w.spec))
	in, err := json.Marshal(w.spec)
	must(t, err)
	second := exec.Command(k.Command[0], k.Command[1:]...)
	second.Stdin = bytes.NewReader(in)
	out, err := second.StdoutPipe()
	must(t, err)
	must(t, second.Start())
	defer func() { _ = second.Process.Kill(); _ = second.Wait() }() // twice is no harm
	if n, err := out.Read(make([]byte, 64)); err == nil {
		t.Errorf("a second guard said %d bytes", n)
	}
	w.happens("handed")
	w.until("held", w.barred)
	k.Lift(w.spec.Operation)
	w.until("let go", func() bool { return !w.barred() })
}
