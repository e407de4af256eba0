package migrate_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/migrate"
)

// Each row of the decision table, by what both hosts say.
func TestJudge(t *testing.T) {
	running, none := migrate.Side{State: "running"}, migrate.Side{}
	paused := migrate.Side{State: "paused", Reason: "migration"}
	byUser := migrate.Side{State: "paused", Reason: "user"}
	off, unknown := migrate.Side{State: "shutoff"}, migrate.Side{State: "unknown"}
	incoming := migrate.Side{State: "incoming"}
	job := migrate.Side{State: "running", Job: true}
	sent := migrate.Side{State: "running", Sent: true}
	halted := migrate.Side{State: "paused", Reason: "user", Halted: true}
	seen := map[string]bool{}
	for _, c := range []struct {
		row                string
		source, dest       migrate.Side
		journal            migrate.Journal // "" = performing
		patient, impatient migrate.Verdict
		halt               bool
	}{
		{row: "not begun", source: unknown, dest: unknown, journal: migrate.Untouched, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "not begun", source: running, dest: none, journal: migrate.Prepared, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "moved", source: unknown, dest: unknown, journal: migrate.Moved, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "confirmed", source: none, dest: none, journal: migrate.Committed, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "rolled back", source: running, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "rolled back", source: running, dest: incoming, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "rolled back", source: sent, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "handed over, not started yet", source: sent, dest: incoming, patient: migrate.Wait, impatient: migrate.Undecided, halt: true},
		{row: "handed over, not started yet", source: sent, dest: byUser, patient: migrate.Wait, impatient: migrate.Undecided, halt: true},
		{row: "arriving", source: halted, dest: incoming, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "runs here, shut down there", source: sent, dest: off, patient: migrate.Undecided, impatient: migrate.Undecided},
		{row: "paused here, shut down there", source: halted, dest: off, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "gone down there, held here", source: migrate.Side{State: "paused", Reason: "api-error", Held: true}, dest: off, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "gone down there, held here", source: migrate.Side{State: "shutoff", Reason: "crashed", Held: true}, dest: off, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "paused here, shut down there", source: migrate.Side{State: "paused", Held: true, Halted: true}, dest: off, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "paused at the source", source: migrate.Side{State: "paused", Held: true}, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "rolled back, no answer", source: running, dest: unknown, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "moved, by both hosts", source: none, dest: running, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "moved, by both hosts", source: off, dest: running, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "moved, by both hosts", source: paused, dest: running, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "moved, paused", source: none, dest: byUser, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "still moving", source: job, dest: incoming, patient: migrate.Wait, impatient: migrate.Wait},
		{row: "still moving", source: migrate.Side{State: "running", Job: true, Sent: true}, dest: running, patient: migrate.Wait, impatient: migrate.Wait},
		{row: "post-copy broken off", source: migrate.Side{State: "paused", Reason: "postcopy-failed", Job: true}, dest: running, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "post-copy broken off", source: migrate.Side{State: "paused", Reason: "postcopy-failed"}, dest: byUser, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "post-copy broken off there", source: off, dest: migrate.Side{State: "paused", Reason: "postcopy-failed"}, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "post-copy broken off there", source: off, dest: migrate.Side{State: "running", Reason: "postcopy-failed"}, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "post-copy broken off there", source: none, dest: migrate.Side{State: "paused", Reason: "postcopy-failed"}, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "in post-copy", source: migrate.Side{State: "paused", Reason: "postcopy"}, dest: running, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "still moving", source: migrate.Side{State: "paused", Reason: "postcopy", Job: true}, dest: running, patient: migrate.Wait, impatient: migrate.Wait},
		{row: "both run", source: running, dest: running, patient: migrate.Undecided, impatient: migrate.Undecided, halt: true},
		{row: "handed over, no answer", source: sent, dest: unknown, patient: migrate.Wait, impatient: migrate.Undecided, halt: true},
		{row: "perhaps handed over, no answer", source: migrate.Side{State: "running", Unsure: true}, dest: unknown, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "rolled back", source: migrate.Side{State: "running", Unsure: true}, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "ran on both", source: halted, dest: running, patient: migrate.Undecided, impatient: migrate.Undecided},
		{row: "paused at the source", source: halted, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "both paused", source: paused, dest: byUser, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "arriving", source: paused, dest: incoming, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "paused at the source", source: byUser, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "paused at the source", source: migrate.Side{State: "paused", Reason: "api-error", Sent: true}, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "moved, by both hosts", source: migrate.Side{State: "paused", Reason: "api-error", Sent: true}, dest: running, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "taken by the destination", source: migrate.Side{State: "paused", Reason: "api-error", Sent: true}, dest: migrate.Side{State: "shutoff", Committed: true}, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "taken by the destination", source: none, dest: migrate.Side{Committed: true}, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "both run", source: running, dest: migrate.Side{State: "running", Committed: true}, patient: migrate.Undecided, impatient: migrate.Undecided, halt: true},
		{row: "ran on both", source: halted, dest: migrate.Side{State: "running", Committed: true}, patient: migrate.Undecided, impatient: migrate.Undecided},
		{row: "left paused by libvirt", source: paused, dest: none, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "shut down at the source", source: off, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "moved, and shut down since", source: none, dest: off, patient: migrate.KeepDestination, impatient: migrate.KeepDestination},
		{row: "shut down on both", source: off, dest: off, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "on neither", source: none, dest: none, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "destination silent", source: none, dest: unknown, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "destination silent", source: migrate.Side{State: "paused", Sent: true}, dest: unknown, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "source silent", source: unknown, dest: running, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "never left the source", source: migrate.Side{State: "pmsuspended"}, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "never left the source", source: migrate.Side{State: "crashed"}, dest: none, patient: migrate.KeepSource, impatient: migrate.KeepSource},
		{row: "destination silent", source: migrate.Side{State: "pmsuspended"}, dest: unknown, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "anything else", source: migrate.Side{State: "crashed", Unsure: true}, dest: none, patient: migrate.Wait, impatient: migrate.Undecided},
		{row: "anything else", source: migrate.Side{State: "crashed", Sent: true}, dest: none, patient: migrate.Wait, impatient: migrate.Undecided},
	} {
		seen[c.row] = true
		if c.journal == "" {
			c.journal = migrate.Performing
		}
		for patient, want := range map[bool]migrate.Verdict{true: c.patient, false: c.impatient} {
			got := migrate.Judge(migrate.Situation{Source: c.source, Destination: c.dest, Journal: c.journal, Patient: patient})
			if got.Row != c.row || got.Verdict != want || got.Halt != c.halt || got.Why == "" {
				t.Errorf("%s, source %+v, destination %+v, patient %v: %+v; want %q", c.row, c.source, c.dest, patient, got, want)
			}
		}
	}
	for _, name := range migrate.Rows() {
		if !seen[name] {
			t.Errorf("row %q has no test", name)
		}
	}
}

