package main

import (
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

func TestReached(t *testing.T) {
	moving := api.Operation{ID: "1", Status: api.StatusRunning, Phase: "perform", Progress: api.Progress{Percent: 40}}
	memory := moving
	memory.Progress.Memory = &api.PartProgress{BytesDone: 1}
	committing := api.Operation{ID: "1", Status: api.StatusRunning, Phase: "commit"}
	failed := api.Operation{ID: "1", Status: api.StatusFailed, Phase: "prepare"}
	for name, row := range map[string]struct {
		op   api.Operation
		when schedule.Trigger
		want bool
	}{
		"journalled":           {moving, schedule.Trigger{Moment: schedule.Begun}, true},
		"in the phase":         {moving, schedule.Trigger{Moment: schedule.Perform}, true},
		"past the phase":       {moving, schedule.Trigger{Moment: schedule.Connect}, true},
		"before the phase":     {moving, schedule.Trigger{Moment: schedule.Commit}, false},
		"enough percent":       {moving, schedule.Trigger{Moment: schedule.Percent, N: 40}, true},
		"too few percent":      {moving, schedule.Trigger{Moment: schedule.Percent, N: 41}, false},
		"all percent":          {committing, schedule.Trigger{Moment: schedule.Percent, N: 99}, true},
		"no memory yet":        {moving, schedule.Trigger{Moment: schedule.Memory}, false},
		"memory":               {memory, schedule.Trigger{Moment: schedule.Memory}, true},
		"not over":             {moving, schedule.Trigger{Moment: schedule.Ended}, false},
		"over":                 {failed, schedule.Trigger{Moment: schedule.Ended}, true},
		"never so far, though": {failed, schedule.Trigger{Moment: schedule.Perform}, false},
	} {
		if got := reached(row.op, row.when); got != row.want {
			t.Errorf("%s: %v; want %v", name, got, row.want)
		}
	}
}
