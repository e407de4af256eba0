package template

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/fault"
)

// writable says why no file can be made or renamed in a folder; nil if one
// can, as far as that can be known without doing it.
func writable(dir string) error {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_TYPE, &st); err != nil {
		return fault.New(fault.Pool, "folder %q: %w", dir, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fault.New(fault.Pool, "%q is no folder", dir)
	case st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0:
		return fault.New(fault.ReadOnly, "folder %q is immutable (chattr +i)", dir)
	case st.Attributes&unix.STATX_ATTR_APPEND != 0:
		return fault.New(fault.ReadOnly, "folder %q is append-only (chattr +a)", dir)
	}
	err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		return fault.New(fault.ReadOnly, "folder %q lies on a read-only file system", dir)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fault.New(fault.NotPermitted, "folder %q is not writable: %w", dir, err)
	}
	return fault.New(fault.IO, "folder %q: %w", dir, err)
}

// explain makes a fault of what failed in a folder: the folder's own state
// says more than an error number. It is of this host in any case.
func explain(dir, code string, err error) *fault.Fault {
	if why := writable(dir); why != nil {
		return &fault.Fault{Code: fault.Of(why).Code, Class: fault.Local, Err: fmt.Errorf("%w: %w", why, err)}
	}
	if f := fault.Of(err); f.Class == fault.Local && f.Code != fault.Internal {
		return f
	}
	return &fault.Fault{Code: code, Class: fault.Local, Err: err}
}
