package process

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc; user space is told 100 a second on all
// machines that Wherry runs on (time(7)).
const tick = time.Second / 100

// startField is the place of the start's time in proc_pid_stat(5), counted
// from the field after the command's name.
const startField = 22 - 3

// Since gives when the domain's process was started, as the time since the
// host was booted; false where it has none. It tells one run of an instance
// from the next, whatever the clock was set to in between.
func (f Finder) Since(name, uuid string) (since time.Duration, runs bool, err error) {
	p, err := f.Find(name, uuid)
	if p == nil {
		return 0, false, err
	}
	defer p.Close()
	since, err = f.began(strconv.Itoa(p.PID()))
	// Only now: what was read is of the pinned process as long as that lives.
	if p.Ended() {
		return 0, false, nil
	}
	return since, err == nil, err
}

// Own gives the same of the process that asks.
func Own() (time.Duration, error) { return Finder{}.began("self") }

// Uptime gives the time since the host was booted, by the clock that the
// others are told by.
func Uptime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("the time since the boot: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

func (f Finder) began(pid string) (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(cmp.Or(f.Proc, procFolder), pid, "stat"))
	if err != nil {
		return 0, fmt.Errorf("start of process %s: %w", pid, err)
	}
	since, err := parseStart(b)
	if err != nil {
		return 0, fmt.Errorf("start of process %s: %w", pid, err)
	}
	return since, nil
}

// parseStart reads a line of proc_pid_stat(5). The command's name is in
// brackets, and may hold anything, brackets as well.
func parseStart(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= startField {
		return 0, fmt.Errorf("%d fields", len(fields))
	}
	ticks, err := strconv.ParseInt(string(fields[startField]), 10, 64)
	if err != nil || ticks < 0 {
		return 0, fmt.Errorf("a start at %q", fields[startField])
	}
	return time.Duration(ticks) * tick, nil
}
