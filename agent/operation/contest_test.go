package operation

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The whole table: who may end whom, and who waits or is refused.
func TestContest(t *testing.T) {
	kinds := []Claim{"create", "delete", "rebuild", ClaimStart, ClaimMigrate, ClaimRestart, ClaimStop, ClaimStopAtLast, ClaimForceStop}
	ends := map[Claim][]Claim{
		"create": {}, "delete": {}, "rebuild": {}, ClaimStart: {}, ClaimMigrate: {},
		ClaimRestart:    {ClaimStart, ClaimMigrate},
		ClaimStop:       {ClaimStart, ClaimMigrate, ClaimRestart},
		ClaimStopAtLast: {ClaimStart, ClaimMigrate, ClaimRestart, ClaimStop},
		ClaimForceStop:  {ClaimStart, ClaimMigrate, ClaimRestart, ClaimStop, ClaimStopAtLast},
	}
	for _, newer := range kinds {
		for _, holder := range kinds {
			open, closed := refuse, refuse
			if slices.Contains(ends[newer], holder) {
				open, closed = preempt, await
				if holder == ClaimMigrate {
					closed = refuse // past its switchover
				}
			}
			if got := contest(newer, holder, true); got != open {
				t.Errorf("%s over %s: %v, want %v", newer, holder, got, open)
			}
			if got := contest(newer, holder, false); got != closed {
				t.Errorf("%s over %s that cannot be cancelled: %v, want %v", newer, holder, got, closed)
			}
		}
	}
}

// Of two requests at most one can end the other: else they would end each
// other in turn for ever.
func TestContestIsOneWay(t *testing.T) {
	claim := rapid.OneOf(rapid.SampledFrom([]Claim{ClaimStart, ClaimMigrate, ClaimRestart, ClaimStop, ClaimStopAtLast, ClaimForceStop}), rapid.Custom(func(t *rapid.T) Claim {
		return Claim(rapid.String().Draw(t, "kind"))
	}))
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := claim.Draw(t, "a"), claim.Draw(t, "b"), claim.Draw(t, "c")
		if contest(a, b, true) == preempt && contest(b, a, true) == preempt {
			t.Errorf("%q and %q end each other", a, b)
		}
		if contest(a, b, true) == preempt && contest(b, c, true) == preempt && contest(a, c, true) != preempt {
			t.Errorf("%q ends %q ends %q, but not directly", a, b, c)
		}
	})
}
