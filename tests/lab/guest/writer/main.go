// Command writer is the work of the lab's guest: it writes numbered, checksummed blocks to every disk, prints each
// number once it is durable, and verifies all of them when told to.
//
// Lines on the serial console, in both directions, are the interface; tests/README.md lists them.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"time"
)

// How often disks that came or went are looked for. Rarely: nothing waits for it.
const rescanEvery = 2 * time.Second

func main() {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		fmt.Println("IOERR cmdline", err)
	}
	g := &guest{
		out:     console{os.Stdout},
		options: parseOptions(string(cmdline)),
		disks:   map[string]*disk{},
		memory:  startDirtying(),
	}
	g.run(readLines(os.Stdin), powerKeys(), startAgent(g.options.agent))
}

// guest is everything the loop below owns. Only the loop touches it, so a verification never meets a half-done write.
type guest struct {
	out     console
	options options
	boot    string
	disks   map[string]*disk
	memory  *dirtier
	paused  bool
	leave   <-chan time.Time // when to shut down; nil = not told to
}

func (g *guest) run(commands <-chan string, power, told <-chan struct{}) {
	g.boot = bootID(time.Now())
	g.out.line("BOOT %s", g.boot)
	if g.options.dirty > 0 {
		g.out.line("%s", g.dirty(g.options.dirty))
	}
	g.rescan()
	pace, scan := time.NewTicker(g.options.pace), time.NewTicker(rescanEvery)
	for {
		select {
		case line := <-commands:
			g.command(line)
		case <-power:
			g.powerKey()
		case <-told:
			g.out.line("AGENT shutdown")
			g.shutDown()
		case <-g.leave:
			g.powerOff()
		case <-scan.C:
			g.rescan()
		case <-pace.C:
			g.round()
		}
	}
}

// bootID tells one boot from another. The kernel's own id needs no entropy, for which an emulated machine waits more than
// a second; the clock makes up for what it may lack so early.
func bootID(now time.Time) string {
	kernel, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		fmt.Println("IOERR boot_id", err)
	}
	sum := sha256.Sum256(fmt.Appendf(kernel, "%d", now.UnixNano()))
	return hex.EncodeToString(sum[:8])
}

// round writes one block to every disk, unless paused.
func (g *guest) round() {
	if g.paused {
		return
	}
	for _, name := range sortedNames(g.disks) {
		seq, err := g.disks[name].writeNext(g.boot)
		if err != nil {
			g.out.line("IOERR %s write seq=%d: %v", name, seq, err)
			continue
		}
		g.out.line("blk %s %d", name, seq)
	}
}

func (g *guest) powerKey() {
	if g.options.deaf != 0 {
		g.options.deaf--
		g.out.line("POWERKEY ignored")
		return
	}
	g.shutDown()
}

// shutDown powers off, at once or some time later: it goes on writing until then.
func (g *guest) shutDown() {
	switch {
	case g.leave != nil:
	case g.options.slow > 0:
		g.out.line("POWEROFF in %s", g.options.slow)
		g.leave = time.After(g.options.slow)
	default:
		g.powerOff()
	}
}

// powerOff ends in order: nothing is written after the clean blocks.
func (g *guest) powerOff() {
	for _, name := range sortedNames(g.disks) {
		if err := g.disks[name].writeClean(g.boot); err != nil {
			g.out.line("IOERR %s clean: %v", name, err)
		}
	}
	g.out.line("POWEROFF")
	g.out.drain()
	g.out.line("IOERR poweroff: %v", powerOff())
}
