package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func inside(p *queue.Place) bool { return p.Inside() }

func TestLine(t *testing.T) {
	l := queue.New(2)
	a, b, c, d := l.Enter("a"), l.Enter("b"), l.Enter("c"), l.Enter("d")
	if !inside(a) || !inside(b) || inside(c) || inside(d) || l.Waiting() != 2 {
		t.Fatalf("inside: %v %v %v %v, %d wait; want the first two", inside(a), inside(b), inside(c), inside(d), l.Waiting())
	}
	c.Leave() // one who gives up is gone at once
	c.Leave()
	a.Leave()
	if !inside(d) || l.Waiting() != 0 {
		t.Errorf("the next is inside: %v, %d wait", inside(d), l.Waiting())
	}
	b.Leave()
	d.Leave()
	if e := l.Enter("e"); !inside(e) {
		t.Error("an empty line keeps somebody waiting")
	}
}

func TestNoLimit(t *testing.T) {
	l := queue.New(0)
	for i := range 100 {
		if !l.Enter(fmt.Sprint(i)).Inside() {
			t.Fatalf("number %d has to wait", i)
		}
	}
}

// After a restart those at work are inside whatever the limit is now, and the
// others come in the order in which they were asked for, not that in which
// their recoveries happen to run.
func TestAfterARestart(t *testing.T) {
	l := queue.New(1)
	a, b := l.Hold("a"), l.Hold("b")
	d, c := l.Enter("d"), l.Enter("c")
	again := l.Enter("a")
	if !inside(again) {
		t.Error("one at work has to wait")
	}
	a.Leave()
	if inside(c) || inside(d) {
		t.Error("one is still at work, and another came in")
	}
	b.Leave()
	if !inside(c) || inside(d) {
		t.Errorf("inside: c %v, d %v; want c alone", inside(c), inside(d))
	}
}

func TestWaitTellsWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := queue.New(1)
		a, b, c := l.Enter("a"), l.Enter("b"), l.Enter("c")
		var seen []queue.View
		done := make(chan error, 1)
		go func() { done <- c.Wait(t.Context(), func(v queue.View) { seen = append(seen, v) }) }()
		synctest.Wait()
		a.Leave()
		synctest.Wait()
		b.Leave()
		if err := <-done; err != nil {
			t.Error(err)
		}
		want := []queue.View{{Position: 2, Ahead: []string{"b"}, Inside: []string{"a"}, Limit: 1}, {Position: 1, Inside: []string{"b"}, Limit: 1}}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	l := queue.New(1)
	l.Enter("a")
	why := errors.New("not wanted any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := l.Enter("b").Wait(ctx, func(queue.View) {}); !errors.Is(err, why) {
		t.Errorf("error %v; want %v", err, why)
	}
}

// Whoever comes and goes in whatever order: never more inside than may be,
// nobody waits while there is room, and those with smaller ids go first.
func TestLineKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		l := queue.New(limit)
		present := map[string]*queue.Place{}
		var ids []string
		for n := range rapid.IntRange(1, 60).Draw(t, "moves") {
			if len(ids) == 0 || rapid.Bool().Draw(t, "enter") {
				id := fmt.Sprintf("%03d", n)
				present[id] = l.Enter(id)
				ids = append(ids, id)
			} else {
				i := rapid.IntRange(0, len(ids)-1).Draw(t, "who leaves")
				present[ids[i]].Leave()
				delete(present, ids[i])
				ids = slices.Delete(ids, i, i+1)
			}
			for i, id := range ids {
				if got := present[id].Inside(); got != (i < limit) {
					t.Fatalf("of %v with a limit of %d: %s is inside: %v", ids, limit, id, got)
				}
			}
			if want := max(0, len(ids)-limit); l.Waiting() != want {
				t.Fatalf("%d wait; want %d", l.Waiting(), want)
			}
		}
	})
}

func TestDoor(t *testing.T) {
	d := queue.Door{Limit: 1}
	now := time.Unix(0, 0)
	ask := func(id string, inside int) string {
		ok, before := d.Ask(now, id, inside)
		return fmt.Sprint(ok, " ", before)
	}
	for _, c := range []struct {
		what, got, want string
	}{
		{"the first", ask("a", 0), "true 0"},
		{"at a full door", ask("b", 1), "false 0"},
		{"behind another", ask("c", 1), "false 1"},
		{"again", ask("c", 1), "false 1"},
		{"there is room, for the one before", ask("c", 0), "false 1"},
		{"who comes in", ask("b", 0), "true 0"},
		{"then the next is first", ask("c", 1), "false 0"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s; want %s", c.what, c.got, c.want)
		}
	}
	ask("d", 1)
	if d.Waiting(now) != 2 {
		t.Errorf("%d wait; want 2", d.Waiting(now))
	}
	d.Leave("c")
	if got := ask("d", 0); got != "true 0" {
		t.Errorf("after one has left: %s", got)
	}
	// Who does not come back keeps nobody out.
	ask("e", 1)
	now = now.Add(queue.Patience + time.Second)
	if d.Waiting(now) != 0 {
		t.Errorf("%d wait; want none", d.Waiting(now))
	}
	if got := ask("f", 0); got != "true 0" {
		t.Errorf("behind one who is gone: %s", got)
	}
	open := queue.Door{}
	if ok, _ := open.Ask(now, "a", 1000); !ok {
		t.Error("a door without a limit is full")
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		if got := queue.Backoff(n, 0); got != want {
			t.Errorf("%d: %s; want %s", n, got, want)
		}
		if got := queue.Backoff(n, 0.999); got > want*51/100 || got < want/2 {
			t.Errorf("%d: %s; want half of %s", n, got, want)
		}
	}
	if 3*queue.Backoff(1000, 0) > queue.Patience {
		t.Error("a place is not kept for three times as long as the longest wait")
	}
}
