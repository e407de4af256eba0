package inspect

import (
	"path/filepath"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// ByVolume tells whether a definition names disks as volumes of pools, whose
// paths it does not have.
func ByVolume(disks []domainxml.Disk) bool {
	return slices.ContainsFunc(disks, func(d domainxml.Disk) bool { return d.Type == "volume" })
}

// Locate gives those disks the paths that their volumes have in pools that are
// folders.
func Locate(disks []domainxml.Disk, pools []api.Pool) {
	for i, d := range disks {
		at := slices.IndexFunc(pools, func(p api.Pool) bool { return p.Name == d.Pool && p.Path != "" })
		if d.Type == "volume" && at >= 0 {
			disks[i].Source = filepath.Join(pools[at].Path, d.Volume)
		}
	}
}
