package template

import "time"

// Backoff spaces attempts: First after the first failure, then twice as long
// each time, and never longer than Max.
type Backoff struct{ First, Max time.Duration }

// Defaults of [Backoff].
const (
	DefaultRetryFirst = time.Minute
	DefaultRetryMax   = 5 * time.Minute
)

// Next gives how long to wait after so many attempts, of which all failed.
func (b Backoff) Next(attempts int) time.Duration {
	wait := b.First
	if wait <= 0 {
		wait = DefaultRetryFirst
	}
	limit := b.Max
	if limit <= 0 {
		limit = DefaultRetryMax
	}
	for range attempts - 1 {
		if wait >= limit/2 {
			return limit
		}
		wait *= 2
	}
	return min(wait, limit)
}
