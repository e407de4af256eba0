package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Resemble gives the reserved file the owner, group and permissions of another
// one, whose place it is to take: where libvirt does not see to them itself
// (dynamic_ownership = 0) a QEMU that is not root opens it by these alone. One
// that is absent, or no file, is nothing to resemble, and no error.
func (o Owned) Resemble(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	like, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	f, err := o.open(unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	// The owner first: a change of it takes permissions away.
	if err := errors.Join(f.Chown(int(like.Uid), int(like.Gid)), f.Chmod(info.Mode().Perm())); err != nil {
		return fmt.Errorf("owner and permissions like %s: %w", path, err)
	}
	return nil
}
