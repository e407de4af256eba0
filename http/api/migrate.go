package api

// Modes of a migration's storage.
const (
	ModeAuto   = "auto"
	ModeFull   = "full"
	ModeLinked = "linked"
)

// What is done about a guest that writes memory faster than it can be sent,
// where auto-converge and post-copy were not asked for or not enough.
const (
	NotConvergingDowntime = "downtime" // a longer downtime in steps up to max_downtime, then abort
	NotConvergingPause    = "pause"    // it stands still until the rest of its memory has crossed
	NotConvergingAbort    = "abort"    // it runs on where it is
)

// MigrateRequest asks to move an instance to another host. Destination is the
// peer's URL; everything else is optional.
type MigrateRequest struct {
	Destination       string        `json:"destination"`
	Mode              string        `json:"mode,omitempty"`
	Disks             []DiskRequest `json:"disks,omitempty"`
	StageTemplates    bool          `json:"stage_templates,omitempty"`
	Seed              string        `json:"seed,omitempty"`
	Bandwidth         int64         `json:"bandwidth,omitempty"` // bytes per second for each stream; 0 = no limit
	MaxDowntime       Duration      `json:"max_downtime,omitempty"`
	AutoConverge      bool          `json:"auto_converge,omitempty"`
	PostCopy          bool          `json:"post_copy,omitempty"`
	OnNotConverging   string        `json:"on_not_converging,omitempty"`
	Timeout           Duration      `json:"timeout,omitempty"`
	StallTimeout      Duration      `json:"stall_timeout,omitempty"`
	KeepSourceVolumes bool          `json:"keep_source_volumes,omitempty"`
}

// DiskRequest says where one disk goes. Connect is a target that the
// destination connects first; the disk then goes onto the connected path.
type DiskRequest struct {
	Target  string  `json:"target"`
	Pool    string  `json:"pool,omitempty"`
	Format  string  `json:"format,omitempty"`
	Connect *Target `json:"connect,omitempty"`
}

// Plan is the decision about a migration, with its reasons.
type Plan struct {
	Mode    string     `json:"mode"`
	Forced  bool       `json:"forced"`
	Reasons []Reason   `json:"reasons"`
	Disks   []PlanDisk `json:"disks"`
	Checks  []Check    `json:"checks"`
	Bytes   int64      `json:"bytes"`
}

// Actions on a disk of a plan.
const (
	ActionCopy = "copy"
	ActionSkip = "skip"
)

// PlanDisk is what happens to one disk. Bytes is what libvirt will move of it.
type PlanDisk struct {
	Target         string     `json:"target"`
	Action         string     `json:"action"`
	Clone          string     `json:"clone,omitempty"`
	Reason         string     `json:"reason"`
	DirectDownload bool       `json:"direct_download"`
	Template       string     `json:"template,omitempty"`
	Chain          []Layer    `json:"chain"`
	Seed           *Seed      `json:"seed,omitempty"`
	Bytes          int64      `json:"bytes"`
	Source         DiskPlace  `json:"source"`
	Destination    *DiskPlace `json:"destination,omitempty"`
	Connect        *Target    `json:"connect,omitempty"`
	Stage          []Layer    `json:"stage,omitempty"`
}

// Seed says from where the frozen layers of a full clone are filled:
// "destination" (a verified template copy there), or "source" (streamed).
type Seed struct {
	Template string `json:"template,omitempty"`
	From     string `json:"from"`
	Digest   string `json:"digest,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
	// Chain holds the destination's verified layers that the volume is filled from.
	Chain []Layer `json:"chain,omitempty"`
}

// DiskPlace is where a disk's active layer lies. Backing is null for a disk
// that stands alone.
type DiskPlace struct {
	Pool    string  `json:"pool,omitempty"`
	Kind    string  `json:"kind"`
	Path    string  `json:"path"`
	Format  string  `json:"format"`
	Backing *Layer  `json:"backing"`
	Chain   []Layer `json:"chain,omitempty"` // all backing layers, for linked clones
}

// Check is one thing that was looked at before the plan was accepted.
type Check struct {
	Code   string `json:"code"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// MigrateResult is the result of a migration's operation.
type MigrateResult struct {
	Mode        string              `json:"mode"`
	Destination string              `json:"destination"`
	Bytes       MovedBytes          `json:"bytes"`
	Phases      map[string]Duration `json:"phases"`
	Downtime    Duration            `json:"downtime"`
	Warnings    []string            `json:"warnings,omitempty"`
}

// MovedBytes says how much went over the wire, by kind.
type MovedBytes struct {
	Disk   int64 `json:"disk"`
	Memory int64 `json:"memory"`
}
