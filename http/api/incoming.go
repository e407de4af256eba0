package api

import "time"

// FactsRequest asks a destination what it would take to receive an instance.
// It is sent once per migration request.
type FactsRequest struct {
	Project   string      `json:"project"`
	Name      string      `json:"name"`
	UUID      string      `json:"uuid"`
	HostUUID  string      `json:"host_uuid"`
	DomainXML string      `json:"domain_xml"`
	Disks     []FactsDisk `json:"disks"`
	Media     []string    `json:"media,omitempty"`
	// MediaDigests are those of the media that are files, by path.
	MediaDigests map[string]string `json:"media_digests,omitempty"`
	Pools        []string          `json:"pools,omitempty"` // pools named by the request
	Stage        bool              `json:"stage,omitempty"`
}

// FactsDisk is a disk that may have to be copied: its chain with digests of
// the backing layers, and a probe file in its folder.
type FactsDisk struct {
	Target string  `json:"target"`
	Pool   string  `json:"pool,omitempty"`
	Path   string  `json:"path"`
	Kind   string  `json:"kind"`
	Size   int64   `json:"size"`
	Chain  []Layer `json:"chain"`
	Probe  *Probe  `json:"probe,omitempty"`
}

// Probe is a file that the source wrote beside a disk: a destination that
// sees the same token under the same name stands on the same storage.
type Probe struct {
	Name  string `json:"name"`
	Token string `json:"token"`
}

// Facts is what the destination answers.
type Facts struct {
	Host           Host            `json:"host"`
	LibvirtURI     string          `json:"libvirt_uri"`
	Address        string          `json:"address,omitempty"` // where migration streams go; "" = libvirt's choice
	Pools          []Pool          `json:"pools"`
	CPU            Check           `json:"cpu"`
	NameTaken      string          `json:"name_taken,omitempty"`    // who holds the name or UUID, in words
	Media          map[string]bool `json:"media,omitempty"`         // by path: it is here
	MediaDiffers   []string        `json:"media_differs,omitempty"` // here, with other bytes
	Disks          []DiskFacts     `json:"disks"`
	GraphicsListen string          `json:"graphics_listen,omitempty"`
}

// DiskFacts is what the destination knows about one disk of the request.
type DiskFacts struct {
	Target string `json:"target"`
	// SharedPools are the pools (their name and folder) that hold the probe file.
	SharedPools []Pool `json:"shared_pools,omitempty"`
	SharedPath  string `json:"shared_path,omitempty"` // the disk's own file as the destination reaches it
	// Layers has one entry for each backing layer of the request, in order.
	Layers []LayerFacts `json:"layers"`
}

