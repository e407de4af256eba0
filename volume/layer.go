package volume

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Layer is one image of a chain. Sizes are in bytes.
type Layer struct {
	// Path is the layer as it was named, absolute; Real is the same with all
	// symbolic links resolved, and is what was opened.
	Path, Real string
	Format     Format
	// Dev and Ino name the file; for a block device Dev is the device itself
	// and Ino is 0, because several nodes may stand for one device.
	Dev, Ino uint64
	// VirtualSize is what the guest sees. QEMU shows a raw file rounded up to
	// a sector, and so does this.
	VirtualSize int64
	// Allocated is what the file takes on its file system (0 for a block
	// device), FileSize is how long it is.
	Allocated, FileSize int64
	// BackingFile is the name in the header, unresolved; empty means none.
	BackingFile string
	// BackingFormat is the format in the header; empty means not recorded.
	BackingFormat Format
	ClusterSize   int64  // 0 for raw
	Compat        string // "0.10" or "1.1"; empty for raw
	ExtendedL2    bool
	Zstd          bool
	LazyRefcounts bool
	// ExternalData says that guest data lies in another file; DataFile is its
	// recorded name, if any. It is never opened.
	ExternalData bool
	DataFile     string
	Encrypted    bool
	// Snapshots counts internal snapshots, SnapshotNames holds the first
	// MaxSnapshotNames of their names.
	Snapshots           int
	SnapshotNames       []string
	Dirty, Corrupt      bool
	UnknownIncompatible uint64
}

// Inspect reads the one image at path, in the format the caller knows it to
// have, and nothing that it refers to. The last component of path may not be a
// symbolic link. Anything but a regular file or a block device is refused
// before it is opened (ErrFileType): opening a tape or a pipe has effects.
// Errors are *LayerError. File I/O cannot be cancelled: a dead file server
// keeps Inspect as long as the kernel waits for it.
func Inspect(path string, format Format) (Layer, error) {
	f, err := openImage(path, unix.O_RDONLY)
	if err != nil {
		return Layer{}, &LayerError{Path: path, Err: err}
	}
	defer f.Close()
	l, err := readLayer(f, path, format)
	if err != nil {
		return Layer{}, &LayerError{Path: path, Err: err}
	}
	return l, nil
}

// openImage opens a regular file or block device, never through a symbolic
// link in the last place. O_NONBLOCK keeps a pipe that was put there between
// the two looks from holding us.
func openImage(path string, flags int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if err := imageType(st.Mode); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := imageType(st.Mode); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func imageType(mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK:
		return nil
	case unix.S_IFLNK:
		return fmt.Errorf("%w: a symbolic link", ErrFileType)
	}
	return ErrFileType
}

// readLayer reads an opened image; f's name is what becomes Real.
func readLayer(f *os.File, path string, format Format) (Layer, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Layer{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	l := Layer{Path: path, Real: f.Name(), Format: format, Dev: st.Dev, Ino: st.Ino,
		FileSize: st.Size, Allocated: st.Blocks * sectorSize}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return Layer{}, err
		}
		l.Dev, l.Ino, l.FileSize, l.Allocated = st.Rdev, 0, size, 0
	}
	switch format {
	case FormatRaw:
		l.VirtualSize = (l.FileSize + sectorSize - 1) / sectorSize * sectorSize
		return l, nil
	case FormatQcow2:
		h, err := ReadHeader(f, l.FileSize)
		if err != nil {
			return Layer{}, err
		}
		l.apply(h)
		return l, nil
	case "":
		return Layer{}, ErrFormatUnknown
	}
	return Layer{}, fmt.Errorf("%w: %q", ErrFormatUnsupported, format)
}

func (l *Layer) apply(h Header) {
	l.VirtualSize, l.ClusterSize, l.Compat = h.VirtualSize, h.ClusterSize, h.Compat()
	l.BackingFile, l.BackingFormat = h.BackingFile, h.BackingFormat
	l.ExtendedL2, l.Zstd, l.LazyRefcounts = h.ExtendedL2, h.Zstd, h.LazyRefcounts
	l.ExternalData, l.DataFile, l.Encrypted = h.ExternalData, h.DataFile, h.Encrypted
	l.Snapshots, l.SnapshotNames = h.Snapshots, h.SnapshotNames
	l.Dirty, l.Corrupt, l.UnknownIncompatible = h.Dirty, h.Corrupt, h.UnknownIncompatible
}

// DetectForPerson tells the format of a file that a person named on a command
// line, and is for nothing else: a guest can write any header into a raw disk,
// so a machine must be told. The qcow2 magic gives FormatQcow2; anything else
// is ErrFormatUnknown, because raw cannot be recognised.
func DetectForPerson(path string) (Format, error) {
	_, err := Inspect(path, FormatQcow2)
	switch {
	case errors.Is(err, ErrNotQcow2):
		return "", &LayerError{Path: path, Err: fmt.Errorf("%w: no qcow2 magic; if the image is raw, say so with --format raw", ErrFormatUnknown)}
	case errors.Is(err, ErrHeader):
		// The magic is there; the caller's own reading tells what is wrong.
		return FormatQcow2, nil
	case err != nil:
		return "", err
	}
	return FormatQcow2, nil
}
