package budget_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/budget"
)

// A stream has a share as a migration has, waits at it, and leaves it.
func TestStreamHasAShare(t *testing.T) {
	b := budget.New(2000)
	b.Join("01MIGRATION", 0)
	s := b.Stream("rocky 9")
	var content string
	for id, share := range b.Shares() {
		if share != 1000 {
			t.Errorf("%q has %d; want a half", id, share)
		}
		if c, is := budget.Content(id); is {
			content = c
		}
	}
	if content != "rocky 9" {
		t.Errorf("the content is %q", content)
	}
	soon, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// What may go out at once is sent; an hour of it is not waited for.
	if err := s.Wait(soon, 64<<10); err != nil {
		t.Error(err)
	}
	if err := s.Wait(soon, 3600*1000); err == nil {
		t.Error("it did not wait")
	}
	b.Set(0)
	if err := s.Wait(soon, 1<<40); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	cancel()
	if err := s.Wait(soon, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	s.Close()
	if n := len(b.Shares()); n != 1 {
		t.Errorf("%d shares; want that of the migration", n)
	}
}
