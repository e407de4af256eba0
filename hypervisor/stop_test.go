package hypervisor

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// stopCase runs a stopper whose steps are noted, with the call returning when
// the named step is taken for the n-th time.
func runStopper(t *testing.T, returnsAt string, result error, failing map[string]error) (steps []string, took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		done := make(chan error, 1)
		act := func(name string) func(context.Context) error {
			return func(ctx context.Context) error {
				steps = append(steps, name)
				if name == returnsAt {
					done <- result
				}
				if errors.Is(failing[name], context.DeadlineExceeded) {
					<-ctx.Done() // a monitor that does not answer
					return ctx.Err()
				}
				return failing[name]
			}
		}
		s := stopper{
			yankDisks: act("yank"), abort: act("abort"), yankMigration: act("yank migration"),
			grace: 5 * time.Second, log: slog.New(slog.DiscardHandler),
		}
		start := time.Now()
		err = s.stop(t.Context(), done)
		took = time.Since(start)
	})
	return steps, took, err
}

func TestStopCutsDisksBeforeItAborts(t *testing.T) {
	want := errors.New("canceled by client")
	steps, took, err := runStopper(t, "abort", want, nil)
	if !slices.Equal(steps, []string{"yank", "abort"}) || !errors.Is(err, want) || took != 0 {
		t.Errorf("steps %q after %v, error %v", steps, took, err)
	}
}

func TestStopOfAMigrationThatHadJustSucceeded(t *testing.T) {
	steps, _, err := runStopper(t, "abort", nil, map[string]error{"abort": ErrInvalidState})
	if err != nil {
		t.Errorf("steps %q, error %v, want none: the domain has moved", steps, err)
	}
}

func TestStopGoesOnWhenTheMonitorDoesNotAnswer(t *testing.T) {
	want := errors.New("socket closed")
	steps, _, err := runStopper(t, "yank migration", want, map[string]error{"yank": context.DeadlineExceeded})
	if !slices.Equal(steps, []string{"yank", "abort", "yank", "yank migration"}) || !errors.Is(err, want) {
		t.Errorf("steps %q, error %v", steps, err)
	}
}

func TestStopGivesUpAtLast(t *testing.T) {
	cause := errors.New("cannot acquire state change lock")
	_, took, err := runStopper(t, "never", nil, map[string]error{"abort": cause})
	if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, cause) {
		t.Errorf("error %v, want the unknown outcome and its cause", err)
	}
	if took > 2*time.Minute {
		t.Errorf("waited %v", took)
	}
}
