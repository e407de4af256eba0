package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// checkUnused is nil when nobody holds the file open, else ErrInUse. It asks
// twice: /proc names the holder, and a write lease, which the kernel grants
// only on a file that nobody else has open, also sees what /proc cannot show:
// other PID namespaces and loop devices. A file system without leases leaves
// it at the first answer.
func checkUnused(o Owned) error {
	if who := holders(o); len(who) > 0 {
		return fmt.Errorf("%w: %q is held open by %s", ErrInUse, o.Path, strings.Join(who, ", "))
	}
	f, err := o.open(unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w: %q is held open by a process that cannot be seen from here, or by the kernel", ErrInUse, o.Path)
	}
	return nil
}

// holders lists the processes that have the file open, as "name (pid)".
// Processes that end meanwhile, or may not be looked at, are passed over.
func holders(o Owned) []string {
	var out []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		if holds(process, o) {
			comm, _ := os.ReadFile(process + "/comm")
			out = append(out, fmt.Sprintf("%s (%s)", strings.TrimSpace(string(comm)), filepath.Base(process)))
		}
	}
	return out
}

func holds(process string, o Owned) bool {
	folder, err := os.Open(process + "/fd")
	if err != nil {
		return false
	}
	defer folder.Close()
	names, _ := folder.Readdirnames(-1)
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		var st unix.Statx_t
		// DONT_SYNC: a descriptor on a dead file server must not hold us.
		err := unix.Statx(int(folder.Fd()), name, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st)
		if err == nil && st.Ino == o.Ino && unix.Mkdev(st.Dev_major, st.Dev_minor) == o.Dev {
			return true
		}
	}
	return false
}
