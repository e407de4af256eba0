package intake

import (
	"context"
	"errors"
	"io"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/sniff"
	"github.com/wherry-kvm/wherry/volume"
)

// sector is what QEMU rounds the size of a disk up to, in bytes.
const sector = 512

// read examines an image of size bytes with our own reader only.
func read(ctx context.Context, r io.ReaderAt, size int64, format string, limit int64) (template.ImageInfo, error) {
	if format != template.FormatRaw && format != template.FormatQcow2 {
		return template.ImageInfo{}, refuse("format %q is not one of raw and qcow2", format)
	}
	if size == 0 {
		return template.ImageInfo{}, foreign("it is empty")
	}
	kinds, err := sniff.Look(r, size)
	if err != nil {
		return template.ImageInfo{}, err
	}
	if err := judgeKinds(kinds, format); err != nil {
		return template.ImageInfo{}, err
	}
	info := template.ImageInfo{Format: format, VirtualSize: size}
	if format == template.FormatQcow2 {
		return readQcow2(ctx, r, size, limit)
	}
	if size%sector != 0 {
		// QEMU would round it up: source and destination would differ.
		return info, refuse("%d bytes are no multiple of %d: the file may be cut short", size, sector)
	}
	return info, judgeSize(size, limit)
}

// judgeKinds compares what the bytes look like with what was declared.
func judgeKinds(kinds []sniff.Kind, format string) error {
	switch {
	case len(kinds) > 1:
		return refuse("it is several things at once: %s", sniff.Join(kinds))
	case len(kinds) == 0 && format != template.FormatRaw:
		return foreign("declared as %s, but it is none", format)
	case len(kinds) == 1 && kinds[0].Name != format:
		return foreign("declared as %s, but it looks like %s", format, kinds[0].Text)
	}
	return nil
}

func judgeSize(size, limit int64) error {
	switch {
	case size <= 0:
		return refuse("its virtual size is 0")
	case size > limit:
		return refuse("virtual size is %d bytes, %d at most", size, limit)
	case size%sector != 0:
		return refuse("virtual size of %d bytes is no multiple of %d", size, sector)
	}
	return nil
}

func readQcow2(ctx context.Context, r io.ReaderAt, size, limit int64) (template.ImageInfo, error) {
	h, err := volume.ReadHeader(r, size)
	if err == nil {
		err = judgeHeader(h)
	}
	if err == nil {
		err = judgeSize(h.VirtualSize, limit)
	}
	if err == nil {
		err = h.CheckTables(ctx, r, size)
	}
	// What the bytes say is a refusal, what reading them says is not.
	if errors.Is(err, volume.ErrHeader) || errors.Is(err, volume.ErrNotQcow2) {
		err = refuse("%v", err)
	}
	return template.ImageInfo{
		Format: template.FormatQcow2, VirtualSize: h.VirtualSize, BackingFile: h.BackingFile,
		ExternalData: h.ExternalData, DataFile: h.DataFile, Encrypted: h.Encrypted, Snapshots: h.Snapshots,
		Dirty: h.Dirty, Corrupt: h.Corrupt, UnknownIncompatible: h.UnknownIncompatible,
	}, err
}

// judgeHeader holds the rules about a qcow2 image. What leads out of the image
// comes first, because it is the worst that can be said about one.
func judgeHeader(h volume.Header) error {
	switch {
	case h.BackingFile != "":
		return refuse("it names a backing file, %s", name(h.BackingFile))
	case h.DataFile != "":
		return refuse("its data lies in another file, %s", name(h.DataFile))
	case h.ExternalData:
		return refuse("its data lies in another file, which it does not name")
	case h.UnknownIncompatible != 0:
		return refuse("it uses unknown incompatible features, %#x", h.UnknownIncompatible)
	case h.Encrypted:
		return refuse("it is encrypted")
	case h.Snapshots > 0:
		return refuse("it holds %d internal snapshots", h.Snapshots)
	case h.Corrupt:
		return refuse("it is marked corrupt")
	case h.Dirty:
		return refuse("it is marked dirty: it was not closed properly")
	case h.Bitmaps:
		return refuse("it holds persistent bitmaps, which belong to the backups of one instance")
	}
	return nil
}
