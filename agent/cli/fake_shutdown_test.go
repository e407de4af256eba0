package cli

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
)

// fakeShutdowns is an agent that shuts its host down at once.
type fakeShutdowns struct{ f *fake }

var aShutdown = api.ShutdownResult{By: "agent", Began: created, Deadline: created, Instances: []api.ShutdownInstance{
	{Project: "default", Name: "web1", UUID: "u1", Priority: 10, Outcome: api.ShutdownStopped, Rung: api.RungACPI, Took: 4_200_000_000},
	{Project: "web", Name: "front", UUID: "u2", Outcome: api.ShutdownMoved, Warnings: []string{"it runs on another host"}},
}}

func (s fakeShutdowns) Shutdown(_ context.Context, r api.ShutdownRequest, _ api.Idempotency) (api.Operation, error) {
	s.f.note("shutdown", r)
	switch r.Timeout.Std().String() {
	case "1s":
		return api.Operation{}, api.NewProblem("internal", "the store is damaged")
	case "2s":
		return api.Operation{}, api.NewProblem("forbidden", "not you")
	}
	return operation("op-shutdown", "host-shutdown", "", api.StatusRunning, ""), nil
}

func (s fakeShutdowns) Status(context.Context) (api.Shutdown, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.f.lost {
		return api.Shutdown{}, nil // as after a restart that recovered nothing
	}
	return api.Shutdown{Operation: "op-shutdown", Result: &aShutdown}, nil
}

func (s fakeShutdowns) Policy(_ context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error) {
	s.f.note("policy "+ref.String(), p)
	return p, nil
}

func (s fakeShutdowns) Ended(_ context.Context, r api.HookRequest) error {
	s.f.note("hook", r)
	return nil
}
