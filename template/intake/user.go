package intake

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// users who may run qemu-img, best first: the package's own, of whom no other
// process is that could be traced or killed, then the one every host has.
var users = []string{"wherry-intake", "nobody"}

// unprivileged is who a child runs as: nil for the same user, if that is not
// root. Supplementary groups are left behind.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var err error
	for _, name := range users {
		var u *user.User
		if u, err = user.Lookup(name); err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 && gid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}, nil
		}
	}
	return nil, fmt.Errorf("no unprivileged user to examine images as: %w", err)
}
