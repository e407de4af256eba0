package main

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
)

// agent is one that answers as it is told: by what is to be kept, how the operation ends. "" is a refusal.
type agent struct {
	ends  map[string]string
	asked []string
}

func (a *agent) Resolve(_ context.Context, id string, r api.ResolveRequest, _ string) (api.Operation, error) {
	a.asked = append(a.asked, r.Keep)
	if a.ends[r.Keep] == "" {
		return api.Operation{}, api.NewProblem("conflict", "not the %s", r.Keep)
	}
	return api.Operation{ID: id}, nil
}

func (a *agent) WaitOperation(_ context.Context, id string, _ func(api.Operation)) (api.Operation, error) {
	op := api.Operation{ID: id, Status: a.ends[a.asked[len(a.asked)-1]]}
	if op.Status == api.StatusNeedsDecision {
		op.Error = api.NewProblem("needs-decision", "still")
	}
	return op, nil
}

// The copy that runs is kept. Where an agent will not have that, the other is tried, and an operation that takes neither
// is told of with both answers.
func TestResolve(t *testing.T) {
	const source, destination = api.SideSource, api.SideDestination
	for name, row := range map[string]struct {
		arrived bool
		ends    map[string]string
		asked   []string
		refused bool
	}{
		"it runs at the source":      {false, map[string]string{source: api.StatusFailed}, []string{source}, false},
		"it runs at the destination": {true, map[string]string{destination: api.StatusSucceeded}, []string{destination}, false},
		"refused":                    {false, map[string]string{destination: api.StatusSucceeded}, []string{source, destination}, false},
		"still open":                 {true, map[string]string{destination: api.StatusNeedsDecision, source: api.StatusFailed}, []string{destination, source}, false},
		"neither":                    {true, map[string]string{source: api.StatusNeedsDecision}, []string{destination, source}, true},
	} {
		a := &agent{ends: row.ends}
		err := resolve(t.Context(), a, "1", row.arrived, t.Logf)
		if diff := cmp.Diff(row.asked, a.asked); diff != "" {
			t.Errorf("%s: asked to keep %s", name, diff)
		}
		if (err != nil) != row.refused || row.refused && (!strings.Contains(err.Error(), source) || !strings.Contains(err.Error(), destination)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
