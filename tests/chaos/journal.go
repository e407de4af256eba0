package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// journal is what happened in a seed, with the time since it began.
type journal struct {
	began time.Time
	mu    sync.Mutex
	lines []string
}

func newJournal() *journal { return &journal{began: time.Now()} }

// note adds a line.
func (j *journal) note(format string, args ...any) {
	at := time.Since(j.began).Seconds()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf("%7.2f  ", at)+strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n") + "\n"
}
