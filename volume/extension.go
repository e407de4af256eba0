package volume

import (
	"bytes"
	"encoding/binary"
)

// Header extensions that matter to safety; the others are skipped.
const (
	extensionEnd           = 0
	extensionBackingFormat = 0xE2792ACA
	extensionBitmaps       = 0x23852875
	extensionDataFile      = 0x44415441
	extensionEncryption    = 0x0537BE77
)

// maxFormatName is one less than QEMU's buffer for a backing format.
const maxFormatName = 15

// parseFirstCluster reads what follows the fixed fields: the extensions, and
// the backing file's name behind them.
func (h *Header) parseFirstCluster(cluster, fixed []byte) error {
	be := binary.BigEndian
	end := int64(len(cluster))
	if offset := be.Uint64(fixed[8:]); offset != 0 {
		length := int64(be.Uint32(fixed[16:]))
		if offset < uint64(h.length) || offset > uint64(len(cluster)) {
			return headerErrorf("backing file name at %d lies outside the first cluster", offset)
		}
		end = int64(offset)
		if length > maxBackingName || length > int64(len(cluster))-end {
			return headerErrorf("backing file name of %d bytes is too long", length)
		}
		name := cluster[end : end+length]
		// QEMU would stop at a NUL and open another file than the one shown.
		if bytes.IndexByte(name, 0) >= 0 {
			return headerErrorf("backing file name holds a NUL")
		}
		h.BackingFile = string(name)
	}
	if h.length > end {
		return headerErrorf("cut short after %d bytes", len(cluster))
	}
	return h.parseExtensions(cluster[h.length:end])
}

// parseExtensions walks the extension records. A record that is met twice is
// refused: readers differ in which of the two they believe.
func (h *Header) parseExtensions(b []byte) error {
	be := binary.BigEndian
	seen := map[uint32]bool{}
	for len(b) > 0 {
		if len(b) < 8 {
			return headerErrorf("extension area ends inside a record")
		}
		kind, length := be.Uint32(b), int64(be.Uint32(b[4:]))
		b = b[8:]
		// QEMU looks at the length before it looks what it is of.
		if length > int64(len(b)) {
			return headerErrorf("extension %#x of %d bytes is too long", kind, length)
		}
		if kind == extensionEnd {
			return nil
		}
		if seen[kind] {
			return headerErrorf("extension %#x occurs twice", kind)
		}
		seen[kind] = true
		if err := h.extension(kind, b[:length]); err != nil {
			return err
		}
		b = b[min((length+7)&^7, int64(len(b))):]
	}
	return nil
}

func (h *Header) extension(kind uint32, data []byte) error {
	switch kind {
	case extensionBackingFormat:
		if len(data) > maxFormatName || bytes.IndexByte(data, 0) >= 0 {
			return headerErrorf("backing format name of %d bytes", len(data))
		}
		h.BackingFormat = Format(data)
	case extensionDataFile:
		if len(data) > maxBackingName || bytes.IndexByte(data, 0) >= 0 {
			return headerErrorf("data file name of %d bytes", len(data))
		}
		h.DataFile = string(data)
		// A name without the feature bit has no meaning to QEMU, but it is
		// no accident either: say it.
		h.ExternalData = true
	case extensionEncryption:
		h.Encrypted = true
	case extensionBitmaps:
		h.Bitmaps = true
	}
	return nil
}
