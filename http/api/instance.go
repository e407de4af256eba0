package api

import "time"

// DefaultProject is the project of a request that names none.
const DefaultProject = "default"

// Ref names an instance: a project and a name in it.
type Ref struct {
	Project string `json:"project"`
	Name    string `json:"name"`
}

// String gives project/name, or the bare name in the default project.
func (r Ref) String() string {
	if r.Project == "" || r.Project == DefaultProject {
		return r.Name
	}
	return r.Project + "/" + r.Name
}

// Health of an instance.
const (
	HealthOK       = "ok"
	HealthDegraded = "degraded"
)

// Instance is a libvirt domain as the agent sees it.
type Instance struct {
	Project   string `json:"project"`
	Name      string `json:"name"`
	UUID      string `json:"uuid"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	VCPUs     int    `json:"vcpus"`
	Memory    int64  `json:"memory"`
	Managed   bool   `json:"managed"`
	Template  string `json:"template,omitempty"`
	Snapshots int    `json:"snapshots,omitempty"`
	Disks     []Disk `json:"disks,omitempty"`
	Operation string `json:"operation,omitempty"`
	// Stop says how the instance goes down with its host, where somebody has said.
	Stop *StopPolicy `json:"stop,omitempty"`
	// Lock is nil while nobody holds the instance.
	Lock *Lock `json:"lock,omitempty"`
	// Health is "ok", or "degraded" where HealthReasons tell why: an image that
	// a disk stands on is gone or has changed.
	Health        string   `json:"health"`
	HealthReasons []string `json:"health_reasons,omitempty"`
}

// Lock says who holds an instance, since when, and who waits for it. Kind is
// that of the operation, or what is done where there is none.
type Lock struct {
	Operation string    `json:"operation,omitempty"`
	Kind      string    `json:"kind"`
	Since     time.Time `json:"since"`
	Waiters   []Waiter  `json:"waiters"`
}

// Waiter waits for an instance; the first of them is the next to have it.
type Waiter struct {
	Operation string    `json:"operation,omitempty"`
	Kind      string    `json:"kind"`
	Since     time.Time `json:"since"`
}

// Disk is one block device of an instance and what it stands on.
type Disk struct {
	Target         string   `json:"target"`
	Kind           string   `json:"kind"`
	Device         string   `json:"device"`
	ReadOnly       bool     `json:"read_only,omitempty"`
	Pool           string   `json:"pool,omitempty"`
	Path           string   `json:"path"`
	Format         string   `json:"format,omitempty"`
	Size           int64    `json:"size"`
	Allocated      int64    `json:"allocated"`
	DirectDownload bool     `json:"direct_download"`
	Template       string   `json:"template,omitempty"`
	Chain          []Layer  `json:"chain"`
	Live           bool     `json:"live"`
	Disagreements  []string `json:"disagreements,omitempty"`
}

// Layer is one image of a chain, the active one first.
type Layer struct {
	Path        string `json:"path"`
	Format      string `json:"format"`
	VirtualSize int64  `json:"virtual_size"`
	Allocated   int64  `json:"allocated"`
	FileSize    int64  `json:"file_size,omitempty"`
	Digest      string `json:"digest,omitempty"`
	Template    string `json:"template,omitempty"`
}

// CreateRequest makes an instance. A given DomainXML is used as it is, disks
// and all; then only Name and Start are read beside it.
type CreateRequest struct {
	Name      string `json:"name"`
	Template  string `json:"template,omitempty"`
	Pool      string `json:"pool,omitempty"`
	DiskSize  int64  `json:"disk_size,omitempty"`
	Clone     string `json:"clone,omitempty"`
	VCPUs     int    `json:"vcpus,omitempty"`
	Memory    int64  `json:"memory,omitempty"`
	DomainXML string `json:"domain_xml,omitempty"`
	// Boot starts a kernel of the host instead of the disk's boot loader.
	Boot *Boot `json:"boot,omitempty"`
	// ConsoleLog is a file of the host that gets a copy of the serial console.
	ConsoleLog string `json:"console_log,omitempty"`
	Start      bool   `json:"start,omitempty"`
	// Stop says how the instance goes down with its host.
	Stop *StopPolicy `json:"stop,omitempty"`
}

// Boot is a direct kernel boot. The files must lie at the same paths on every
// host that the instance may run on.
type Boot struct {
	Kernel  string `json:"kernel"`
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
}

// DeleteRequest removes a stopped instance, its volumes too unless kept.
type DeleteRequest struct {
	KeepVolumes bool `json:"keep_volumes,omitempty"`
}

// StopRequest asks a guest to stop, and says what happens if it does not.
type StopRequest struct {
	Timeout   Duration `json:"timeout,omitempty"`
	OnTimeout string   `json:"on_timeout,omitempty"`
	Force     bool     `json:"force,omitempty"`
}

// Rungs of the ladder by which an instance is stopped, the gentlest first.
const (
	RungAlready = "already" // it did not run, or went down before anybody was asked
	RungAgent   = "agent"   // the guest obeyed its agent
	RungACPI    = "acpi"    // the guest obeyed the power button
	RungQuit    = "quit"    // forced: QEMU was told to quit
	RungTerm    = "sigterm" // forced: its process was told to end
	RungKill    = "sigkill" // forced: its process was killed
	RungDestroy = "destroy" // forced by libvirt, where the agent does not see the process
)

// Forced tells whether a rung cuts the power instead of asking the guest.
func Forced(rung string) bool {
	switch rung {
	case RungQuit, RungTerm, RungKill, RungDestroy:
		return true
	}
	return false
}

// StopResult says which rung of the ladder ended the instance, and how long
// each one that was tried took. Warnings tell what could not be made sure of.
type StopResult struct {
	Rung     string     `json:"rung"`
	Rungs    []RungTime `json:"rungs,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
}

// RungTime is how long a rung was given until the next one or the end; Error is
// why its last try had no effect.
type RungTime struct {
	Rung  string   `json:"rung"`
	Took  Duration `json:"took"`
	Tries int      `json:"tries"`
	Error string   `json:"error,omitempty"`
}

// InstanceList is the answer of GET /v1/instances.
type InstanceList struct {
	Instances []Instance `json:"instances"`
}

// DiskList is the answer of GET /v1/instances/NAME/disks.
type DiskList struct {
	Disks []Disk `json:"disks"`
}
