package template

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// heldOpen tells whether anybody has the file open: the kernel grants a lease
// for writing only on a file that nobody else has. Where there are no leases,
// as on NFS, it does not know, and says no: it is the last look of several.
func heldOpen(path string) (bool, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer file.Close() // and with it the lease
	_, err = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	return errors.Is(err, unix.EAGAIN), nil
}
