package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// console is the serial port. Each line goes out in one write.
type console struct{ file *os.File }

func (c console) line(format string, args ...any) {
	fmt.Fprintf(c.file, format+"\n", args...)
}

// drain waits until the last byte has left the port (tcdrain).
func (c console) drain() {
	const tcsbrk = 0x5409
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, c.file.Fd(), tcsbrk, 1)
}

func readLines(file *os.File) <-chan string {
	lines := make(chan string)
	go func() {
		for scanner := bufio.NewScanner(file); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return lines
}

// command obeys one line. A word after the command's own is a token that the answer repeats, so that a test knows its
// own answer from an earlier one.
func (g *guest) command(line string) {
	words := append(strings.Fields(line), "", "", "")
	token := words[1]
	switch words[0] {
	case "":
	case "verify":
		g.verify(token)
	case "pause":
		g.paused = true
		g.answer("paused", token)
	case "resume":
		g.paused = false
		g.answer("resumed", token)
	case "dirty":
		mib, _ := strconv.Atoi(words[1])
		g.answer(g.dirty(mib), words[2])
	case "deaf":
		g.options.deaf, _ = strconv.Atoi(words[1])
		g.answer("deaf "+strconv.Itoa(g.options.deaf), words[2])
	case "slow":
		g.options.slow, _ = time.ParseDuration(words[1])
		g.answer("slow "+g.options.slow.String(), words[2])
	case "ping":
		g.answer("pong", token)
	case "suspend":
		g.suspend(token)
	case "poweroff":
		g.powerOff()
	default:
		g.out.line("unknown command %q", line)
	}
}

// dirty refuses what would leave the kernel without memory: a guest that panics for it has tested nothing.
func (g *guest) dirty(mib int) string {
	if free := availableMiB("/proc/meminfo") + g.memory.size() - reserveMiB; mib > free {
		return fmt.Sprintf("dirty refused free=%d", max(free, 0))
	}
	g.memory.set(mib)
	return "dirty " + strconv.Itoa(mib)
}

func (g *guest) answer(text, token string) {
	g.out.line("%s", strings.TrimSpace(text+" "+token))
}

func (g *guest) verify(token string) {
	prefix := strings.TrimSpace("verify " + token)
	for _, name := range sortedNames(g.disks) {
		g.out.line("%s %s %s", prefix, name, g.disks[name].verify())
	}
	g.out.line("%s done %d", prefix, len(g.disks))
}

func sortedNames(disks map[string]*disk) []string {
	names := make([]string, 0, len(disks))
	for name := range disks {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
