//go:build lab

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// gate stands before folders of a host's state: the kernel asks it for each file
// that is opened there, and whoever opens it waits for the answer.
type gate struct {
	*world
	asks *os.File
	// killed is told what the agent was about to open when it was killed, and
	// how that went.
	killed chan string
	done   chan struct{}
}

// gate lets so many opens of the agent pass, of the folders and of what it is to
// write in them, and kills it at the next one: as if it were lost right there.
// Everything else passes.
func (w *world) gate(on *side, passes int, folders ...string) *gate {
	w.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	w.must(err)
	g := &gate{world: w, asks: os.NewFile(uintptr(fd), "fanotify"), killed: make(chan string, 1), done: make(chan struct{})}
	for _, folder := range folders {
		w.exec(on, "mkdir", "-p", "-m", "700", folder)
		err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_ONDIR|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, filepath.Join(on.Root(), folder))
		if err != nil {
			g.asks.Close()
			w.Fatalf("watching %s: %v", folder, err)
		}
	}
	go g.answer(passes, folders)
	return g
}

// answer ends when the gate is closed.
func (g *gate) answer(passes int, folders []string) {
	defer close(g.done)
	for buffer := make([]byte, 4096); ; {
		n, err := g.asks.Read(buffer)
		if err != nil {
			return
		}
		var ask unix.FanotifyEventMetadata
		for rest := buffer[:n]; len(rest) > 0; rest = rest[ask.Event_len:] {
			if _, err := binary.Decode(rest, binary.NativeEndian, &ask); err != nil {
				return
			}
			path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", ask.Fd))
			// What is written has a name that begins with a dot, until it is whole.
			if agent(ask.Pid) && (slices.Contains(folders, path) || strings.HasPrefix(filepath.Base(path), ".")) {
				if passes == 0 {
					// Dead before it is let through.
					g.killed <- fmt.Sprintf("%s (%v)", path, syscall.Kill(int(ask.Pid), syscall.SIGKILL))
				}
				passes--
			}
			var yes bytes.Buffer
			_ = binary.Write(&yes, binary.NativeEndian, unix.FanotifyResponse{Fd: ask.Fd, Response: unix.FAN_ALLOW})
			_, _ = g.asks.Write(yes.Bytes())
			_ = unix.Close(int(ask.Fd))
		}
	}
}

// agent tells an agent from commands of the same program.
func agent(pid int32) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	words := strings.Split(string(line), "\x00")
	return err == nil && len(words) > 1 && filepath.Base(words[0]) == "wherry" && words[1] == "serve"
}

// open takes the gate away: who waits yet passes.
func (g *gate) open() {
	g.Helper()
	g.must(g.asks.Close())
	<-g.done
}
