// Package budget divides what a host may send among the migrations that run.
//
// [Share] is a pure function. [Budget] is who takes part just now, and the
// total, which can change at any time: whoever takes part looks at its share
// again and again.
package budget

import "slices"

// Share divides total bytes per second among claims with these caps (0 = none)
// so that the smallest share is as large as can be: what a capped claim leaves
// is shared again among the others (max-min fairness). A total of 0 is no
// limit: each has its cap then, and 0 for none.
func Share(total int64, caps []int64) []int64 {
	out := slices.Clone(caps)
	if total <= 0 {
		return out
	}
	order := make([]int, len(caps))
	for i := range order {
		order[i] = i
	}
	// The smallest caps first: what they leave is known before the others' turn.
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case caps[a] > 0 && caps[b] > 0:
			return int(min(max(caps[a]-caps[b], -1), 1))
		case caps[a] > 0:
			return -1
		case caps[b] > 0:
			return 1
		}
		return 0
	})
	left := total
	for n, i := range order {
		fair := left / int64(len(order)-n)
		if caps[i] > 0 {
			fair = min(fair, caps[i])
		}
		// 0 would be no limit.
		out[i] = max(fair, 1)
		left = max(left-out[i], 0)
	}
	return out
}
