package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a person's terminal: what is shown on it, and its keys.
type terminal struct {
	keys  *os.File // the person's end
	child *os.File // the program's end

	mu      sync.Mutex
	shown   strings.Builder
	changed chan struct{}
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	child, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(child.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}); err != nil {
		t.Fatal(err)
	}
	term := &terminal{keys: master, child: child, changed: make(chan struct{}, 1)}
	go term.record()
	t.Cleanup(func() {
		child.Close()
		master.Close()
	})
	return term
}

func (x *terminal) record() {
	buffer := make([]byte, 4096)
	for {
		n, err := x.keys.Read(buffer)
		x.mu.Lock()
		x.shown.Write(buffer[:n])
		x.mu.Unlock()
		select {
		case x.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown.String()
}

// await waits until the text has been shown that many times.
func (x *terminal) await(t *testing.T, text string, times int) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for strings.Count(x.text(), text) < times {
		select {
		case <-x.changed:
		case <-deadline:
			t.Fatalf("%q was not shown %d times, but:\n%q", text, times, x.text())
		}
	}
}

func (x *terminal) typeLine(t *testing.T, line string) {
	t.Helper()
	if _, err := x.keys.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
}
