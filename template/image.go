package template

import (
	"fmt"
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
	stat, statErr := file.Stat()
	if statErr != nil {
		return err
	}
	kinds, lookErr := sniff.Look(file, stat.Size())
	if lookErr != nil || len(kinds) == 0 || kinds[0].Name == FormatQcow2 {
		return err
	}
	return fmt.Errorf("%w; %w: it looks like %s", err, ErrImage, sniff.Join(kinds))
}