// situations are all that can be, in states that libvirt knows.
func situations() (out []migrate.Situation) {
	bools := []bool{false, true}
	states := []string{"", "running", "paused", "shutoff", "incoming", "unknown", "crashed", "pmsuspended", "blocked"}
	destinations := []migrate.Side{{State: "paused", Reason: "postcopy-failed"}, {State: "running", Reason: "postcopy-failed"},
		{State: "running", Committed: true}, {State: "paused", Committed: true}, {State: "shutoff", Committed: true}}
	for _, d := range states {
		destinations = append(destinations, migrate.Side{State: d})
	}
	for _, s := range states {
		for _, d := range destinations {
			for _, reason := range []string{"", "migration", "user", "postcopy", "postcopy-failed"} {
				for bits := range 32 {
					for _, journal := range []migrate.Journal{migrate.Untouched, migrate.Prepared, migrate.Performing, migrate.Moved, migrate.Committed} {
						for _, patient := range bools {
							out = append(out, migrate.Situation{
								Source:      migrate.Side{State: s, Reason: reason, Job: bits&1 != 0, Sent: bits&2 != 0, Halted: bits&4 != 0, Unsure: bits&8 != 0, Held: bits&16 != 0},
								Destination: d, Journal: journal, Patient: patient})
						}
					}
				}
			}
		}
	}
	return out
}

// Whatever both hosts say: no verdict lets two copies run, and none destroys a
// copy that is not known to be the stale one.
func TestJudgeNeverGuesses(t *testing.T) {
	used := map[string]bool{}
	for _, s := range situations() {
		j := migrate.Judge(s)
		used[j.Row] = true
		src, dst := s.Source, s.Destination
		bad := func(why string) { t.Errorf("%+v: %+v: %s", s, j, why) }
		if j.Row == "" || j.Why == "" {
			bad("no row decides")
		}
		if !s.Patient && j.Verdict == migrate.Wait && !src.Job {
			bad("waits for ever")
		}
		if s.Journal != migrate.Performing {
			continue // that is the truth, whatever the hosts say
		}
		if (src.State == "paused" && strings.HasPrefix(src.Reason, "postcopy") || dst.Reason == "postcopy-failed") && j.Verdict != migrate.Wait && j.Verdict != migrate.Undecided {
			bad("ends one half of a guest")
		}
		running := 0
		for _, state := range []string{src.State, dst.State} {
			if state == "running" {
				running++
			}
		}
		switch j.Verdict {
		case migrate.KeepSource:
			if dst.State == "shutoff" || dst.State == "running" || dst.State == "paused" && src.State != "running" {
				bad("ends what may be the copy with the last writes")
			}
			if dst.State != "" && src.State == "running" && src.Sent {
				bad("the destination may run it, or start it yet")
			}
			if dst.State == "unknown" && (src.State != "running" || src.Unsure) {
				bad("the destination may run it")
			}
			if src.State == "" || src.State == "unknown" {
				bad("nothing is known to be at the source")
			}
		case migrate.KeepDestination:
			if src.State == "running" || src.State == "unknown" || src.Job {
				bad("ends a copy that runs, or may")
			}
			if !slices.Contains([]string{"running", "paused", "shutoff"}, dst.State) {
				bad("nothing is known to be at the destination")
			}
			if dst.State == "shutoff" && !dst.Committed && src.State != "" && (!src.Held || src.Halted) {
				bad("ends what may be the copy with the last writes")
			}
		default:
			// Never two that run on: where both do, or may, one of them is paused.
			if !src.Job && (running == 2 || src.State == "running" && src.Sent && dst.State == "unknown") && !j.Halt {
				bad("lets two copies run")
			}
		}
		if j.Halt && src.State != "running" {
			bad("pauses what does not run")
		}
		if j.Halt && dst.State != "running" && !src.Sent || j.Halt && (dst.State == "" || dst.State == "shutoff") {
			bad("pauses the only one")
		}
	}
	for _, name := range migrate.Rows() {
		if !used[name] {
			t.Errorf("no situation leads to row %q", name)
		}
	}
}
