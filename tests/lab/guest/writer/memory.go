package main

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	mebibyte = 1 << 20
	page     = 4096
)

// dirtier keeps an amount of memory changing, so that a migration has something to chase.
type dirtier struct{ mib atomic.Int64 }

func startDirtying() *dirtier {
	d := &dirtier{}
	go d.run()
	return d
}

func (d *dirtier) set(mib int) { d.mib.Store(int64(max(mib, 0))) }

// run writes one byte of every page, over and over. The pause after a pass leaves the one processor to the writer.
func (d *dirtier) run() {
	var memory []byte
	for n := byte(1); ; n++ {
		if want := int(d.mib.Load()) * mebibyte; want != len(memory) {
			memory = nil
			debug.FreeOSMemory()
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