// LayerFacts says whether a backing layer exists at the destination. State is
// "verified" (same digest), "differs", "missing" or "unreadable".
type LayerFacts struct {
	Path     string `json:"path"` // at the destination; "" when missing
	State    string `json:"state"`
	Digest   string `json:"digest,omitempty"`
	Template string `json:"template,omitempty"`
	Pool     string `json:"pool,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// IncomingRequest reserves room for an instance.
type IncomingRequest struct {
	Operation string         `json:"operation"` // the source's operation id
	Source    string         `json:"source"`    // the source host's name
	Project   string         `json:"project"`
	Name      string         `json:"name"`
	UUID      string         `json:"uuid"`
	Disks     []IncomingDisk `json:"disks"`
	Stage     []StageLayer   `json:"stage,omitempty"`
	Targets   []Target       `json:"targets,omitempty"` // those connected for this migration
	Lease     Duration       `json:"lease,omitempty"`
	// Record is what the destination keeps once the instance runs there. It
	// comes before anything moves, so that a destination that has lost its
	// source can still finish by itself.
	Record Record `json:"record"`
}

// IncomingDisk is a volume to be made at the destination.
type IncomingDisk struct {
	Target         string    `json:"target"`
	Place          DiskPlace `json:"place"`
	VirtualSize    int64     `json:"virtual_size"`
	ClusterSize    int64     `json:"cluster_size,omitempty"`
	Compat         string    `json:"compat,omitempty"`
	ExtendedL2     bool      `json:"extended_l2,omitempty"`
	Seed           *Seed     `json:"seed,omitempty"`
	Existing       bool      `json:"existing,omitempty"` // a connected path: nothing is created
	DirectDownload bool      `json:"direct_download,omitempty"`
	Template       string    `json:"template,omitempty"`
}

// StageLayer is a backing layer that must be brought to the destination first.
type StageLayer struct {
	Template string    `json:"template,omitempty"`
	Layer    Layer     `json:"layer"`
	Pool     string    `json:"pool"`
	SyncFrom string    `json:"sync_from"`
	Record   *Template `json:"record,omitempty"`
}

// Incoming is a reservation at the destination. It ends by commit, by delete,
// or when the lease runs out.
type Incoming struct {
	ID         string          `json:"id"`
	Operation  string          `json:"operation"`
	Project    string          `json:"project"`
	Name       string          `json:"name"`
	UUID       string          `json:"uuid"`
	State      string          `json:"state"` // preparing, ready, committed, removed, failed
	Lease      time.Time       `json:"lease"`
	LibvirtURI string          `json:"libvirt_uri"`
	DataURI    string          `json:"data_uri"`
	Disks      []IncomingPlace `json:"disks"`
	Error      *Problem        `json:"error,omitempty"`
	Progress   Progress        `json:"progress"`
	// Domain is the state of the instance at the destination as its libvirt
	// says: "running", "paused", "incoming", ... or "" when it is not there.
	Domain  string `json:"domain,omitempty"`
	Running bool   `json:"running"` // the instance runs at the destination
	// Reason is libvirt's reason for the state, and Process says of the
	// instance's QEMU there: "runs", "none", or "" where it is not known.
	Reason  string `json:"reason,omitempty"`
	Process string `json:"process,omitempty"`
	// Held is why the reservation stays although its lease may be over: someone
	// must decide about it first.
	Held string `json:"held,omitempty"`
	// Lost names the disks whose volume somebody has removed or replaced at the
	// destination, until the instance had arrived.
	Lost []Reason `json:"lost,omitempty"`
	// Downtime and MemoryBytes are the finished migration's, known here only.
	Downtime    Duration `json:"downtime,omitempty"`
	MemoryBytes int64    `json:"memory_bytes,omitempty"`
}

// IncomingPlace is where a disk of the reservation lies.
type IncomingPlace struct {
	Target  string  `json:"target"`
	Path    string  `json:"path"`
	Format  string  `json:"format"`
	Backing *Layer  `json:"backing,omitempty"`
	Chain   []Layer `json:"chain,omitempty"`
	Filled  bool    `json:"filled,omitempty"`
}

// CommitRequest ends a reservation well: the instance runs at the
// destination, which writes the record that came with the reservation. A
// record given here replaces that one.
type CommitRequest struct {
	Record *Record `json:"record,omitempty"`
}

// Record is what a host keeps on disk about an instance, enough to stop and
// clean it with nothing else reachable.
type Record struct {
	Project    string       `json:"project" yaml:"project"`
	Name       string       `json:"name" yaml:"name"`
	UUID       string       `json:"uuid" yaml:"uuid"`
	DomainXML  string       `json:"domain_xml" yaml:"domain_xml"`
	Template   string       `json:"template,omitempty" yaml:"template,omitempty"`
	Disks      []RecordDisk `json:"disks" yaml:"disks"`
	Targets    []Target     `json:"targets,omitempty" yaml:"targets,omitempty"`
	Stop       *StopPolicy  `json:"stop,omitempty" yaml:"stop,omitempty"`
	PowerState string       `json:"power_state" yaml:"power_state"`
	UpdatedAt  time.Time    `json:"updated_at" yaml:"updated_at"`
}

// RecordDisk is a disk of a record.
type RecordDisk struct {
	Target         string `json:"target" yaml:"target"`
	Pool           string `json:"pool,omitempty" yaml:"pool,omitempty"`
	Volume         string `json:"volume,omitempty" yaml:"volume,omitempty"`
	Path           string `json:"path" yaml:"path"`
	Format         string `json:"format" yaml:"format"`
	Template       string `json:"template,omitempty" yaml:"template,omitempty"`
	DirectDownload bool   `json:"direct_download" yaml:"direct_download"`
	Owned          bool   `json:"owned" yaml:"owned"` // Wherry made the volume, and deletes it with the instance
}
