package shutdown

import (
	"time"

	"github.com/wherry-kvm/wherry/hypervisor"
)

const (
	// arriveWait is for an instance that is arriving to arrive, which it does
	// where its source is about to let go of it.
	arriveWait = 10 * time.Second
	// abortWait is for libvirt to give up a migration out of this host.
	abortWait = 30 * time.Second
	// switchoverWait is for a migration past its point of return to end.
	switchoverWait = time.Minute
)

// crossing is what is known of an instance's migration.
type crossing struct {
	domain   hypervisor.Domain
	gone     bool // libvirt no longer has it, or has it as migrated
	outgoing bool // libvirt has a migration out of this host under way
	waited   time.Duration
	left     time.Duration // until the deadline of all
	aborted  bool
}

// step is what to do about a migration.
type step string

const (
	stepStop   step = "stop"   // none, or no longer: the instance is this host's to stop
	stepWait   step = "wait"   //
	stepAbort  step = "abort"  // the migration: the instance stays, and is stopped
	stepReturn step = "return" // end the copy that is arriving: the source goes on with its own
	stepMoved  step = "moved"  // nothing of it is left here
	stepLeave  step = "leave"  // another host may have it: whoever ends it could cut it in two
)

// cross decides about a migration. Before its point of return it is given up:
// what arrives would be stopped as soon as it is here, and what leaves may not
// be there in time. After that it is waited for, within bounds.
func cross(c crossing) (step, string) {
	switch {
	case c.gone:
		return stepMoved, "it runs on another host"
	case c.domain.Reason == inHalves && (c.domain.State == hypervisor.Paused || c.domain.State == hypervisor.Running):
		// Nothing to wait for, and nothing to abort: it can only be taken up again.
		// Started anew, either half would go on without the other's last writes.
		return stepLeave, "post-copy has broken off: a part of its memory is on each host, and what of it is here ends with this host; its migration needs a decision"
	case c.domain.State == hypervisor.Running && c.domain.Reason == "postcopy" && c.waited < min(switchoverWait, c.left):
		return stepWait, "it runs here, and the rest of its memory is still coming"
	case c.domain.Incoming && c.waited < min(arriveWait, c.left):
		return stepWait, "it is arriving from another host"
	case c.domain.Incoming:
		return stepReturn, "it has not arrived; the host that it comes from goes on with it"
	case c.domain.State == hypervisor.Paused && handedOver[c.domain.Reason]:
		if c.waited < min(switchoverWait, c.left) {
			return stepWait, "it is being handed over to another host"
		}
		return stepLeave, "it is being handed over to another host, which may have it already"
	case c.outgoing && !c.aborted:
		return stepAbort, "it is leaving for another host"
	case c.outgoing && c.waited < min(abortWait, c.left):
		return stepWait, "its migration is being given up"
	}
	// A migration that does not let itself be aborted is no reason to lose the
	// guest: it is still asked.
	return stepStop, ""
}

// handedOver are libvirt's reasons for a pause in which another host may
// already have the guest.
var handedOver = map[string]bool{"migration": true, "postcopy": true}

// inHalves is libvirt's reason for the state of either half of a guest whose
// post-copy has broken off; it calls the destination's running.
const inHalves = "postcopy-failed"
