package shutdown

import (
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestCross(t *testing.T) {
	running := hypervisor.Domain{State: hypervisor.Running}
	arriving := hypervisor.Domain{State: hypervisor.Paused, Incoming: true}
	handed := hypervisor.Domain{State: hypervisor.Paused, Reason: "migration"}
	postcopy := hypervisor.Domain{State: hypervisor.Paused, Reason: "postcopy"}
	for _, c := range []struct {
		name string
		in   crossing
		want step
	}{
		{"stays where it is", crossing{domain: running}, stepStop},
		{"paused by the operator", crossing{domain: hypervisor.Domain{State: hypervisor.Paused, Reason: "user"}}, stepStop},
		{"off", crossing{domain: hypervisor.Domain{State: hypervisor.Shutoff}}, stepStop},
		{"leaving", crossing{domain: running, outgoing: true}, stepAbort},
		{"leaving, no time", crossing{domain: running, outgoing: true, left: -1}, stepAbort},
		{"leaving, given up", crossing{domain: running, outgoing: true, aborted: true, waited: time.Second, left: time.Minute}, stepWait},
		{"leaving, not to be given up", crossing{domain: running, outgoing: true, aborted: true, waited: abortWait, left: time.Minute}, stepStop},
		{"leaving, given up, no time", crossing{domain: running, outgoing: true, aborted: true, waited: time.Second, left: 0}, stepStop},
		{"given up, back", crossing{domain: running, aborted: true, waited: time.Second, left: time.Minute}, stepStop},
		{"handed over", crossing{domain: handed, outgoing: true, left: time.Minute}, stepWait},
		{"handed over, then aborted", crossing{domain: handed, outgoing: true, aborted: true, left: time.Minute}, stepWait},
		{"handed over, post-copy", crossing{domain: postcopy, outgoing: true, left: time.Minute}, stepWait},
		{"handed over, never confirmed", crossing{domain: handed, outgoing: true, waited: switchoverWait, left: time.Hour}, stepLeave},
		{"handed over, no time", crossing{domain: handed, waited: time.Second, left: 0}, stepLeave},
		{"post-copy broken off, here the source", crossing{domain: hypervisor.Domain{State: hypervisor.Paused, Reason: "postcopy-failed"}, outgoing: true, left: time.Minute}, stepLeave},
		{"post-copy broken off, here the destination", crossing{domain: hypervisor.Domain{State: hypervisor.Running, Reason: "postcopy-failed"}, left: -1}, stepLeave},
		{"arriving by post-copy", crossing{domain: hypervisor.Domain{State: hypervisor.Running, Reason: "postcopy"}, left: time.Minute}, stepWait},
		{"arriving by post-copy for long", crossing{domain: hypervisor.Domain{State: hypervisor.Running, Reason: "postcopy"}, waited: switchoverWait, left: time.Hour}, stepStop},
		{"gone", crossing{gone: true}, stepMoved},
		{"arriving", crossing{domain: arriving, left: time.Minute}, stepWait},
		{"arriving for long", crossing{domain: arriving, waited: arriveWait, left: time.Minute}, stepReturn},
		{"arriving, no time", crossing{domain: arriving, left: 0}, stepReturn},
		{"arrived", crossing{domain: running, waited: time.Second, left: time.Minute}, stepStop},
	} {
		got, why := cross(c.in)
		if got != c.want || (why == "") != (got == stepStop) {
			t.Errorf("%s: %s (%q); want %s", c.name, got, why, c.want)
		}
	}
}
