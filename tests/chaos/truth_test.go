package main

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// at makes an operation that ended so many seconds after all began.
func at(second int, host, kind, status string) told {
	return told{host, api.Operation{ID: "1", Kind: kind, Status: status, UpdatedAt: time.Unix(int64(second), 0)}}
}

func TestFollow(t *testing.T) {
	rebuilt := at(2, "a", "rebuild", api.StatusSucceeded)
	rebuilt.op.Result, _ = json.Marshal(api.RebuildResult{Started: true})
	for name, row := range map[string]struct {
		ops  []told
		want []place
	}{
		"nothing was asked":                {nil, []place{{"a", true}}},
		"moved":                            {[]told{at(1, "a", "migrate", api.StatusSucceeded)}, []place{{"b", true}}},
		"not moved":                        {[]told{at(1, "a", "migrate", api.StatusFailed)}, []place{{"a", true}}},
		"moved there and back":             {[]told{at(2, "b", "migrate", api.StatusSucceeded), at(1, "a", "migrate", api.StatusSucceeded)}, []place{{"a", true}}},
		"stopped":                          {[]told{at(1, "a", "stop", api.StatusSucceeded)}, []place{{"a", false}}},
		"told to stop":                     {[]told{at(1, "a", "stop", api.StatusFailed)}, []place{{"a", true}, {"a", false}}},
		"stop of what is not there":        {[]told{at(1, "b", "stop", api.StatusFailed)}, []place{{"a", true}}},
		"told to stop, then moved":         {[]told{at(1, "a", "stop", api.StatusCancelled), at(2, "a", "migrate", api.StatusSucceeded)}, []place{{"b", true}}},
		"arrived, stopped, then over":      {[]told{at(1, "b", "stop", api.StatusSucceeded), at(2, "a", "migrate", api.StatusSucceeded)}, []place{{"b", false}}},
		"stopped on both hosts, then over": {[]told{at(1, "b", "stop", api.StatusSucceeded), at(2, "a", "stop", api.StatusSucceeded), at(3, "a", "migrate", api.StatusSucceeded)}, []place{{"b", false}}},
		"stopped and started":              {[]told{at(1, "a", "stop", api.StatusSucceeded), at(2, "a", "start", api.StatusSucceeded)}, []place{{"a", true}}},
		"rebuilt":                          {[]told{at(1, "a", "stop", api.StatusSucceeded), rebuilt}, []place{{"a", true}}},
		"rebuild failed on the way":        {[]told{at(1, "a", "rebuild", api.StatusFailed)}, []place{{"a", true}, {"a", false}}},
		"a template's is no concern":       {[]told{at(1, "a", "template", api.StatusFailed)}, []place{{"a", true}}},
		"moved, and the stop came late":    {[]told{at(1, "a", "migrate", api.StatusSucceeded), at(2, "a", "stop", api.StatusFailed)}, []place{{"b", true}}},
	} {
		if got := follow("a", row.ops); !slices.Equal(got.places, row.want) {
			t.Errorf("%s: %v; want %v", name, got.places, row.want)
		}
	}
	moved := follow("a", []told{at(1, "a", "migrate", api.StatusSucceeded)})
	moved.killed()
	if want := []place{{"b", true}, {"b", false}}; !slices.Equal(moved.places, want) {
		t.Errorf("moved, and a QEMU was killed: %v; want %v", moved.places, want)
	}
	if !follow("a", []told{at(1, "a", "migrate", api.StatusNeedsDecision)}).undecided {
		t.Error("an operation that needs a decision was not seen")
	}
}

func TestHonest(t *testing.T) {
	problem := api.NewProblem("stalled", "nothing moved")
	for name, row := range map[string]struct {
		change func(*api.Operation)
		status string
		wrong  int
	}{
		"fine":             {func(*api.Operation) {}, api.StatusSucceeded, 0},
		"failed, and why":  {func(o *api.Operation) { o.Error = problem }, api.StatusFailed, 0},
		"goes on":          {func(*api.Operation) {}, api.StatusRunning, 1},
		"failed":           {func(*api.Operation) {}, api.StatusFailed, 1},
		"an error for all": {func(o *api.Operation) { o.Error = problem }, api.StatusSucceeded, 1},
		"a step goes on":   {func(o *api.Operation) { o.Steps = []api.Step{{Name: "perform", Status: "running"}} }, api.StatusSucceeded, 1},
		"a step failed":    {func(o *api.Operation) { o.Steps = []api.Step{{Name: "perform", Status: "failed"}} }, api.StatusSucceeded, 1},
		"taken up again": {func(o *api.Operation) {
			o.Steps = []api.Step{{Name: "perform", Status: "failed"}, {Name: "perform", Status: "done"}}
		}, api.StatusSucceeded, 0},
		"decided on": {func(o *api.Operation) {
			o.Steps = []api.Step{{Name: "perform", Status: "failed"}, {Name: "resolve", Status: "done"}}
		}, api.StatusSucceeded, 0},
		"to be cancelled": {func(o *api.Operation) { o.Cancellable = true }, api.StatusSucceeded, 1},
	} {
		operation := at(1, "a", "migrate", row.status)
		row.change(&operation.op)
		if got := honest(operation); len(got) != row.wrong {
			t.Errorf("%s: %q; want %d complaints", name, got, row.wrong)
		}
	}
}
