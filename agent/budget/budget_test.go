package budget_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/budget"
)

func TestShare(t *testing.T) {
	for _, c := range []struct {
		name  string
		total int64
		caps  []int64
		want  []int64
	}{
		{"nobody", 100, nil, nil},
		{"no limit", 0, []int64{0, 7}, []int64{0, 7}},
		{"one has all", 100, []int64{0}, []int64{100}},
		{"in equal parts", 100, []int64{0, 0, 0, 0}, []int64{25, 25, 25, 25}},
		{"what one leaves is shared", 100, []int64{0, 10, 0}, []int64{45, 10, 45}},
		{"and again", 100, []int64{10, 30, 0, 40}, []int64{10, 30, 30, 30}},
		{"caps above their part", 100, []int64{80, 0}, []int64{50, 50}},
		{"all capped", 100, []int64{10, 20}, []int64{10, 20}},
		{"less than there are", 1, []int64{0, 0}, []int64{1, 1}},
	} {
		if got := budget.Share(c.total, c.caps); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v; want %v", c.name, got, c.want)
		}
	}
}

// No more is given than there is, nobody gets more than its cap, nothing is
// left while somebody could use it, and nobody has less than another unless its
// own cap says so.
func TestShareIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		caps := rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 1, 20).Draw(t, "caps")
		total := rapid.Int64Range(int64(len(caps)), 1<<42).Draw(t, "total")
		got := budget.Share(total, caps)
		var sum int64
		wants := false
		for i, s := range got {
			sum += s
			capped := caps[i] > 0 && s == caps[i]
			wants = wants || !capped
			if s <= 0 || caps[i] > 0 && s > caps[i] {
				t.Fatalf("%d of %v has %d", i, caps, s)
			}
			for _, other := range got {
				if !capped && other > s+1 { // a rest of the division
					t.Fatalf("%v of %d: one has %d, another %d", got, total, s, other)
				}
			}
		}
		if sum > total {
			t.Fatalf("%v is more than %d", got, total)
		}
		if wants && sum < total-int64(len(caps)) {
			t.Fatalf("%v leaves a part of %d unused", got, total)
		}
	})
}

func TestBudget(t *testing.T) {
	b := budget.New(100)
	leave := b.Join("a", 0)
	b.Join("b", 30)
	if diff := cmp.Diff(map[string]int64{"a": 70, "b": 30}, b.Shares()); diff != "" {
		t.Error(diff)
	}
	b.Set(40)
	if diff := cmp.Diff(map[string]int64{"a": 20, "b": 20}, b.Shares()); diff != "" || b.Total() != 40 {
		t.Error(diff, b.Total())
	}
	leave()
	if diff := cmp.Diff(map[string]int64{"b": 30}, b.Shares()); diff != "" {
		t.Error(diff)
	}
	b.Set(-1)
	if b.Total() != 0 {
		t.Errorf("total %d; want no limit", b.Total())
	}
}

func TestStreams(t *testing.T) {
	for _, c := range []struct {
		name                           string
		share                          int64
		copying, inStep                int
		memory                         bool
		wantCopy, wantFollow, wantMemo int64
	}{
		{"no limit", 0, 2, 1, true, 0, 0, 0},
		{"disks", 100, 2, 0, false, 50, 0, 0},
		{"one disk is in step already", 100, 1, 1, false, 80, 20, 0},
		{"all are", 100, 0, 2, false, 0, 50, 0},
		{"memory, while disks follow", 100, 0, 2, true, 0, 10, 80},
		{"memory without disks", 100, 0, 0, true, 0, 0, 100},
	} {
		a, b, m := budget.Streams(c.share, c.copying, c.inStep, c.memory)
		if a != c.wantCopy || b != c.wantFollow || m != c.wantMemo {
			t.Errorf("%s: %d, %d, %d; want %d, %d, %d", c.name, a, b, m, c.wantCopy, c.wantFollow, c.wantMemo)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.Int64Range(100, 1<<40).Draw(t, "share")
		copying, inStep, memory := rapid.IntRange(0, 8).Draw(t, "copying"), rapid.IntRange(0, 8).Draw(t, "in step"), rapid.Bool().Draw(t, "memory")
		a, b, m := budget.Streams(share, copying, inStep, memory)
		if sum := a*int64(copying) + b*int64(inStep) + m; sum > share {
			t.Fatalf("%d is more than %d", sum, share)
		}
	})
}
