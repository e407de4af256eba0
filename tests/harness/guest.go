package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Guest is what runs in a Domain: it writes numbered blocks, and verifies them when told to (tests/README.md).
type Guest struct {
	lab  *Lab
	Name string
}

// Guest returns the guest of the domain of that name.
func (l *Lab) Guest(name string) *Guest { return &Guest{lab: l, Name: name} }

// Console is what the guest printed on a host up to now; nothing where it never ran there.
func (g *Guest) Console(ctx context.Context, h *Host) (Console, error) {
	name := g.Name + ".log"
	folder, err := g.lab.folder(h.Name, consolePath)
	if errors.Is(err, errors.ErrUnsupported) {
		log, err := h.Exec(ctx, "sh", "-c", `cat "$0" 2>/dev/null; true`, filepath.Join(consolePath, name))
		return parseConsole(log), err
	}
	if err != nil {
		return nil, err
	}
	log, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return parseConsole(string(log)), nil
}

// Boots are the ids of all boots of the guest on either host, each once. One that never restarted has one.
func (g *Guest) Boots(ctx context.Context) ([]string, error) {
	var boots []string
	for _, h := range g.lab.Hosts() {
		console, err := g.Console(ctx, h)
		if err != nil {
			return nil, err
		}
		boots = append(boots, console.Boots()...)
	}
	slices.Sort(boots)
	return slices.Compact(boots), nil
}

// Forget empties the guest's console logs, for a domain whose name was used before.
func (g *Guest) Forget(ctx context.Context) error {
	var errs []error
	for _, h := range g.lab.Hosts() {
		_, err := h.Exec(ctx, "rm", "-f", filepath.Join(consolePath, g.Name+".log"))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// LastBlock is the number of the newest block durable on the disk that was printed on this host, -1 where none was.
func (g *Guest) LastBlock(ctx context.Context, h *Host, disk string) (int64, error) {
	console, err := g.Console(ctx, h)
	return console.LastBlock(disk), err
}

// WaitBlock waits until block n of the disk is durable, printed on this host.
func (g *Guest) WaitBlock(ctx context.Context, h *Host, disk string, n int64) error {
	return g.wait(ctx, h, fmt.Sprintf("block %d of %s", n, disk), func(c Console) bool { return c.LastBlock(disk) >= n })
}

// WaitMore waits until the guest wrote count more blocks on this host than by now: it runs, and here.
func (g *Guest) WaitMore(ctx context.Context, h *Host, disk string, count int64) error {
	last, err := g.LastBlock(ctx, h, disk)
	if err != nil {
		return err
	}
	return g.WaitBlock(ctx, h, disk, last+count)
}

// WaitLine waits for a line on this host.
func (g *Guest) WaitLine(ctx context.Context, h *Host, line string) error {
	return g.wait(ctx, h, fmt.Sprintf("line %q", line), func(c Console) bool { return c.Has(line) })
}

func (g *Guest) wait(ctx context.Context, h *Host, what string, seen func(Console) bool) error {
	what = fmt.Sprintf("%s on the console of %s on host %s", what, g.Name, h.Name)
	return Until(ctx, what, func(ctx context.Context) error {
		console, err := g.Console(ctx, h)
		if err != nil || seen(console) {
			return err
		}
		return fmt.Errorf("its last lines are %q, its complaints %q", console[max(0, len(console)-3):], console.Complaints())
	})
}

// Verify lets the guest read back everything it wrote and the templates below. It returns an error where anything is
// not as it must be on any disk, and the reports all the same.
func (g *Guest) Verify(ctx context.Context, h *Host) ([]DiskReport, error) {
	token := newToken()
	var reports []DiskReport
	err := g.ask(ctx, h, "verify "+token, func(c Console) (done bool) {
		reports, done = c.reports(token)
		return done
	})
	if err == nil && len(reports) == 0 {
		err = errors.New("the guest has no disk to verify")
	}
	for _, report := range reports {
		if !report.OK {
			err = errors.Join(err, fmt.Errorf("guest %s, disk %s: %s", g.Name, report.Disk, report.Detail))
		}
	}
	return reports, err
}

// Pause stops the guest's writing; the last write is durable when this returns.
func (g *Guest) Pause(ctx context.Context, h *Host) error { return g.order(ctx, h, "pause", "paused") }

// Resume lets the guest write again.
func (g *Guest) Resume(ctx context.Context, h *Host) error {
	return g.order(ctx, h, "resume", "resumed")
}

// Dirty keeps that much of the guest's memory changing; 0 ends it. It fails where the guest has not so much.
func (g *Guest) Dirty(ctx context.Context, h *Host, mebibytes int) error {
	command, token := fmt.Sprintf("dirty %d", mebibytes), newToken()
	refused := false
	err := g.ask(ctx, h, command+" "+token, func(c Console) bool {
		refused = c.refused(token)
		return refused || c.Has(command+" "+token)
	})
	if err == nil && refused {
		err = fmt.Errorf("guest %s has no %d MiB of memory to spare: give its domain more", g.Name, mebibytes)
	}
	return err
}

// Deaf lets the guest ignore the next presses of its power button, -1 for all.
func (g *Guest) Deaf(ctx context.Context, h *Host, presses int) error {
	command := fmt.Sprintf("deaf %d", presses)
	return g.order(ctx, h, command, command)
}

// Slow lets the guest take that long from being told to shut down to doing so.
func (g *Guest) Slow(ctx context.Context, h *Host, d time.Duration) error {
	command := "slow " + d.String()
	return g.order(ctx, h, command, command)
}

// Suspend lets the guest suspend itself to memory.
func (g *Guest) Suspend(ctx context.Context, h *Host) error {
	return g.order(ctx, h, "suspend", "suspend")
}

func (g *Guest) order(ctx context.Context, h *Host, command, answer string) error {
	token := newToken()
	return g.ask(ctx, h, command+" "+token, func(c Console) bool { return c.Has(answer + " " + token) })
}

var tokens atomic.Int64

// newToken makes an answer known as one's own, among those of earlier tests in the same log too.
func newToken() string {
	return fmt.Sprintf("t%d-%d-%d", os.Getpid(), time.Now().Unix(), tokens.Add(1))
}

// The terminal is kept open until the answer came: QEMU looks for a reader once a second. What it prints meanwhile is
// read away, for a full terminal would hold up the log.
const sendScript = `exec 3<>"$0"; cat <&3 >/dev/null & printf '\n%s\n' "$1" >&3; read -r _; kill $!; exit 0`

// Send writes a line to the guest's serial console and waits until answered reports true.
func (g *Guest) ask(ctx context.Context, h *Host, line string, answered func(Console) bool) error {
	tty, err := h.Virsh(ctx, "ttyconsole", g.Name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hold, release := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		_, err := run(h.lab.command(ctx, h.Name, "bash", "-c", sendScript, strings.TrimSpace(tty), line), hold)
		sent <- err
	}()
	err = g.wait(ctx, h, fmt.Sprintf("the answer to %q", line), answered)
	return errors.Join(err, release.Close(), <-sent)
}
