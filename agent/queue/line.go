package queue

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
)

// Line is the queue before the work of this host. It is kept in memory: after a
// restart those that waited enter again under their old ids, and those that
// were at work are let in by Hold.
type Line struct {
	limit   int
	mu      sync.Mutex
	inside  map[string]struct{}
	waiting []*Place // in the order of their ids
}

// New makes a line that lets limit in at once; 0 = everybody.
func New(limit int) *Line { return &Line{limit: limit, inside: map[string]struct{}{}} }

// Place is somebody's place, in the line or inside. It has to be left.
type Place struct {
	line  *Line
	id    string
	turn  chan struct{} // closed when it is inside
	moved chan struct{} // closed and replaced when something before it has changed; guarded by line.mu
	leave func()
}

// View is what somebody who waits sees.
type View struct {
	Position int      // in the line, 1 = the next
	Ahead    []string // ids of those that wait before it, the next first
	Inside   []string // ids of those at work, sorted
	Limit    int
}

// Enter takes a place at the end of the line, or inside where nobody waits and
// there is room. Ids tell the order: who has a smaller one goes first.
func (l *Line) Enter(id string) *Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.place(id)
	if _, held := l.inside[id]; held {
		close(p.turn)
		return p
	}
	at, _ := slices.BinarySearchFunc(l.waiting, p, func(a, b *Place) int { return cmp.Compare(a.id, b.id) })
	l.waiting = slices.Insert(l.waiting, at, p)
	l.admit()
	return p
}

// Hold takes a place inside, whatever the limit is: for who is at work already.
func (l *Line) Hold(id string) *Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.place(id)
	l.inside[id] = struct{}{}
	close(p.turn)
	l.tell()
	return p
}

func (l *Line) place(id string) *Place {
	p := &Place{line: l, id: id, turn: make(chan struct{}), moved: make(chan struct{})}
	p.leave = sync.OnceFunc(func() { l.left(p) })
	return p
}

// admit lets in who may, and tells the others. Needs mu.
func (l *Line) admit() {
	for len(l.waiting) > 0 && (l.limit <= 0 || len(l.inside) < l.limit) {
		next := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.inside[next.id] = struct{}{}
		close(next.turn)
	}
	l.tell()
}

// tell wakes those who wait, to look at where they are. Needs mu.
func (l *Line) tell() {
	for _, p := range l.waiting {
		close(p.moved)
		p.moved = make(chan struct{})
	}
}

func (l *Line) left(p *Place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := slices.Index(l.waiting, p); at >= 0 {
		l.waiting = slices.Delete(l.waiting, at, at+1)
	} else {
		delete(l.inside, p.id)
	}
	l.admit()
}

// Leave gives the place up, in the line or inside; twice is no error.
func (p *Place) Leave() { p.leave() }

// Inside tells whether it is its turn.
func (p *Place) Inside() bool {
	select {
	case <-p.turn:
		return true
	default:
		return false
	}
}

// Wait returns when it is its turn, or with ctx's cause when that ends. Until
// then told hears where it is, at first and at each change. The place is kept
// either way.
func (p *Place) Wait(ctx context.Context, told func(View)) error {
	for {
		v, moved := p.look()
		if v.Position > 0 {
			told(v)
		}
		select {
		case <-p.turn:
			return nil
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *Place) look() (View, <-chan struct{}) {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	at := slices.Index(p.line.waiting, p)
	v := View{Position: at + 1, Inside: slices.Sorted(maps.Keys(p.line.inside)), Limit: p.line.limit}
	for _, before := range p.line.waiting[:max(at, 0)] {
		v.Ahead = append(v.Ahead, before.id)
	}
	return v, p.moved
}

// Waiting counts those in the line.
func (l *Line) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}
