package operation_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// An operation on a template holds no instance, and says which one it is about
// also after a restart.
func TestTemplateOfAnOperation(t *testing.T) {
	s := store.Memory()
	e := open(t, s)
	op := run(t, e, operation.Spec{Kind: "template", Template: "rocky9"}, func(context.Context, *operation.Op) (any, error) { return nil, nil })
	if op.Template != "rocky9" || op.Instance != "" || op.Project != "" {
		t.Errorf("operation %+v", op)
	}
	closeEngine(t, e)
	if again, err := open(t, s).Get(t.Context(), op.ID); err != nil || again.Template != "rocky9" {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}

// What an operation waits for is told when it begins and when it is over,
// however soon that is; being told again is no news.
func TestProgressDetail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t, store.Memory())
		events, err := e.Events(t.Context(), operation.LiveOnly)
		must(t, err)
		run(t, e, operation.Spec{Kind: "template"}, func(_ context.Context, op *operation.Op) (any, error) {
			for _, detail := range []string{"", "waiting", "waiting", "", ""} {
				op.Progress(api.Progress{Detail: detail})
			}
			return nil, nil
		})
		synctest.Wait()
		var told []string
		for range len(events) {
			if ev := <-events; ev.Detail == "progress" {
				told = append(told, ev.Operation.Progress.Detail)
			}
		}
		if !slices.Equal(told, []string{"", "waiting", ""}) {
			t.Errorf("told %q", told)
		}
	})
}
