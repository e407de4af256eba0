package power

import (
	"errors"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/hypervisor"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at makes a situation some time after the beginning: a running domain with its
// process, changed by what the case says.
func at(after time.Duration, change ...func(*situation)) situation {
	d := hypervisor.Domain{Name: "vm", UUID: "u", ID: 3, State: hypervisor.Running, Reason: "booted"}
	s := situation{began: begin, now: begin.Add(after), domain: d, first: d, process: alive, tried: map[act]try{}}
	for _, c := range change {
		c(&s)
	}
	return s
}

func is(state hypervisor.State, reason ...string) func(*situation) {
	return func(s *situation) {
		s.domain.State, s.domain.Reason = state, ""
		if len(reason) > 0 {
			s.domain.Reason = reason[0]
		}
		if state == hypervisor.Shutoff {
			s.domain.ID, s.offSince = -1, s.now
		}
	}
}

// did says that something was tried, that long ago.
func did(a act, ago time.Duration, err ...error) func(*situation) {
	return func(s *situation) {
		t := try{count: 1, first: s.now.Add(-ago), last: s.now.Add(-ago), landed: len(err) == 0}
		if len(err) > 0 {
			t.err = err[0]
		}
		s.tried[a] = t
	}
}

func processIs(p liveness, ago time.Duration) func(*situation) {
	return func(s *situation) {
		s.process, s.endSince = p, time.Time{}
		if p == ended {
			s.endSince = s.now.Add(-ago)
		}
	}
}

func own(s *situation)      { silent(s); s.own = true }
func silent(s *situation)   { s.silent = s.now.Add(-time.Second) }
func incoming(s *situation) { s.domain.Incoming, s.domain.State = true, hypervisor.Paused }
func vanished(s *situation) { s.absent, s.offSince = true, s.now }

func unheard(s *situation) {
	s.domain, s.first, s.unheard = hypervisor.Domain{ID: -1}, hypervisor.Domain{ID: -1}, true
}

func off(ago time.Duration) func(*situation) {
	return func(s *situation) { is(hypervisor.Shutoff)(s); s.offSince = s.now.Add(-ago) }
}

var errNo = errors.New("no")

// noAgent: it was looked for, and is not there.
func noAgent(s *situation) { did(actPing, 0, errNo)(s) }

// The whole policy, situation by situation.
func TestDecide(t *testing.T) {
	const late = DefaultTimeout + time.Second
	force, after := Options{Force: true}, Options{ForceAfter: true}
	for _, c := range []struct {
		name string
		s    situation
		o    Options
		want act
		code string        // of a failure
		wait time.Duration // of a wait
	}{
		// Down, or on the way.
		{name: "stopped already", s: at(0, is(hypervisor.Shutoff), processIs(noProcess, 0)), want: actDone},
		{name: "stopped already, forced", s: at(0, is(hypervisor.Shutoff), processIs(noProcess, 0)), o: force, want: actDone},
		{name: "vanished", s: at(0, vanished, processIs(noProcess, 0)), want: actDone},
		{name: "vanished, its process ended", s: at(0, vanished, processIs(ended, 0)), want: actDone},
		{name: "crashed and gone", s: at(0, is(hypervisor.Crashed), processIs(noProcess, 0), func(s *situation) { s.domain.ID = -1 }), want: actDone},
		{name: "powered off, its process ending", s: at(0, is(hypervisor.Shutdown)), want: actWait, wait: DefaultTimeout},
		{name: "powered off, its process does not end", s: at(late, is(hypervisor.Shutdown)), want: actFail, code: "timeout"},
		{name: "powered off, its process does not end, forced after", s: at(late, is(hypervisor.Shutdown)), o: after, want: actQuit},
		{name: "powered off by its own word", s: at(0, own, is(hypervisor.Shutdown)), want: actEnd},
		{name: "powered off by its own word, libvirt never heard", s: at(0, own, unheard, is(hypervisor.Shutdown)), want: actEnd},
		{name: "powered off by the word of a libvirt that is away", s: at(0, silent, is(hypervisor.Shutdown)), want: actWait, wait: DefaultTimeout},
		{name: "powered off, its process told to end", s: at(0, own, is(hypervisor.Shutdown), did(actEnd, 0)), want: actWait, wait: DefaultTimeout},
		{name: "powered off, its process told to end in vain, forced after", s: at(late, own, is(hypervisor.Shutdown), did(actEnd, 0)), o: after, want: actTerm},
		{name: "off for libvirt, the process lives yet", s: at(0, off(time.Second)), want: actWait, wait: settle - time.Second},
		{name: "off for libvirt, the process lives on", s: at(0, off(settle)), want: actFail, code: "conflict"},
		{name: "off for libvirt, the process lives on, forced", s: at(0, off(settle)), o: force, want: actTerm},
		{name: "off for libvirt, the process lives on, forced after", s: at(0, off(settle)), o: after, want: actTerm},
		{name: "gone, libvirt not aware", s: at(0, processIs(ended, time.Second)), want: actWait, wait: agree - time.Second},
		{name: "gone, libvirt not aware, forced", s: at(0, processIs(ended, time.Second)), o: force, want: actWait, wait: agree - time.Second},
		{name: "gone, libvirt never aware", s: at(0, processIs(ended, agree)), want: actDone},
		{name: "gone, libvirt away", s: at(0, silent, processIs(ended, agree)), want: actDone},
		{name: "gone, libvirt never heard", s: at(0, silent, unheard, processIs(ended, time.Second)), want: actWait, wait: agreeUnheard - time.Second},
		{name: "gone, libvirt never heard of late", s: at(0, silent, unheard, processIs(ended, agreeUnheard)), want: actDone},
		{name: "gone and started again", s: at(0, processIs(ended, time.Second), func(s *situation) { s.domain.ID = 4 }), want: actFail, code: "conflict"},
		{name: "started again, forced", s: at(0, func(s *situation) { s.domain.ID = 4 }), o: force, want: actFail, code: "conflict"},
		{name: "gone to another host", s: at(0, is(hypervisor.Shutoff, "migrated"), processIs(ended, 0)), want: actFail, code: "conflict"},
		{name: "had gone to another host before", s: at(0, is(hypervisor.Shutoff, "migrated"), processIs(noProcess, 0), func(s *situation) { s.first = s.domain }), want: actDone},
		{name: "came from another host and vanished", s: at(0, is(hypervisor.Running, "migrated"), vanished, processIs(ended, 0)), want: actDone},

		// Running: the guest is asked.
		{name: "the agent first", s: at(0), want: actPing},
		{name: "the agent answers", s: at(0, did(actPing, 0)), want: actAgent},
		{name: "the agent was asked", s: at(time.Second, did(actPing, 0), did(actAgent, time.Second)), want: actWait, wait: agentAlone - time.Second},
		{name: "the agent was asked, little time", s: at(time.Second, did(actPing, 0), did(actAgent, time.Second)), o: Options{Timeout: 6 * time.Second}, want: actWait, wait: time.Second},
		{name: "the agent was asked and nothing came of it", s: at(agentAlone, did(actPing, 0), did(actAgent, agentAlone)), want: actPress},
		{name: "the agent refused", s: at(0, did(actPing, 0), did(actAgent, 0, errNo)), want: actPress},
		{name: "no agent", s: at(0, noAgent), want: actPress},
		{name: "pressed", s: at(time.Second, noAgent, did(actPress, time.Second)), want: actWait, wait: pressEvery - time.Second},
		{name: "pressed in vain", s: at(time.Second, noAgent, did(actPress, time.Second, errNo)), want: actWait, wait: pressEvery - time.Second},
		{name: "pressed again", s: at(pressEvery, noAgent, did(actPress, pressEvery)), want: actPress},
		{name: "pressed, hardly time left", s: at(9*time.Second, noAgent, did(actPress, time.Second)), o: Options{Timeout: 10 * time.Second}, want: actWait, wait: time.Second},
		{name: "blocked is running", s: at(0, is(hypervisor.Blocked), noAgent), want: actPress},
		{name: "late", s: at(late, noAgent, did(actPress, 0)), want: actFail, code: "timeout"},
		{name: "late, libvirt away", s: at(late, silent, noAgent), want: actFail, code: "libvirt-down"},
		{name: "late by its own timeout", s: at(time.Minute, noAgent), o: Options{Timeout: time.Minute}, want: actFail, code: "timeout"},
		{name: "late, forced after", s: at(late, noAgent), o: after, want: actQuit},
		{name: "in time, forced after", s: at(time.Minute, noAgent), o: after, want: actPress},
		{name: "forced", s: at(0), o: force, want: actQuit},

		// The guest cannot answer.
		{name: "paused by a user", s: at(0, is(hypervisor.Paused, "user")), want: actResume},
		{name: "paused by a user, forced", s: at(0, is(hypervisor.Paused, "user")), o: force, want: actQuit},
		{name: "resumed and paused again", s: at(time.Second, is(hypervisor.Paused, "user"), did(actResume, time.Second)), want: actWait, wait: DefaultTimeout - time.Second},
		{name: "reverted to a snapshot", s: at(0, is(hypervisor.Paused, "from-snapshot")), want: actResume},
		{name: "paused by an I/O error", s: at(0, is(hypervisor.Paused, "ioerror")), want: actFail, code: "conflict"},
		{name: "paused by an I/O error, forced after", s: at(0, is(hypervisor.Paused, "ioerror")), o: after, want: actQuit},
		{name: "paused by an I/O error, forced", s: at(0, is(hypervisor.Paused, "ioerror")), o: force, want: actQuit},
		{name: "paused by its watchdog", s: at(0, is(hypervisor.Paused, "watchdog")), want: actFail, code: "conflict"},
		{name: "paused for a reason nobody knows", s: at(0, is(hypervisor.Paused, "unknown")), want: actFail, code: "conflict"},
		{name: "paused after a post-copy that failed", s: at(0, is(hypervisor.Paused, "postcopy-failed")), want: actFail, code: "conflict"},
		{name: "said to run after a post-copy that failed, late, forced after", s: at(late, is(hypervisor.Running, "postcopy-failed")), o: after, want: actFail, code: "conflict"},
		{name: "paused after a post-copy that failed, forced after", s: at(0, is(hypervisor.Paused, "postcopy-failed")), o: after, want: actFail, code: "conflict"},
		{name: "paused after a post-copy that failed, late, forced after", s: at(late, is(hypervisor.Paused, "postcopy-failed")), o: after, want: actFail, code: "conflict"},
		{name: "paused after a post-copy that failed, forced", s: at(0, is(hypervisor.Paused, "postcopy-failed")), o: force, want: actQuit},
		{name: "starting", s: at(0, is(hypervisor.Paused, "starting-up")), want: actWait, wait: DefaultTimeout},
		{name: "being saved", s: at(0, is(hypervisor.Paused, "save")), o: after, want: actWait, wait: DefaultTimeout},
		{name: "being saved, late", s: at(late, is(hypervisor.Paused, "save")), o: after, want: actQuit},
		{name: "switching over", s: at(0, is(hypervisor.Paused, "migration")), want: actWait, wait: DefaultTimeout},
		{name: "switching over, late, forced after", s: at(late, is(hypervisor.Paused, "migration")), o: after, want: actFail, code: "conflict"},
		{name: "switching over, forced", s: at(0, is(hypervisor.Paused, "migration")), o: force, want: actQuit},
		{name: "arriving", s: at(0, incoming), want: actFail, code: "conflict"},
		{name: "arriving, forced", s: at(0, incoming), o: force, want: actFail, code: "conflict"},
		{name: "panicked, kept", s: at(0, is(hypervisor.Crashed)), want: actQuit},
		{name: "panicked, paused", s: at(0, is(hypervisor.Paused, "crashed")), want: actQuit},
		{name: "suspended by itself", s: at(0, is(hypervisor.PMSuspended)), want: actWake},
		{name: "woken", s: at(time.Second, is(hypervisor.PMSuspended), did(actWake, time.Second)), want: actWait, wait: pressEvery - time.Second},
		{name: "does not wake", s: at(pressEvery, is(hypervisor.PMSuspended), did(actWake, pressEvery)), want: actWake},
		{name: "suspended by itself, late, forced after", s: at(late, is(hypervisor.PMSuspended)), o: after, want: actQuit},

		// Forced, rung by rung.
		{name: "told to quit", s: at(0, did(actQuit, time.Second)), o: force, want: actWait, wait: quitWait - time.Second},
		{name: "told to quit, no answer", s: at(0, did(actQuit, 0, errNo)), o: force, want: actWait, wait: quitGrace},
		{name: "did not quit", s: at(0, did(actQuit, quitWait)), o: force, want: actTerm},
		{name: "did not answer", s: at(0, did(actQuit, quitGrace, errNo)), o: force, want: actTerm},
		{name: "libvirt away", s: at(0, silent), o: force, want: actTerm},
		{name: "libvirt back", s: at(0, did(actTerm, time.Second)), o: force, want: actWait, wait: termWait - time.Second},
		{name: "told to end", s: at(0, did(actQuit, quitWait), did(actTerm, time.Second)), o: force, want: actWait, wait: termWait - time.Second},
		{name: "did not end", s: at(0, did(actQuit, quitWait), did(actTerm, termWait)), o: force, want: actKill},
		{name: "killed", s: at(0, did(actQuit, time.Hour), did(actTerm, time.Hour), did(actKill, time.Second)), o: force, want: actWait, wait: killWait - time.Second},
		{name: "cannot be killed", s: at(0, did(actQuit, time.Hour), did(actTerm, time.Hour), did(actKill, killWait)), o: force, want: actFail, code: "conflict"},
		{name: "did not quit, no process to be found", s: at(0, processIs(noProcess, 0), did(actQuit, quitWait)), o: force, want: actDestroy},
		{name: "libvirt away, no process to be found", s: at(0, silent, processIs(noProcess, 0)), o: force, want: actDestroy},
		{name: "destroyed", s: at(0, processIs(noProcess, 0), did(actQuit, time.Hour), did(actDestroy, time.Second)), o: force, want: actWait, wait: settle - time.Second},
		{name: "not destroyed", s: at(0, processIs(noProcess, 0), did(actQuit, time.Hour), did(actDestroy, settle, errNo)), o: force, want: actFail, code: "libvirt-failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decide(c.s, c.o)
			if d.act != c.want || d.wait != c.wait {
				t.Errorf("%s for %s because %s; want %s for %s", d.act, d.wait, d.why, c.want, c.wait)
			}
			if d.why == "" {
				t.Error("it does not say why")
			}
			if (d.act == actFail) != (d.err != nil) || d.err != nil && (d.err.Code != c.code || d.err.Detail == "") {
				t.Errorf("error %#v; want code %q", d.err, c.code)
			}
		})
	}
}

// What could not be made sure of is said.
func TestDecideWarns(t *testing.T) {
	for name, s := range map[string]situation{"not aware": at(0, processIs(ended, agree)), "away": at(0, silent, processIs(ended, agree))} {
		if d := decide(s, Options{}); d.warning == "" {
			t.Errorf("%s: no warning", name)
		}
	}
	if d := decide(at(0, is(hypervisor.Shutoff), processIs(ended, 0)), Options{}); d.warning != "" {
		t.Errorf("all is well, but %q", d.warning)
	}
}

// The cause of a failure is in its words and its chain.
func TestDecideKeepsTheCause(t *testing.T) {
	d := decide(at(0, processIs(noProcess, 0), did(actQuit, time.Hour), did(actDestroy, settle, errNo)), Options{Force: true})
	if !errors.Is(d.err, errNo) {
		t.Errorf("error %v", d.err)
	}
}
