package operation

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
)

// nextID makes a ULID that sorts behind last. The time alone does not see to
// that: the agent restarts within a millisecond, and clocks are set back.
func nextID(last ulid.ULID, now time.Time) (ulid.ULID, error) {
	ms := ulid.Timestamp(now)
	if ms <= last.Time() {
		const timeBytes = 6
		for i := len(last) - 1; i >= timeBytes; i-- {
			if last[i]++; last[i] != 0 {
				return last, nil
			}
		}
		ms = last.Time() + 1 // all 80 bits were ones
	}
	id, err := ulid.New(ms, rand.Reader)
	if err != nil {
		return id, fmt.Errorf("operation id: %w", err)
	}
	return id, nil
}
