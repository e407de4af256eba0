package template

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/wherry-kvm/wherry/template/sniff"
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

// whatCame adds to a wrong checksum what the file looks like, where that says
// more: a login page in place of an image is no damaged download.
func whatCame(file *os.File, err error) error {
	head := make([]byte, sniff.HeadSize)
	n, headErr := file.ReadAt(head, 0)
	switch kind := sniff.Kind(head[:n]); {
	case headErr != nil && !errors.Is(headErr, io.EOF) || kind == "" || kind == FormatQcow2:
		return err
	case kind == "html":
		return fmt.Errorf("%w; %w: it is an HTML page, not an image: the address leads to a web page or a login", err, ErrImage)
	default:
		return fmt.Errorf("%w; %w: it looks like %s", err, ErrImage, kind)
	}
}
