package template

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ImageInfo is what an image says of itself. Sizes are bytes.
type ImageInfo struct {
	Format      string
	VirtualSize int64
	BackingFile string
	// ExternalData says that guest data lies in another file; DataFile is its
	// name, if the image gives one.
	ExternalData bool
	DataFile     string
	Encrypted    bool
	Snapshots    int
	Dirty        bool
	Corrupt      bool
	// UnknownIncompatible holds feature bits that the reader does not know.
	UnknownIncompatible uint64
}

// Rules is the [Intake] of a host: what may become a template.
type Rules struct {
	// Inspect reads the header of an image as the given format, never
	// guessing one, and never following what the header names.
	Inspect func(path, format string) (ImageInfo, error)
	// MaxVirtualSize in bytes; default 2 TiB.
	MaxVirtualSize int64
}

// Check looks at the first bytes, so that a raw image cannot pose as another
// format nor the reverse, then at the header.
func (r Rules) Check(ctx context.Context, path, format string) (ImageInfo, error) {
	if ctx.Err() != nil {
		return ImageInfo{}, context.Cause(ctx)
	}
	head, size, err := readHead(path)
	if err != nil {
		return ImageInfo{}, err
	}
	if err := judgeKind(Sniff(head), format); err != nil {
		return ImageInfo{}, err
	}
	if format == FormatRaw && size%512 != 0 {
		// QEMU would round it up: source and destination would differ.
		return ImageInfo{}, fmt.Errorf("%w: %d bytes are no multiple of 512: the file may be cut short", ErrImage, size)
	}
	info, err := r.Inspect(path, format)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("%w: %w", ErrImage, err)
	}
	limit := r.MaxVirtualSize
	if limit <= 0 {
		limit = DefaultMaxSize
	}
	return info, judge(info, format, limit)
}

func readHead(path string) (head []byte, size int64, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	head, err = io.ReadAll(io.LimitReader(file, headSize))
	return head, info.Size(), err
}

// whatCame adds to a wrong checksum what the file looks like, where that says
// more: a login page in place of an image is no damaged download.
func whatCame(path string, err error) error {
	head, _, headErr := readHead(path)
	switch kind := Sniff(head); {
	case headErr != nil || kind == "" || kind == FormatQcow2:
		return err
	case kind == "html":
		return fmt.Errorf("%w; %w", err, judgeKind(kind, ""))
	default:
		return fmt.Errorf("%w; %w: it looks like %s", err, ErrImage, kind)
	}
}

// judgeKind compares what the first bytes look like with what was declared.
func judgeKind(kind, format string) error {
	switch {
	case kind == "html":
		return fmt.Errorf("%w: it is an HTML page, not an image: the address leads to a web page or a login", ErrImage)
	case format == FormatQcow2 && kind == "":
		return fmt.Errorf("%w: declared as qcow2, but it is not", ErrImage)
	case kind == "text" && format == FormatRaw:
		// Odd for a disk, yet any bytes are a raw image; the checksum was right.
		return nil
	case kind != "" && kind != format:
		return fmt.Errorf("%w: declared as %s, but it looks like %s", ErrImage, format, kind)
	}
	return nil
}

// judge holds the rules about an image that is of the declared format.
func judge(info ImageInfo, format string, limit int64) error {
	refuse := func(why string, args ...any) error { return fmt.Errorf("%w: %s", ErrImage, fmt.Sprintf(why, args...)) }
	switch {
	case info.Format != "" && info.Format != format:
		return refuse("declared as %s, but it is %s", format, info.Format)
	case info.BackingFile != "":
		return refuse("it names a backing file, %q", info.BackingFile)
	case info.DataFile != "" || info.ExternalData:
		return refuse("its data lies in another file, %q", info.DataFile)
	case info.UnknownIncompatible != 0:
		return refuse("it uses unknown incompatible features, %#x", info.UnknownIncompatible)
	case info.Encrypted:
		return refuse("it is encrypted")
	case info.Snapshots > 0:
		return refuse("it holds %d internal snapshots", info.Snapshots)
	case info.Corrupt:
		return refuse("it is marked corrupt")
	case info.Dirty:
		return refuse("it is marked dirty: it was not closed properly")
	case info.VirtualSize <= 0:
		return refuse("it is empty")
	case info.VirtualSize > limit:
		return refuse("virtual size is %d bytes, %d at most", info.VirtualSize, limit)
	case info.VirtualSize%512 != 0:
		return refuse("virtual size of %d bytes is no multiple of 512", info.VirtualSize)
	}
	return nil
}
