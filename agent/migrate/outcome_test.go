package migrate_test

import (
	"testing"

	"github.com/wherry-kvm/wherry/agent/migrate"
)

func TestSettle(t *testing.T) {
	running, none := migrate.Side{State: "running"}, migrate.Side{}
	paused := migrate.Side{State: "paused", Reason: "migration"}
	byUser := migrate.Side{State: "paused", Reason: "user"}
	off, unknown := migrate.Side{State: "shutoff"}, migrate.Side{State: "unknown"}
	incoming := migrate.Side{State: "incoming"}
	job := migrate.Side{State: "running", Job: true}
	for _, c := range []struct {
		name               string
		source, dest       migrate.Side
		patient, impatient migrate.Verdict
	}{
		{"rolled back", running, none, migrate.KeepSource, migrate.KeepSource},
		{"rolled back, the destination is still going", running, incoming, migrate.KeepSource, migrate.KeepSource},
		{"rolled back, no answer", running, unknown, migrate.KeepSource, migrate.KeepSource},
		{"done", none, running, migrate.KeepDestination, migrate.KeepDestination},
		{"done, still defined here", off, running, migrate.KeepDestination, migrate.KeepDestination},
		{"done, the source is not cleaned", paused, running, migrate.KeepDestination, migrate.KeepDestination},
		{"done, was paused", none, byUser, migrate.KeepDestination, migrate.KeepDestination},
		{"still moving", job, incoming, migrate.Wait, migrate.Wait},
		{"never two", running, running, migrate.Undecided, migrate.Undecided},
		{"both were handed the guest, no answer", migrate.Side{State: "running", Sent: true}, unknown, migrate.Wait, migrate.Undecided},
		{"paused by the agent beside one that runs", migrate.Side{State: "paused", Reason: "user", Halted: true}, running, migrate.Undecided, migrate.Undecided},
		{"paused by the agent, and the only one", migrate.Side{State: "paused", Reason: "user", Halted: true}, none, migrate.KeepSource, migrate.KeepSource},
		{"both paused", paused, byUser, migrate.Wait, migrate.Undecided},
		{"arriving", paused, incoming, migrate.Wait, migrate.Undecided},
		{"paused by its user", byUser, none, migrate.KeepSource, migrate.KeepSource},
		{"left paused by libvirt", paused, none, migrate.Wait, migrate.Undecided},
		{"the guest shut down", off, none, migrate.KeepSource, migrate.KeepSource},
		{"done, and the guest shut down since", none, off, migrate.KeepDestination, migrate.KeepDestination},
		{"shut down on both", off, off, migrate.Wait, migrate.Undecided},
		{"on neither", none, none, migrate.Wait, migrate.Undecided},
		{"gone here, no answer", none, unknown, migrate.Wait, migrate.Undecided},
		{"no answer here", unknown, running, migrate.Wait, migrate.Undecided},
	} {
		t.Run(c.name, func(t *testing.T) {
			for patient, want := range map[bool]migrate.Verdict{true: c.patient, false: c.impatient} {
				got, why := migrate.Settle(c.source, c.dest, patient)
				if got != want || why == "" {
					t.Errorf("patient %v: %q (%s); want %q", patient, got, why, want)
				}
			}
		})
	}
}
