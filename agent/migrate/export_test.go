package migrate

import "github.com/wherry-kvm/wherry/http/api"

// Rows names the lines of the decision table.
func Rows() (out []string) {
	for _, r := range table {
		out = append(out, r.name)
	}
	return out
}

// FullVolume is what an error of libvirt says of a full volume.
func FullVolume(text string, disks []api.PlanDisk, places []api.IncomingPlace, host string, free int64) (disk, detail, hint string, ok bool) {
	f, ok := fullVolume(text, disks, places, host)
	f.free = free
	return f.disk, f.detail(), f.hint(), ok
}
