package power

import (
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// DefaultTimeout is what a guest is given when nobody says.
const DefaultTimeout = 2 * time.Minute

// How long each thing is waited for.
const (
	// pressEvery is the pause between two presses of the button.
	pressEvery = 5 * time.Second
	// agentAlone bounds how long a guest whose agent was asked is left alone
	// before the button is pressed too; a third of the timeout if that is less.
	agentAlone = 30 * time.Second
	// quitWait and termWait are for QEMU to write its caches back. On storage
	// that hangs no time is enough, and SIGKILL has to come.
	quitWait  = 5 * time.Second
	quitGrace = time.Second
	termWait  = 5 * time.Second
	// killWait is for the kernel: a process that waits for storage ends when
	// the storage answers, or never.
	killWait = 30 * time.Second
	// settle is how long one side may be behind the other: libvirt takes a
	// domain for ended before its process is, at times.
	settle = 10 * time.Second
	// agree is how long libvirt, which may be restarting, is waited for once
	// the process is gone.
	agree = 30 * time.Second
	// agreeUnheard is the same for a libvirt that has said nothing since the stop
	// began: it is down rather than restarting, and a host that goes down has
	// others to stop.
	agreeUnheard = 3 * time.Second
)

// Options say how an instance is brought down.
type Options struct {
	// Timeout is for the guest; 0 = DefaultTimeout.
	Timeout time.Duration
	// ForceAfter allows to cut the power when the timeout is over, or as soon
	// as it is clear that the guest cannot answer.
	ForceAfter bool
	// Force cuts the power at once.
	Force bool
}

// act is one thing to do.
type act string

const (
	actWait    act = "wait"
	actPing    act = "ping" // the guest agent
	actAgent   act = api.RungAgent
	actPress   act = api.RungACPI
	actResume  act = "resume"
	actWake    act = "wake"
	actQuit    act = api.RungQuit
	actTerm    act = api.RungTerm
	actKill    act = api.RungKill
	actDestroy act = api.RungDestroy
	actEnd     act = "end" // a process whose guest has powered off: nothing is lost
	actDone    act = "done"
	actFail    act = "fail"
)

// rungs are the acts that can end an instance, the strongest last.
var rungs = []act{actAgent, actPress, actQuit, actTerm, actKill, actDestroy}

// try is what is known of an act that was done.
type try struct {
	count       int
	first, last time.Time
	err         error // of the last, nil also where it was not known in time what came of it
	landed      bool  // at least one may have had an effect
}

// liveness is what is known of the instance's QEMU process.
type liveness int

const (
	noProcess liveness = iota // none was found
	alive
	ended
)

// situation is all that the decision depends on.
type situation struct {
	now, began time.Time

	// domain is what libvirt said last; absent, that it has none such. Both are
	// kept while it does not answer, since silent; but where QEMU answers for
	// itself then, the domain's state is its own word.
	domain  hypervisor.Domain
	absent  bool
	silent  time.Time // zero = it answers
	unheard bool      // libvirt has not answered since the stop began
	own     bool
	first   hypervisor.Domain

	process  liveness
	offSince time.Time // libvirt says that it does not run; zero = it does not say so
	endSince time.Time // of the process; zero = not ended

	tried map[act]try
}

// off: libvirt says that there is nothing running.
func (s situation) off() bool { return s.absent || !s.domain.Active() }

// restarted: what runs is not what ran when the stop began.
func (s situation) restarted() bool {
	return !s.off() && s.first.ID >= 0 && s.domain.ID >= 0 && s.domain.ID != s.first.ID
}

// since gives how long ago something was done last; false if never.
func (s situation) since(a act) (time.Duration, bool) {
	t, ok := s.tried[a]
	return s.now.Sub(t.last), ok
}
