package migrate_test

import (
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestResolveChoices(t *testing.T) {
	running, none, off, unknown := migrate.Side{State: "running"}, migrate.Side{}, migrate.Side{State: "shutoff"}, migrate.Side{State: "unknown"}
	paused, sent := migrate.Side{State: "paused"}, migrate.Side{State: "paused", Sent: true}
	half := migrate.Side{State: "paused", Reason: "postcopy-failed"}
	source, destination := migrate.Choice{Keep: migrate.KeepSource}, migrate.Choice{Keep: migrate.KeepDestination}
	said := func(c migrate.Choice, other string) migrate.Choice { c.Other = other; return c }
	type want = migrate.Resolution
	for _, c := range []struct {
		name     string
		choice   migrate.Choice
		src, dst migrate.Side
		want     want
		refused  string // part of why
	}{
		{"both run, the source stays", source, running, running, want{EndDestination: true, Discard: true}, ""},
		{"both run, the destination stays", destination, running, running, want{Halt: true, Commit: true, Discard: true}, ""},
		{"the agent paused the source, which stays", source, sent, running, want{EndDestination: true, ResumeSource: true, Discard: true}, ""},
		{"the agent paused the source, which goes", destination, sent, running, want{Commit: true, Discard: true}, ""},
		{"both paused, the source stays", source, paused, paused, want{EndDestination: true, ResumeSource: true, Discard: true}, ""},
		{"both paused, the destination stays", destination, paused, paused, want{ResumeDestination: true, Commit: true, Discard: true}, ""},
		{"only at the source", source, paused, none, want{ResumeSource: true, Discard: true}, ""},
		{"only at the source, and refused", destination, paused, none, want{}, "nothing of it at the destination"},
		{"only at the destination", destination, none, paused, want{ResumeDestination: true, Commit: true, Discard: true}, ""},
		{"only at the destination, and refused", source, none, running, want{}, "nothing of it at the source"},
		{"only defined at the source", source, off, running, want{}, "the only one that runs"},
		{"only defined at the destination", destination, running, off, want{}, "the only one that runs"},
		{"both shut off, the source stays", source, off, off, want{EndDestination: true}, ""},
		{"both shut off, the destination stays", destination, off, off, want{Commit: true}, ""},
		{"on neither, the source stays", source, none, none, want{}, ""},
		{"on neither, the destination stays", destination, none, none, want{Commit: true}, ""},
		{"still arriving", destination, paused, migrate.Side{State: "incoming"}, want{}, "still arriving"},
		{"arriving, and ended", source, paused, migrate.Side{State: "incoming"}, want{EndDestination: true, ResumeSource: true, Discard: true}, ""},
		{"silent, never handed over", source, paused, unknown, want{ResumeSource: true}, ""},
		{"silent, perhaps handed over", source, migrate.Side{State: "running", Unsure: true}, unknown, want{}, "two running copies"},
		{"silent, handed over", source, sent, unknown, want{}, "two running copies"},
		{"silent, handed over, said to be down", said(source, api.OtherDown), sent, unknown, want{ResumeSource: true}, ""},
		{"silent, said to have it", said(source, api.OtherHasIt), sent, unknown, want{}, "two running copies"},
		{"silent, and chosen", destination, sent, unknown, want{}, "could be destroyed"},
		{"silent, chosen, said to be down", said(destination, api.OtherDown), sent, unknown, want{}, "could be destroyed"},
		{"silent, chosen, said to have it", said(destination, api.OtherHasIt), sent, unknown, want{}, ""},
		{"silent, chosen, said to have it, never handed over", said(destination, api.OtherHasIt), running, unknown, want{}, "never handed over"},
		{"silent, chosen, gone here", said(destination, api.OtherHasIt), none, unknown, want{}, ""},
		{"a statement against what is known", said(destination, api.OtherHasIt), paused, none, want{}, "nothing of it at the destination"},
		{"in two halves, the source stays", source, half, half, want{}, "a part of its memory is on each host"},
		{"in two halves, the destination stays", destination, half, half, want{}, "a part of its memory is on each host"},
		{"in two halves, and libvirt keeps the job", source, migrate.Side{State: "paused", Reason: "postcopy-failed", Job: true}, half, want{}, "a part of its memory is on each host"},
		{"in post-copy, without a job", destination, migrate.Side{State: "paused", Reason: "postcopy"}, running, want{}, "a part of its memory is on each host"},
		{"half of it ended, the destination stays", destination, off, half, want{}, "only a part of its memory"},
		{"half of it ended, the source stays", source, off, half, want{}, "only a part of its memory"},
		{"half of it ended, the other is said to run", destination, off, migrate.Side{State: "running", Reason: "postcopy-failed"}, want{}, "only a part of its memory"},
		{"both halves ended", source, off, none, want{}, ""},
		{"both halves ended, and refused", destination, off, none, want{}, "nothing of it at the destination"},
		{"taken up again", destination, none, running, want{Commit: true, Discard: true}, ""},
		{"source silent", source, unknown, running, want{}, "does not answer"},
		{"still going on", source, migrate.Side{State: "running", Job: true}, none, want{}, "still going on"},
		{"crashed", source, migrate.Side{State: "crashed"}, none, want{}, "nobody can tell"},
	} {
		got := migrate.Resolve(c.choice, c.src, c.dst)
		if c.refused != "" {
			if !strings.Contains(got.Refusal, c.refused) {
				t.Errorf("%s: %+v; want a refusal: %s", c.name, got, c.refused)
			}
			continue
		}
		if got != c.want {
			t.Errorf("%s: %+v; want %+v", c.name, got, c.want)
		}
	}
}

// Each choice, in each situation, is carried out on what is really there, where
// a silent host may have anything that its statement allows: never do two copies
// run, never is the only one destroyed, and no copy goes before the other one is
// where it is to be.
func TestResolveIsNeverDestructive(t *testing.T) {
	seen := 0
	for _, s := range situations() {
		if s.Journal != migrate.Performing || s.Patient {
			continue
		}
		for _, keep := range []migrate.Verdict{migrate.KeepSource, migrate.KeepDestination} {
			for _, other := range []string{"", api.OtherDown, api.OtherHasIt} {
				r := migrate.Resolve(migrate.Choice{Keep: keep, Other: other}, s.Source, s.Destination)
				if r.Refusal != "" {
					if r != (migrate.Resolution{Refusal: r.Refusal}) {
						t.Errorf("%+v, %s: refused, and %+v", s, keep, r)
					}
					continue
				}
				for _, real := range really(s.Source, s.Destination, other) {
					seen++
					carried(t, s, keep, other, r, real)
				}
			}
		}
	}
	if seen < 1000 {
		t.Fatalf("only %d situations were looked at", seen)
	}
}

// really are the states that the destination can be in. A guest that was never
// handed over cannot run there, whatever is said.
func really(src, dst migrate.Side, other string) []string {
	switch {
	case dst.State != "unknown":
		return []string{dst.State}
	case other == api.OtherHasIt:
		return []string{"running"}
	case other == api.OtherDown, src.State == "running" && !src.Sent, src.State == "paused" && !src.Sent:
		return []string{"", "paused", "shutoff"}
	}
	return []string{"", "running", "paused", "shutoff"}
}

func carried(t *testing.T, s migrate.Situation, keep migrate.Verdict, other string, r migrate.Resolution, destination string) {
	t.Helper()
	source := s.Source.State
	bad := func(why string) {
		t.Errorf("source %+v, destination %+v (really %q), keep %s, stated %q: %+v: %s", s.Source, s.Destination, destination, keep, other, r, why)
	}
	two := func() {
		if source == "running" && destination == "running" && (s.Source.State != "running" || s.Destination.State != "running") {
			bad("makes two running copies")
		}
	}
	before := source != "" || destination != ""
	if r.Halt {
		source = "paused"
	}
	if r.ResumeDestination {
		destination = "running"
	}
	two()
	if r.EndDestination {
		destination = ""
	}
	if r.ResumeSource {
		source = "running"
	}
	two()
	// What is given up: the definition at the source once it has moved, and the
	// volumes of the loser where they may go.
	winner := source
	if keep == migrate.KeepDestination {
		winner = destination
		if source == "running" {
			bad("leaves the copy that is given up running")
		}
		source = ""
	}
	if r.Discard && winner != "running" {
		bad("destroys volumes though nobody has seen the other copy run")
	}
	if before && source == "" && destination == "" {
		bad("destroys the only one")
	}
	if source == "running" && destination == "running" {
		bad("two copies run at the end")
	}
}
