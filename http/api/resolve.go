package api

import "time"

// Sides of a migration, as a decision about one names them.
const (
	SideSource      = "source"
	SideDestination = "destination"
)

// What whoever decides may state about the host that cannot be asked.
const (
	OtherDown  = "down"   // the copy there does not run, and will not by itself
	OtherHasIt = "has-it" // the instance runs there
)

// ResolveRequest settles an operation in needs_decision.
type ResolveRequest struct {
	Keep string `json:"keep"` // the side on which the instance goes on: "source" or "destination"
	// OtherHost is what the caller states about the other host where that one
	// cannot be asked: "down" (its copy does not run, and will not by itself) or
	// "has-it" (the instance runs there). It is not believed against what is known.
	OtherHost string `json:"other_host,omitempty"`
}

// SideFacts is what one host said of an instance when a decision was needed.
type SideFacts struct {
	Side string `json:"side"` // source, destination
	Host string `json:"host,omitempty"`
	// State is libvirt's: "running", "paused", ...; "absent" where libvirt does
	// not have the instance, "unknown" where the host did not answer.
	State   string       `json:"state"`
	Reason  string       `json:"reason,omitempty"`  // libvirt's reason for the state
	Process string       `json:"process,omitempty"` // the instance's QEMU: "runs", "none", or "" where it is not known
	Job     bool         `json:"job,omitempty"`     // a migration is still under way there
	Sent    bool         `json:"sent,omitempty"`    // its QEMU has handed the guest over whole
	Halted  bool         `json:"halted,omitempty"`  // the agent paused it, because the other copy runs or may
	Volumes []SideVolume `json:"volumes,omitempty"`
	// SeenAt is when the host last answered; absent where it never did.
	SeenAt *time.Time `json:"seen_at,omitempty"`
	Detail string     `json:"detail,omitempty"`
}

// SideVolume is a volume of the instance on one host.
type SideVolume struct {
	Disk      string `json:"disk"`
	Path      string `json:"path"`
	Present   bool   `json:"present"` // the file that was noted is there
	Allocated int64  `json:"allocated,omitempty"`
}

// SettleRequest is what a source has its destination do with a copy whose
// migration ended unclearly: "hold" (keep what was made, whatever the lease
// says), "resume" (let the copy that has arrived run), "end" (end the copy,
// its volumes stay), "release" (forget the reservation, its volumes stay).
type SettleRequest struct {
	Act string `json:"act"`
	Why string `json:"why,omitempty"`
}

// What a destination is told to do with its copy.
const (
	SettleHold    = "hold"
	SettleResume  = "resume"
	SettleEnd     = "end"
	SettleRelease = "release"
)
