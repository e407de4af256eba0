package main

import (
	"strconv"
	"strings"
	"time"
)

// options come from the kernel's command line.
type options struct {
	pace  time.Duration // wherry.pace=20ms: the time from one round of writes to the next
	dirty int           // wherry.dirty=MIB: memory dirtied from the start
	deaf  int           // wherry.deaf=N: presses of the power button ignored, -1 for all
	slow  time.Duration // wherry.slow=5s: from being told to shut down to doing so
	agent string        // wherry.agent=mute|hang: it answers and does not obey, or does neither
}

// parseOptions leaves an option at its default where its value makes no sense: a guest that does not start would say less.
func parseOptions(cmdline string) options {
	o := options{pace: 50 * time.Millisecond}
	for _, word := range strings.Fields(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "wherry.pace":
			if d, err := time.ParseDuration(value); err == nil && d > 0 {
				o.pace = d
			}
		case "wherry.dirty":
			o.dirty, _ = strconv.Atoi(value)
		case "wherry.slow":
			o.slow, _ = time.ParseDuration(value)
		case "wherry.agent":
			o.agent = value
		case "wherry.deaf":
			o.deaf, _ = strconv.Atoi(value)
		}
	}
	return o
}
