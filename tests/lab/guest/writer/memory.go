package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	mebibyte   = 1 << 20
	page       = 4096
	reserveMiB = 8 // left to the kernel
)

// dirtier keeps an amount of memory changing, so that a migration has something to chase.
type dirtier struct{ mib atomic.Int64 }

func startDirtying() *dirtier {
	d := &dirtier{}
	go d.run()
	return d
}

func (d *dirtier) set(mib int) { d.mib.Store(int64(max(mib, 0))) }

func (d *dirtier) size() int { return int(d.mib.Load()) }

// availableMiB reads a file laid out like /proc/meminfo.
func availableMiB(path string) int {
	content, _ := os.ReadFile(path)
	for line := range strings.Lines(string(content)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "MemAvailable:" {
			kib, _ := strconv.Atoi(words[1])
			return kib / 1024
		}
	}
	return 0
}

// run writes one byte of every page, over and over. The pause after a pass leaves the one processor to the writer.
func (d *dirtier) run() {
	var memory []byte
	for n := byte(1); ; n++ {
		if want := int(d.mib.Load()) * mebibyte; want != len(memory) {
			debug.FreeOSMemory() // the old memory is garbage from here on
			memory = make([]byte, want)
		}
		for i := 0; i < len(memory); i += page {
			memory[i] = n
		}
		if len(memory) == 0 {
			time.Sleep(100 * time.Millisecond)
		} else {
			time.Sleep(2 * time.Millisecond)
		}
	}
}
