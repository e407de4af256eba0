package power

import (
	"cmp"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// decision is what to do next, and why.
type decision struct {
	act act
	why string
	// wait bounds actWait: something may come to be due then.
	wait time.Duration
	// err is what actFail says.
	err *api.Problem
	// warning of actDone is what could not be made sure of.
	warning string
}

// decide says what to do next. It knows nothing but its arguments, so that the
// whole policy is here.
func decide(s situation, o Options) decision {
	switch {
	case s.restarted():
		return failed("conflict", "it ended and was started again by somebody else while it was being stopped").
			hint("ask again to stop the new one")
	case s.process == ended:
		return whenGone(s)
	case s.off() && s.process == alive:
		return whenLeftOver(s, o)
	case s.off():
		return whenOff(s)
	case s.domain.Incoming:
		// Its QEMU belongs to a migration until the source lets go of it.
		return failed("conflict", "it is arriving from another host").hint("stop it there, or when it has arrived")
	case o.Force:
		return force(s, "asked to")
	}
	return whenRunning(s, o)
}

// whenGone: the process has ended, and with it whatever was open. Libvirt has
// to agree, or whoever starts the instance next is told that it runs; but a
// libvirt that is down must not keep its storage from being released.
func whenGone(s situation) decision {
	patience := agree
	if s.unheard {
		patience = agreeUnheard
	}
	left := patience - s.now.Sub(s.endSince)
	switch {
	case s.off():
		return whenOff(s)
	case left > 0:
		return waiting(left, "the process is gone, libvirt has not noticed yet")
	}
	d := decision{act: actDone, why: "the process is gone"}
	d.warning = fmt.Sprintf("libvirt still has it as %s %s after its process ended", s.domain.State, patience)
	if !s.silent.IsZero() {
		d.warning = fmt.Sprintf("libvirt has not answered for %s, its process has ended", s.now.Sub(s.silent).Round(time.Second))
	}
	return d
}

func whenOff(s situation) decision {
	if !s.absent && s.domain.State == hypervisor.Shutoff && s.domain.Reason == "migrated" && s.first.Active() {
		return failed("conflict", "it moved to another host while it was being stopped").hint("stop it there")
	}
	return decision{act: actDone, why: "it does not run"}
}

// whenLeftOver: libvirt thinks that it is off, but its process lives.
func whenLeftOver(s situation, o Options) decision {
	if left := settle - s.now.Sub(s.offSince); left > 0 {
		return waiting(left, "libvirt has it as off, its process is about to end")
	}
	if o.Force || o.ForceAfter {
		return signals(s, "libvirt has it as off, but its process goes on")
	}
	return failed("conflict", "libvirt has it as off, but its process goes on").hint("ask again with force")
}

// What a paused guest is paused for decides whether anybody can answer.
var (
	// An operator's own pause ends by the newer wish: resumed, it can be asked.
	pausedForUser = map[string]bool{"user": true, "from-snapshot": true}
	// These pass by themselves.
	pausedForNow = map[string]bool{
		"starting-up": true, "shutting-down": true, "save": true, "dump": true, "snapshot": true, "migration": true, "postcopy": true,
	}
	// Another host may have the guest: cutting the power because time is over
	// could cut it in two.
	pausedToMove = map[string]bool{"migration": true, "postcopy": true}
	// A part of the guest's memory is on each host, and can be brought together
	// again: only who asks for force by name ends that.
	inHalves = "postcopy-failed"
)

// whenRunning: there is a process, and the guest is to be asked.
func whenRunning(s situation, o Options) decision {
	d := s.domain
	if d.State == hypervisor.Crashed || d.State == hypervisor.Paused && d.Reason == "crashed" {
		// Nobody is left to ask, and nothing to lose.
		return force(s, "the guest has crashed")
	}
	if d.Reason == inHalves && (d.State == hypervisor.Paused || d.State == hypervisor.Running) {
		return failed("conflict", "post-copy has broken off: a part of its memory is on each host").
			hint("the migration's operation says how it is taken up again; stopping it with force gives the guest up, and has to be done on both hosts")
	}
	left := cmp.Or(o.Timeout, DefaultTimeout) - s.now.Sub(s.began)
	if left <= 0 {
		return whenLate(s, o)
	}
	switch d.State {
	case hypervisor.Paused:
		return whenPaused(s, o, left)
	case hypervisor.PMSuspended:
		if since, woken := s.since(actWake); woken && since < pressEvery {
			return waiting(min(pressEvery-since, left), "the guest is waking up")
		}
		return decision{act: actWake, why: "the guest has suspended itself, and cannot be asked so"}
	case hypervisor.Shutdown:
		if _, told := s.tried[actEnd]; s.own && s.process == alive && !told {
			// QEMU is started to wait for libvirt then, which is not there.
			return decision{act: actEnd, why: "the guest has powered off, and libvirt is not there to end its process"}
		}
		return waiting(left, "the guest has powered off, and its process is ending")
	}
	return ask(s, o, left)
}

// whenLate: the guest had its time.
func whenLate(s situation, o Options) decision {
	took := cmp.Or(o.Timeout, DefaultTimeout)
	switch {
	case s.domain.State == hypervisor.Paused && pausedToMove[s.domain.Reason]:
		return failed("conflict", fmt.Sprintf("it is being moved to another host, and was not given back within %s", took)).
			hint("end the migration, or ask again with force")
	case o.ForceAfter:
		return force(s, fmt.Sprintf("the guest is not down after %s", took))
	case !s.silent.IsZero():
		return failed("libvirt-down", fmt.Sprintf("libvirt does not answer, and it has not stopped within %s", took)).
			hint("ask again with force: its process can be ended without libvirt")
	}
	return failed("timeout", fmt.Sprintf("the guest did not power off within %s", took)).
		hint(`ask again with a longer timeout, with on_timeout "force", or with force`)
}

func whenPaused(s situation, o Options, left time.Duration) decision {
	reason := s.domain.Reason
	switch {
	case pausedForNow[reason]:
		return waiting(left, "the guest is paused for now: "+reason)
	case pausedForUser[reason]:
		if _, resumed := s.tried[actResume]; !resumed {
			return decision{act: actResume, why: "the guest was paused, and cannot be asked so"}
		}
		return waiting(left, "the guest was paused again") // whoever does that is not to be fought
	case o.ForceAfter:
		return force(s, "the guest cannot answer, it is paused: "+reason)
	}
	// An I/O error above all. Resuming would write again, perhaps to storage
	// that was taken from this host for a good reason: not for us to decide.
	return failed("conflict", "the guest cannot answer, it is paused: "+reason).
		hint(`put right what stopped it and resume it with "virsh resume", or ask again with force`)
}

// ask asks the guest: its agent, where it answers, and the power button.
func ask(s situation, o Options, left time.Duration) decision {
	if _, pinged := s.tried[actPing]; !pinged {
		return decision{act: actPing, why: "an agent knows better than a button"}
	}
	if s.tried[actPing].err == nil {
		since, asked := s.since(actAgent)
		if !asked {
			return decision{act: actAgent, why: "the guest agent answers"}
		}
		alone := min(agentAlone, cmp.Or(o.Timeout, DefaultTimeout)/3)
		if s.tried[actAgent].err == nil && since < alone {
			return waiting(min(alone-since, left), "the guest agent was asked")
		}
	}
	since, pressed := s.since(actPress)
	if pressed && since < pressEvery {
		return waiting(min(pressEvery-since, left), "the power button was pressed")
	}
	return decision{act: actPress, why: "the guest is to power off by itself"}
}

// force cuts the power, by QEMU's own quit first.
func force(s situation, why string) decision {
	since, done := s.since(actQuit)
	_, signalled := s.tried[actTerm]
	_, destroyed := s.tried[actDestroy]
	switch {
	// Stronger ones come first where libvirt was away: no rung down again then.
	case !done && s.silent.IsZero() && !signalled && !destroyed:
		return decision{act: actQuit, why: why}
	case done && since < afterQuit(s.tried[actQuit].err):
		return waiting(afterQuit(s.tried[actQuit].err)-since, "QEMU was told to quit")
	case s.process == alive:
		return signals(s, why)
	}
	// The process could not be found: libvirt has to know it.
	since, done = s.since(actDestroy)
	switch {
	case !done:
		return decision{act: actDestroy, why: why}
	case since < settle:
		return waiting(settle-since, "libvirt was told to destroy it")
	}
	return failed("libvirt-failed", "libvirt could not end it").because(s.tried[actDestroy].err)
}

// afterQuit: QEMU may have gone with its answer unread, so an error is not
// proof that it did not obey.
func afterQuit(err error) time.Duration {
	if err != nil {
		return quitGrace
	}
	return quitWait
}

// signals ends a process that is known to be the instance's.
func signals(s situation, why string) decision {
	since, done := s.since(actTerm)
	switch {
	case !done:
		return decision{act: actTerm, why: why}
	case since < termWait:
		return waiting(termWait-since, "the process was told to end")
	}
	since, done = s.since(actKill)
	switch {
	case !done:
		return decision{act: actKill, why: why}
	case since < killWait:
		return waiting(killWait-since, "the process was killed")
	}
	return failed("conflict", fmt.Sprintf("its process was killed and has not ended within %s", killWait)).
		hint("it waits for the kernel, most often for storage that does not answer; nothing of its storage was touched")
}

func waiting(d time.Duration, why string) decision { return decision{act: actWait, wait: d, why: why} }

func failed(code, why string) decision {
	return decision{act: actFail, why: why, err: api.NewProblem(code, "%s", why)}
}

func (d decision) hint(text string) decision {
	d.err.Hint = text
	return d
}

func (d decision) because(err error) decision {
	if err != nil {
		d.err = api.NewProblem(d.err.Code, "%s: %w", d.why, err)
	}
	return d
}
