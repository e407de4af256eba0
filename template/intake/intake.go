// Package intake decides whether an image may become a template.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/sniff"
	"github.com/wherry-kvm/wherry/volume"
)

// Rules is the [template.Intake] of a host: what may become a template.
type Rules struct {
	// MaxVirtualSize in bytes; default 2 TiB.
	MaxVirtualSize int64
}

// refusal is a leaf error: the whole sentence is the cause.
type refusal string

func (r refusal) Error() string { return "image refused: " + string(r) }

// Is lets the registry's callers recognise a refusal.
func (r refusal) Is(target error) bool { return target == template.ErrImage }

func refuse(why string, args ...any) error {
	return &fault.Fault{Code: "image", Class: fault.Policy, Permanent: true, Err: refusal(fmt.Sprintf(why, args...))}
}

// Check looks at the first bytes, so that a raw image cannot pose as another
// format nor the reverse, then at the header.
func (r Rules) Check(ctx context.Context, file *os.File, format string) (template.ImageInfo, error) {
	if ctx.Err() != nil {
		return template.ImageInfo{}, context.Cause(ctx)
	}
	stat, err := file.Stat()
	if err != nil {
		return template.ImageInfo{}, err
	}
	head := make([]byte, sniff.HeadSize)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return template.ImageInfo{}, err
	}
	if err := judgeKind(sniff.Kind(head[:n]), format); err != nil {
		return template.ImageInfo{}, err
	}
	info := template.ImageInfo{Format: format, VirtualSize: stat.Size()}
	if format == template.FormatRaw {
		if stat.Size()%512 != 0 {
			// QEMU would round it up: source and destination would differ.
			return template.ImageInfo{}, refuse("%d bytes are no multiple of 512: the file may be cut short", stat.Size())
		}
	} else {
		h, err := volume.ReadHeader(file, stat.Size())
		if err != nil {
			return template.ImageInfo{}, refuse("%v", err)
		}
		info = template.ImageInfo{Format: format, VirtualSize: h.VirtualSize, BackingFile: h.BackingFile, ExternalData: h.ExternalData, DataFile: h.DataFile,
			Encrypted: h.Encrypted, Snapshots: h.Snapshots, Dirty: h.Dirty, Corrupt: h.Corrupt, UnknownIncompatible: h.UnknownIncompatible}
	}
	limit := r.MaxVirtualSize
	if limit <= 0 {
		limit = template.DefaultMaxSize
	}
	return info, judge(info, format, limit)
}

// judgeKind compares what the first bytes look like with what was declared.
func judgeKind(kind, format string) error {
	switch {
	case kind == "html":
		return refuse("it is an HTML page, not an image: the address leads to a web page or a login")
	case format == template.FormatQcow2 && kind == "":
		return refuse("declared as qcow2, but it is not")
	case kind == "text" && format == template.FormatRaw:
		// Odd for a disk, yet any bytes are a raw image; the checksum was right.
		return nil
	case kind != "" && kind != format:
		return refuse("declared as %s, but it looks like %s", format, kind)
	}
	return nil
}

// judge holds the rules about an image that is of the declared format.
func judge(info template.ImageInfo, format string, limit int64) error {
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
