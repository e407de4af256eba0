package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/volume"
)

func TestRun(t *testing.T) {
	out, err := volume.Exec{}.Run(t.Context(), "sh", "-c", "echo $LC_ALL; ulimit -c")
	if err != nil || string(out) != "C\n0\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestRunFails(t *testing.T) {
	_, err := volume.Exec{}.Run(t.Context(), "qemu-img", "create", "-f", "qcow2", "/proc/none", "1M")
	var command *volume.CommandError
	if !errors.As(err, &command) || command.Name != "qemu-img create" || !strings.Contains(err.Error(), "Could not") {
		t.Errorf("error %v", err)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Errorf("error %v hides how the command ended", err)
	}
	if _, err := (volume.Exec{}).Run(t.Context(), "no-such-command"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing command: %v", err)
	}
}

func TestRunBoundsOutput(t *testing.T) {
	if _, err := (volume.Exec{}).Run(t.Context(), "head", "-c", "20000000", "/dev/zero"); err == nil {
		t.Error("20 MB of output were accepted")
	}
	_, err := volume.Exec{}.Run(t.Context(), "sh", "-c", "head -c 1000000 /dev/zero >&2; echo the end >&2; exit 1")
	if err == nil || len(err.Error()) > 20000 || !strings.Contains(err.Error(), "the end") {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}

func TestRunBoundsMemory(t *testing.T) {
	// dd waits for the limit, which is set just after the start.
	script := `until ulimit -v | grep -qx 65536; do :; done; exec dd if=/dev/zero of=/dev/null bs=200M count=1`
	_, err := volume.Exec{AddressSpace: 64 * mib}.Run(t.Context(), "sh", "-c", script)
	if err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("a command asked for 200 MB of 64 MB: %v", err)
	}
}

// The whole group dies with the context, and its cause is the error.
func TestRunIsCancelled(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var child string
	err := volume.Exec{}.Stream(ctx, func(line []byte) { child = string(line); cancel(why) }, "sh", "-c", "sleep 600 & echo $!; wait")
	if !errors.Is(err, why) {
		t.Errorf("error %v; want %v", err, why)
	}
	run(t, "timeout", "20", "tail", "-s0.05", "--pid="+child, "-f", "/dev/null")
	if _, err := (volume.Exec{}).Run(ctx, "true"); !errors.Is(err, why) {
		t.Errorf("with an ended context: %v", err)
	}
}

// A child that keeps the pipes open does not keep us.
func TestRunDoesNotWaitForOrphans(t *testing.T) {
	var orphan string
	err := volume.Exec{Grace: 20 * time.Millisecond}.Stream(t.Context(), func(line []byte) { orphan = string(line) },
		"sh", "-c", "setsid sleep 600 & echo $!")
	if !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("error %v; want ErrWaitDelay", err)
	}
	run(t, "kill", orphan)
}

func TestStreamCutsLines(t *testing.T) {
	var got []string
	err := volume.Exec{}.Stream(t.Context(), func(line []byte) { got = append(got, string(bytes.Clone(line))) },
		"printf", `    (0.00/100%%)\r    (50.00/100%%)\r\r\nlast`)
	if diff := cmp.Diff([]string{"    (0.00/100%)", "    (50.00/100%)", "last"}, got); diff != "" || err != nil {
		t.Errorf("%v, lines (-want +got):\n%s", err, diff)
	}
}

// A command must not outlive the agent: what it writes to is removed when the
// agent comes back.
func TestRunDiesWithItsParent(t *testing.T) {
	if os.Getenv("WHERRY_TEST_PARENT") != "" {
		err := volume.Exec{}.Stream(t.Context(), func(line []byte) { fmt.Println(string(line)) }, "sh", "-c", "echo $$; exec sleep 600")
		t.Fatal("the command ended by itself: ", err)
	}
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunDiesWithItsParent$")
	parent.Env = append(os.Environ(), "WHERRY_TEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(line[:n]))
	if err := parent.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	run(t, "timeout", "20", "tail", "-s0.05", "--pid="+pid, "-f", "/dev/null")
}
