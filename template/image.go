package template

import (
	"fmt"

	"github.com/wherry-kvm/wherry/template/fault"
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

// whatCame makes a fault of wrong bytes, which says what they look like where
// that says more: a login page in place of an image is no damaged download.
// whole: they came in one piece, so that they will be no better another time.
func (a *attempt) whatCame(wrong error, whole bool) error {
	f := &fault.Fault{Code: fault.Checksum, Class: fault.Source, Permanent: whole, Err: wrong}
	kinds, err := sniff.Look(a.part.Image(), a.part.Size())
	if err != nil || len(kinds) == 0 || kinds[0].Name == FormatQcow2 {
		return f
	}
	f.Code = fault.NotAnImage
	f.Err = fmt.Errorf("what came looks like %s; %w", sniff.Join(kinds), wrong)
	if kinds[0].Name == "html" {
		// Such pages pass: a server that is being mended, or a proxy's login.
		f.Permanent = false
	}
	return f
}
