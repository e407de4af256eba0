package operation

// Claim is what an operation is to others that want its instance.
type Claim string

// Claims that may end others, or be ended by them. An operation of any other
// kind does neither: it makes, replaces or removes the instance's disks, and
// whoever wants to end that half-way says so by cancelling it.
const (
	ClaimStart   Claim = "start"
	ClaimMigrate Claim = "migrate"
	ClaimRestart Claim = "restart"
	ClaimStop    Claim = "stop"
	// ClaimStopAtLast is a stop that cuts the power when the guest had its time.
	ClaimStopAtLast Claim = "stop-at-last"
	// ClaimForceStop cuts the power at once.
	ClaimForceStop Claim = "force-stop"
)

// strength orders the claims: a newer request ends an older one that is
// weaker. Of two that are equal the older goes on, for the newer one says
// nothing else.
var strength = map[Claim]int{ClaimStart: 1, ClaimMigrate: 1, ClaimRestart: 2, ClaimStop: 3, ClaimStopAtLast: 4, ClaimForceStop: 5}

// verdict is what becomes of a request for an instance that another operation
// holds.
type verdict int

const (
	refuse  verdict = iota // "busy"
	preempt                // cancel the holder, and wait for it to let go
	await                  // wait for the holder, which is nearly done
)

// contest decides between a newer request and the holder, which can be
// cancelled or not just now.
//
// A migration that cannot be is past its switchover: the guest is on the other
// host, and there is nothing to stop here. Any other that cannot be is in a
// short last part, after which the newer one finds the instance as it is.
func contest(newer, holder Claim, cancellable bool) verdict {
	switch {
	case strength[newer] == 0 || strength[holder] == 0 || strength[newer] <= strength[holder]:
		return refuse
	case cancellable:
		return preempt
	case holder == ClaimMigrate:
		return refuse
	}
	return await
}
