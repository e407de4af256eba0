package queue

import (
	"slices"
	"time"
)

// Patience is how long a door keeps the place of one who does not ask again. It
// is a few times what [Backoff] waits at most.
const Patience = 20 * time.Second

// Door is the queue of those who come from elsewhere. It is not safe for use at
// the same time: its owner knows who is inside, and guards both. The order is
// that of the first question; an owner that keeps [Door.Line] gives it back with
// [Door.Restore] after a restart.
type Door struct {
	Limit   int // inside at once; 0 = everybody
	waiting []asked
}

type asked struct {
	id   string
	last time.Time
}

// Ask tells whether id may come in now, where so many are inside; if not, how
// many wait before it. Who was there first comes in first.
func (d *Door) Ask(now time.Time, id string, inside int) (ok bool, before int) {
	d.waiting = slices.DeleteFunc(d.waiting, func(a asked) bool { return a.id != id && now.Sub(a.last) > Patience })
	at := slices.IndexFunc(d.waiting, func(a asked) bool { return a.id == id })
	if at < 0 {
		at = len(d.waiting)
		d.waiting = append(d.waiting, asked{id: id})
	}
	if d.Limit <= 0 || inside+at < d.Limit {
		d.waiting = slices.Delete(d.waiting, at, at+1)
		return true, 0
	}
	d.waiting[at].last = now
	return false, at
}

// Line names those who wait, the next first.
func (d *Door) Line() []string {
	out := make([]string, 0, len(d.waiting))
	for _, a := range d.waiting {
		out = append(out, a.id)
	}
	return out
}

// Restore has these wait again, in this order, as if they had just asked.
func (d *Door) Restore(now time.Time, line []string) {
	d.waiting = nil
	for _, id := range line {
		d.waiting = append(d.waiting, asked{id: id, last: now})
	}
}

// Leave forgets one who does not want to come in any more.
func (d *Door) Leave(id string) {
	d.waiting = slices.DeleteFunc(d.waiting, func(a asked) bool { return a.id == id })
}

// Waiting counts those who were sent away and have not given up.
func (d *Door) Waiting(now time.Time) int {
	n := 0
	for _, a := range d.waiting {
		if now.Sub(a.last) <= Patience {
			n++
		}
	}
	return n
}

const (
	firstWait = 500 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Backoff is how long to wait before asking at a full door for the n-th time
// again, from 0: longer each time up to five seconds, less a random part of up
// to a half, so that many do not come at once. random is from [0, 1).
func Backoff(n int, random float64) time.Duration {
	d := lastWait
	if n < 4 {
		d = min(firstWait<<max(n, 0), lastWait)
	}
	return d - time.Duration(random*float64(d)/2)
}
