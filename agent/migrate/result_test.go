package migrate

import (
	"errors"
	"fmt"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
)

// What the metrics count is what the operation says.
func TestResultOf(t *testing.T) {
	undecided := fmt.Errorf("perform: %w", api.NewProblem("needs-decision", "paused on both hosts"))
	for _, c := range []struct {
		err       error
		cancelled bool
		want      string
	}{
		{nil, false, api.StatusSucceeded},
		{nil, true, api.StatusSucceeded},
		{errors.New("no route"), false, api.StatusFailed},
		{errors.New("no route"), true, api.StatusCancelled},
		{undecided, false, api.StatusNeedsDecision},
		{undecided, true, api.StatusNeedsDecision},
	} {
		if got := resultOf(c.err, c.cancelled); got != c.want {
			t.Errorf("resultOf(%v, %v) = %q; want %q", c.err, c.cancelled, got, c.want)
		}
	}
}
