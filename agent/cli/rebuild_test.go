package cli

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

const rebuildAsk = "replace the disk? [y/N] "

// asked runs a command on a terminal.
func asked(t *testing.T, args ...string) (*fake, *terminal, *running) {
	t.Helper()
	t.Setenv("TERM", "dumb")
	f, x := startFake(t), openTerminal(t)
	return f, x, begin(t, f, x.child, x.child, args...)
}

func TestRebuildSaysWhatIsLost(t *testing.T) {
	f, x, r := asked(t, "rebuild", "vm1", "--template", "rocky10", "--force")
	x.await(t, rebuildAsk, 1)
	for _, want := range []string{"disk vda of vm1", "lost", "/images/vm1.qcow2", "10.0 GiB", "50.0 MiB", "template rocky9", "template rocky10", "fetched", "stopped, and started again"} {
		if !strings.Contains(x.text(), want) {
			t.Errorf("%q is missing in:\n%s", want, x.text())
		}
	}
	if sent := f.sent(); len(sent) != 1 || !strings.HasPrefix(sent[0], "plan rebuild vm1 ") {
		t.Errorf("sent before it was allowed: %q", sent)
	}
	x.typeLine(t, "yes")
	r.end(exitDone)
	if sent := f.sent(); len(sent) != 1 || !strings.HasPrefix(sent[0], "rebuild vm1 ") {
		t.Errorf("sent %q", sent)
	}
	if !strings.Contains(r.out.String(), "vm1 has a new disk vda, from template rocky10, and runs") {
		t.Errorf("out: %s", r.out)
	}
}

func TestRebuildDoesNothingWithoutAYes(t *testing.T) {
	for _, answer := range []string{"", "n", "no", "yess", "q"} {
		f, x, r := asked(t, "rebuild", "vm1", "--empty")
		x.await(t, rebuildAsk, 1)
		x.typeLine(t, answer)
		r.end(exitFailed)
		x.await(t, "nothing was done", 1)
		if sent := f.sent(); len(sent) != 1 {
			t.Errorf("after %q: sent %q", answer, sent)
		}
	}
}

func TestRebuildIsInterruptedWhileItAsks(t *testing.T) {
	f, x, r := asked(t, "rebuild", "vm1")
	x.await(t, rebuildAsk, 1)
	r.interrupt(os.Interrupt)
	r.end(exitFailed)
	if sent := f.sent(); len(sent) != 1 {
		t.Errorf("sent %q", sent)
	}
	x.typeLine(t, "") // for the reader that nobody waits for any more
}

// What stands in the way is said before anybody is asked.
func TestRebuildThatIsRefusedAsksNobody(t *testing.T) {
	_, x, r := asked(t, "rebuild", "refused")
	r.end(exitRefused)
	x.await(t, "snapshots-present", 1)
	if strings.Contains(x.text(), "[y/N]") {
		t.Errorf("asked:\n%s", x.text())
	}
}

func TestRebuildOfAGroupNamesEveryDisk(t *testing.T) {
	f, x, r := asked(t, "rebuild", "--project", "farm", "--all", "--match", "web-?", "--parallel", "2")
	x.await(t, "replace the disks of 2 instances? [y/N] ", 1)
	for _, want := range []string{"disk vda of farm/web-1", "disk vda of farm/web-2"} {
		if !strings.Contains(x.text(), want) {
			t.Errorf("%q is missing in:\n%s", want, x.text())
		}
	}
	f.sent()
	x.typeLine(t, "y")
	r.end(exitDone)
	sent := f.sent()
	slices.Sort(sent)
	if len(sent) != 2 || !strings.HasPrefix(sent[0], "rebuild farm/web-1 ") || !strings.HasPrefix(sent[1], "rebuild farm/web-2 ") {
		t.Errorf("sent %q", sent)
	}
}

// An interrupt begins no other, and says what goes on.
func TestInterruptedGroup(t *testing.T) {
	f := startFake(t)
	var errs bytes.Buffer
	r := begin(t, f, strings.NewReader(""), &errs, "rebuild", "--project", "slow", "--all", "--match", "*", "--yes")
	<-f.watched
	r.interrupt(os.Interrupt)
	r.end(exitFailed)
	for _, want := range []string{"slow/slow    left running  op-slow", "slow/slower  not begun"} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, r.out.String())
		}
	}
	if sent := f.sent(); len(sent) != 3 { // two plans and one rebuild
		t.Errorf("sent %q", sent)
	}
}
