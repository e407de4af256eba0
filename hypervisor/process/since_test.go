package process_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// A process that was started later says so, by the clock of the one who asks.
func TestSince(t *testing.T) {
	f := finder(t, "")
	if _, runs, err := f.Since(name, uuid); runs || err != nil {
		t.Errorf("before: %v, %v", runs, err)
	}
	own, err := process.Own()
	must(t, err)
	qemu(t, uuid)
	since, runs, err := f.Since(name, uuid)
	must(t, err)
	now, err := process.Uptime()
	must(t, err)
	if !runs || since < own || since > now || own <= 0 {
		t.Errorf("this process began at %s, the other at %s, it runs: %t; it is %s now", own, since, runs, now)
	}
}

// The name of a command may look like the rest of the line.
func TestSinceOfOddNames(t *testing.T) {
	cmd := qemu(t, uuid)
	pid := strconv.Itoa(cmd.Process.Pid)
	for stat, want := range map[string]time.Duration{
		"7 (sh) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123 999":  1230 * time.Millisecond,
		"7 (a) S 9 (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 5": 50 * time.Millisecond,
		"7 (sh) S 1": -1,
		"":           -1,
		"7 (sh) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 x 999": -1,
	} {
		f := finder(t, pid)
		f.Proc = t.TempDir()
		command, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		must(t, err)
		must(t, os.Mkdir(filepath.Join(f.Proc, pid), 0o700))
		must(t, os.WriteFile(filepath.Join(f.Proc, pid, "cmdline"), command, 0o600))
		must(t, os.WriteFile(filepath.Join(f.Proc, pid, "stat"), []byte(stat), 0o600))
		got, runs, err := f.Since(name, uuid)
		if want < 0 && err == nil || want >= 0 && (got != want || !runs || err != nil) {
			t.Errorf("%q: %s, %t, %v; want %s", stat, got, runs, err, want)
		}
	}
}
