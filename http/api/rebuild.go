package api

// Sources of a rebuild.
const (
	SourceOriginal = "original" // the template that the disk was made from
	SourceTemplate = "template" // another one
	SourceEmpty    = "empty"    // nothing
)

// RebuildRequest replaces an instance's root disk and keeps all the rest. With
// Force one that runs is stopped first, given Timeout before its power is cut,
// and started again, whatever comes of the rebuild. DiskSize, in bytes, may
// grow the disk; without it the new one is as large as the old one, or as the
// template where that is larger.
type RebuildRequest struct {
	Source   RebuildSource `json:"source"`
	Start    bool          `json:"start,omitempty"`
	Force    bool          `json:"force,omitempty"`
	Timeout  Duration      `json:"timeout,omitempty"`
	DiskSize int64         `json:"disk_size,omitempty"`
}

// RebuildSource says what the new root disk is made from; Template goes with
// the type "template" alone.
type RebuildSource struct {
	Type     string `json:"type"`
	Template string `json:"template,omitempty"`
}

// RebuildPlan is what a rebuild would do. Stop: the instance runs, and is
// stopped first. Start: it is started afterwards. Fetch: the template is
// brought to this host first. Bytes is what the new disk takes at least beside
// the old one.
type RebuildPlan struct {
	Disk     string      `json:"disk"`
	Old      RebuildDisk `json:"old"`
	New      RebuildDisk `json:"new"`
	Stop     bool        `json:"stop"`
	Start    bool        `json:"start"`
	Fetch    bool        `json:"fetch"`
	Bytes    int64       `json:"bytes"`
	Warnings []string    `json:"warnings,omitempty"`
}

// RebuildDisk is a root disk before or after a rebuild. Sizes are bytes; Clone
// is "linked" or "full". Owned: Wherry made the volume, and removes it.
type RebuildDisk struct {
	Path           string `json:"path,omitempty"` // of a new one: known once it is made
	Pool           string `json:"pool,omitempty"`
	Format         string `json:"format"`
	Size           int64  `json:"size"`
	Allocated      int64  `json:"allocated,omitempty"`
	Clone          string `json:"clone"`
	Template       string `json:"template,omitempty"`
	DirectDownload bool   `json:"direct_download"`
	Owned          bool   `json:"owned"`
}

// RebuildResult says what a rebuild has done. Removed: the old volume is gone;
// where it is not, a warning says why. Rung is how the instance was stopped.
type RebuildResult struct {
	Disk     string      `json:"disk"`
	Old      RebuildDisk `json:"old"`
	New      RebuildDisk `json:"new"`
	Removed  bool        `json:"removed"`
	Started  bool        `json:"started"`
	Rung     string      `json:"rung,omitempty"`
	Warnings []string    `json:"warnings,omitempty"`
}
