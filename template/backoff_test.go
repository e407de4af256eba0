package template_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/template"
)

func TestBackoff(t *testing.T) {
	const m = time.Minute
	for name, tt := range map[string]struct {
		template.Backoff
		want []time.Duration
	}{
		"default":       {template.Backoff{}, []time.Duration{m, 2 * m, 4 * m, 5 * m, 5 * m}},
		"configured":    {template.Backoff{First: time.Second, Max: 4 * time.Second}, []time.Duration{1e9, 2e9, 4e9, 4e9}},
		"first is more": {template.Backoff{First: 10 * m, Max: m}, []time.Duration{m, m}},
		"never earlier": {template.Backoff{First: 3 * m, Max: 7 * m}, []time.Duration{3 * m, 6 * m, 7 * m}},
	} {
		var got []time.Duration
		for n := range tt.want {
			got = append(got, tt.Next(n+1))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// However long it goes on failing, waits never shrink, overflow or exceed Max.
func TestBackoffNeverShrinks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := template.Backoff{
			First: time.Duration(rapid.Int64Range(1, 1<<62).Draw(t, "first")),
			Max:   time.Duration(rapid.Int64Range(1, 1<<62).Draw(t, "max")),
		}
		n := rapid.IntRange(0, 1000).Draw(t, "attempts")
		now, next := b.Next(n), b.Next(n+1)
		if now <= 0 || next < now || next > b.Max {
			t.Fatalf("%s after %d attempts, then %s", now, n, next)
		}
	})
}
