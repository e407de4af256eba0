package incoming

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// volumeLost is the code of a volume that has gone from under a migration.
const volumeLost = "volume-lost"

// lost names the volumes of a reservation that are not where they were made:
// removed or replaced by somebody. QEMU goes on writing to such a file, which
// has no name any more, and an instance on it would lose its disk with its next
// stop. A volume that cannot be looked at is not called lost.
func lost(r reservation) (out []api.Reason) {
	for _, v := range r.Volumes {
		if v.Owned == nil {
			continue
		}
		if here, err := v.here(); err == nil {
			v = here
		}
		what := ""
		switch err := v.Owned.Verify(); {
		case errors.Is(err, fs.ErrNotExist):
			what = "has been removed"
		case errors.Is(err, volume.ErrNotOwned):
			what = "has been replaced by another file"
		default:
			continue
		}
		out = append(out, api.Reason{Code: volumeLost, Disk: v.Target,
			Detail: fmt.Sprintf("the destination's volume %s %s while it was being filled", v.Owned.Path, what)})
	}
	return out
}

// notOurs tells the errors that mean that a file need not be removed. Any other
// one leaves that open, and the reservation must not be forgotten: a pool that
// gives I/O errors today still has the volume when it is mounted again.
func notOurs(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, volume.ErrNotOwned)
}
