package migrate

import "github.com/wherry-kvm/wherry/http/api"

// volumeLost is the code of a destination's volume that somebody has removed or
// replaced.
const volumeLost = "volume-lost"

// lostVolume is the problem of the first volume that the destination has lost,
// or nil. The guest must not go there: it would write to a file without a name.
func lostVolume(lost []api.Reason) *api.Problem {
	if len(lost) == 0 {
		return nil
	}
	return api.NewProblem(volumeLost, "%s", lost[0].Detail).WithDisk(lost[0].Disk).WithReasons(lost)
}
