package volume

import (
	"context"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// reflink tries to make dst share its blocks with src, and reports whether it
// did. Where it cannot, dst is untouched.
func reflink(ctx context.Context, src Chain, dst Owned, layer Layer, r Runner) (bool, error) {
	if len(src) != 1 || !alike(src[0], layer) {
		return false, nil
	}
	done, err := cloneFile(src[0], dst)
	if err != nil || !done {
		return false, err
	}
	if layer.VirtualSize == src[0].VirtualSize {
		return true, nil
	}
	if layer.Format == FormatRaw {
		return true, os.Truncate(dst.Path, layer.VirtualSize)
	}
	_, err = r.Run(ctx, "qemu-img", "resize", "-q", "-f", string(layer.Format), dst.Path, strconv.FormatInt(layer.VirtualSize, 10))
	return true, err
}

// alike says whether the bytes of src are a valid image of dst's kind: a clone
// takes over everything, so everything that the destination was made with must
// be there already, and nothing else (internal snapshots).
func alike(src, dst Layer) bool {
	return src.Format == dst.Format && src.ClusterSize == dst.ClusterSize && src.Compat == dst.Compat &&
		src.ExtendedL2 == dst.ExtendedL2 && src.LazyRefcounts == dst.LazyRefcounts && src.Zstd == dst.Zstd &&
		src.Snapshots == 0 && src.Ino != 0 && dst.Ino != 0
}

func cloneFile(src Layer, dst Owned) (bool, error) {
	from, err := openResolved(src.Real)
	if err != nil {
		return false, err
	}
	defer from.Close()
	to, err := dst.open(unix.O_RDWR)
	if err != nil {
		return false, err
	}
	defer to.Close()
	info, err := from.Stat()
	if err != nil {
		return false, err
	}
	err = unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	switch {
	case err == nil:
		// A clone over a longer file leaves that file's end standing.
		return true, to.Truncate(info.Size())
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM), errors.Is(err, unix.ETXTBSY):
		return false, nil
	}
	return false, &os.PathError{Op: "clone", Path: dst.Path, Err: err}
}
