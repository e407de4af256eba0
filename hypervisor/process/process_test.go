package process_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/hypervisor/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	name  = "vm"
	other = "99999999-8888-4777-8666-555555555555"
)

// uuid is of this run alone: the processes of other tests are looked through too.
var uuid = fmt.Sprintf("11111111-2222-4333-8444-%012x", os.Getpid())

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// qemu starts a process with the arguments that libvirt gives QEMU. It ends
// when its input does.
func qemu(t testing.TB, uuid string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh")
	cmd.Args = []string{"/usr/bin/qemu-system-x86_64", "-c", "read -r _", "sh", "-name", "guest=" + name + ",debug-threads=on", "-uuid", uuid, "-S"}
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// finder has libvirt's note of a number, where one is given.
func finder(t testing.TB, note string) process.Finder {
	t.Helper()
	f := process.Finder{Run: t.TempDir()}
	if note != "" {
		must(t, os.WriteFile(filepath.Join(f.Run, name+".pid"), []byte(note), 0o600))
	}
	return f
}

func find(t testing.TB, f process.Finder) *process.Process {
	t.Helper()
	p, err := f.Find(name, uuid)
	must(t, err)
	if p != nil {
		t.Cleanup(p.Close)
	}
	return p
}

func TestFind(t *testing.T) {
	mine, foreign := qemu(t, uuid), qemu(t, other)
	ended := exec.Command("/bin/true")
	must(t, ended.Run())
	for what, note := range map[string]string{
		"noted":                     strconv.Itoa(mine.Process.Pid) + "\n",
		"not noted":                 "",
		"noted as another's":        strconv.Itoa(foreign.Process.Pid),
		"noted as one that ended":   strconv.Itoa(ended.Process.Pid),
		"noted as this test":        strconv.Itoa(os.Getpid()),
		"noted as the first":        "1",
		"noted as nothing sensible": "-5 x",
	} {
		if p := find(t, finder(t, note)); p == nil || p.PID() != mine.Process.Pid {
			t.Errorf("%s: got %+v; want process %d", what, p, mine.Process.Pid)
		}
	}
}

func TestRuns(t *testing.T) {
	f := finder(t, "")
	if runs, err := f.Runs(name, uuid); runs || err != nil {
		t.Errorf("before: %v, %v", runs, err)
	}
	qemu(t, uuid)
	if runs, err := f.Runs(name, uuid); !runs || err != nil {
		t.Errorf("while it does: %v, %v", runs, err)
	}
}

func TestFindNone(t *testing.T) {
	foreign := qemu(t, other)
	if p := find(t, finder(t, strconv.Itoa(foreign.Process.Pid))); p != nil {
		t.Errorf("got process %d, which is another domain's", p.PID())
	}
	if _, err := (process.Finder{}).Find(name, ""); err == nil {
		t.Error("no UUID is that of every process")
	}
	if p, err := (process.Finder{Run: t.TempDir()}).Find("../"+name, uuid); p != nil || err != nil {
		t.Errorf("a name that is a path: %v, %v", p, err)
	}
}

// A process that has ended but was not waited for has closed its files.
func TestGone(t *testing.T) {
	cmd := qemu(t, uuid)
	p := find(t, finder(t, strconv.Itoa(cmd.Process.Pid)))
	select {
	case <-p.Gone():
		t.Fatal("gone before it ended")
	default:
	}
	if p.Ended() {
		t.Fatal("ended before it did")
	}
	must(t, p.Signal(syscall.SIGSTOP))
	must(t, p.Signal(syscall.SIGKILL))
	wait(t, p)
	if !p.Ended() {
		t.Error("gone, and not ended")
	}
	if runs, err := finder(t, strconv.Itoa(cmd.Process.Pid)).Runs(name, uuid); runs || err != nil {
		t.Errorf("it runs: %v, %v", runs, err)
	}
	if again := find(t, finder(t, strconv.Itoa(cmd.Process.Pid))); again != nil {
		t.Error("found again, as a zombie")
	}
	_ = cmd.Wait()
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, process.ErrGone) {
		t.Errorf("a signal to what is gone: %v", err)
	}
}

func wait(t testing.TB, p *process.Process) {
	t.Helper()
	select {
	case <-p.Gone():
	case <-time.After(10 * time.Second):
		t.Fatal("it was killed, and is not gone")
	}
}

// Closing leaves the process alone, and ends the waiting for it.
func TestClose(t *testing.T) {
	cmd := qemu(t, uuid)
	p, err := finder(t, "").Find(name, uuid)
	must(t, err)
	p.Close()
	select {
	case <-p.Gone():
		t.Error("gone, although only let go of")
	default:
	}
	if err := p.Signal(syscall.SIGKILL); err == nil || p.Ended() {
		t.Errorf("a signal after Close: %v", err)
	}
	must(t, cmd.Process.Signal(syscall.Signal(0)))
}

// A process may die in the middle of being looked for.
func TestFindWhileItEnds(t *testing.T) {
	for range 50 {
		cmd := exec.Command("/bin/sh")
		cmd.Args = []string{"/usr/bin/kvm", "-c", "read -r _; exit 0", "sh", "-name", "guest=vm", "-uuid", uuid}
		in, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		f := finder(t, strconv.Itoa(cmd.Process.Pid))
		done := make(chan error, 1)
		go func() { done <- errors.Join(in.Close(), cmd.Wait()) }()
		if p := find(t, f); p != nil {
			wait(t, p)
		}
		must(t, <-done)
	}
}
