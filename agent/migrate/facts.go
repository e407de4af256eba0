package migrate

import (
	"github.com/wherry-kvm/wherry/http/api"
)

// Input is everything that [Decide] looks at.
type Input struct {
	Request     api.MigrateRequest
	Instance    Instance
	Destination api.Facts
}

// Instance is the instance to be moved, as the source host found it.
type Instance struct {
	Ref       api.Ref
	UUID      string
	HostUUID  string
	Snapshots []string // libvirt's snapshots, by name
	Blockers  []string // devices that cannot be moved, in words
	Disks     []Disk
}

// Disk is one disk of the instance at the source.
type Disk struct {
	api.Disk
	// Image parameters that the destination's volume must repeat.
	ClusterSize int64
	Compat      string
	ExtendedL2  bool
	// PoolIdentity says which physical storage the disk lies on; "" = unknown.
	PoolIdentity string
	// Endpoint is where the disk lies when any host can connect to it: an
	// iSCSI LUN, a PowerFlex volume, an RBD image. Nil for a local file.
	Endpoint *api.Target
	// MediaDigest is the digest of a medium that is a file; "" where unknown.
	MediaDigest string
	// Shareable says that other instances may write to the disk too.
	Shareable bool
	// Issues are faults of the chain that forbid a migration.
	Issues []api.Reason
	// RefMissing says that the record names a template but the registry holds
	// no ref of this volume.
	RefMissing bool
	// Stageable are the templates of this host that are backing layers of the
	// disk, by the layer's path.
	Stageable map[string]string
}

// Empty tells whether the drive has no medium.
func (d Disk) Empty() bool { return d.Path == "" }

// Media tells whether the disk is removable or read-only: never copied.
func (d Disk) Media() bool { return d.ReadOnly || d.Device == "cdrom" || d.Device == "floppy" }

// Backing gives the layers below the active one.
func (d Disk) Backing() []api.Layer {
	if len(d.Chain) < 2 {
		return nil
	}
	return d.Chain[1:]
}

// OnDirectDownload tells whether the disk now stands on a direct-download
// template: a flag that was kept for a disk that has since become standalone
// says nothing of the present chain.
func (d Disk) OnDirectDownload() bool { return d.DirectDownload && len(d.Backing()) > 0 }

// request finds what was asked for a disk; the zero value where nothing was.
func (in Input) request(target string) api.DiskRequest {
	for _, r := range in.Request.Disks {
		if r.Target == target {
			return r
		}
	}
	return api.DiskRequest{Target: target}
}

// facts finds what the destination said about a disk.
func (in Input) facts(target string) api.DiskFacts {
	for _, f := range in.Destination.Disks {
		if f.Target == target {
			return f
		}
	}
	return api.DiskFacts{Target: target}
}

// pool finds a pool of the destination by name.
func (in Input) pool(name string) (api.Pool, bool) {
	for _, p := range in.Destination.Pools {
		if p.Name == name {
			return p, true
		}
	}
	return api.Pool{}, false
}
