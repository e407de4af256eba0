package rebuild

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/volume"
)

func free(folder string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return 0, fmt.Errorf("space of %s: %w", folder, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// room makes a file that has no name, and so goes when it is closed. Where the
// file system knows no such thing the folder's permissions tell, which a folder
// that is immutable or read-only has none of, even for root.
func room(folder string, size int64) error {
	fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR):
		if err := unix.Access(folder, unix.W_OK); err != nil {
			return &os.PathError{Op: "write to", Path: folder, Err: err}
		}
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return nil // the bytes that are free say it better
	case err != nil:
		return &os.PathError{Op: "write to", Path: folder, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	if err := unix.Ftruncate(fd, size); err != nil {
		return &os.PathError{Op: fmt.Sprintf("make a file of %d bytes in", size), Path: folder, Err: err}
	}
	return nil
}

const (
	// largestL1 is the largest L1 table that QEMU takes (QCOW_MAX_L1_SIZE), in
	// bytes, of entries of 8.
	largestL1 = 32 << 20
	entry     = 8
)

func clusterSize(s volume.Spec) int64 { return cmp.Or(s.ClusterSize, volume.DefaultClusterSize) }

// reach is what one entry of the L1 table leads to: a cluster of L2 entries,
// twice as long where they are extended.
func reach(s volume.Spec) int64 {
	c := clusterSize(s)
	if s.ExtendedL2 {
		return c / (2 * entry) * c
	}
	return c / entry * c
}

// largest is the largest disk that an image may have, in bytes.
func largest(s volume.Spec) int64 {
	if s.Format != volume.FormatQcow2 {
		return math.MaxInt64
	}
	return largestL1 / entry * reach(s)
}

// table is the length of the L1 table, in bytes, without what is less than a
// few clusters.
func table(s volume.Spec) int64 {
	if s.Format != volume.FormatQcow2 {
		return 0
	}
	return min(s.VirtualSize/reach(s)*entry, largestL1)
}
