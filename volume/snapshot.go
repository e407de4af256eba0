package volume

import (
	"encoding/binary"
	"io"
	"math"
)

// MaxSnapshotNames bounds how many names of internal snapshots are read; their
// number is known from the header whatever it is.
const MaxSnapshotNames = 64

// Sizes in a snapshot table entry: the fixed part, and QEMU's bound on extra data.
const (
	snapshotEntrySize = 40
	maxSnapshotExtra  = 1024
)

// readSnapshots reads the first names of the snapshot table at offset.
func (h *Header) readSnapshots(r io.ReaderAt, size int64, offset uint64) error {
	if h.Snapshots == 0 {
		return nil
	}
	if offset > math.MaxInt64 || int64(offset)%h.ClusterSize != 0 {
		return headerErrorf("snapshot table at %d is not aligned to a cluster", offset)
	}
	at := int64(offset)
	// Every entry has at least its fixed part: a count the file has no room
	// for is forged.
	if at > size || int64(h.Snapshots)*snapshotEntrySize > size-at {
		return headerErrorf("%d snapshots at %d end beyond the file's %d bytes", h.Snapshots, at, size)
	}
	for range min(h.Snapshots, MaxSnapshotNames) {
		name, next, err := readSnapshot(r, at)
		if err != nil {
			return err
		}
		h.SnapshotNames = append(h.SnapshotNames, name)
		at = next
	}
	return nil
}

// readSnapshot returns the name of the entry at offset and where the next begins.
func readSnapshot(r io.ReaderAt, offset int64) (name string, next int64, err error) {
	be := binary.BigEndian
	fixed := make([]byte, snapshotEntrySize)
	if n, err := readAtMost(r, fixed, offset); err != nil {
		return "", 0, err
	} else if n < len(fixed) {
		return "", 0, headerErrorf("snapshot table at %d is cut short", offset)
	}
	idLength, nameLength := int64(be.Uint16(fixed[12:])), int64(be.Uint16(fixed[14:]))
	extra := int64(be.Uint32(fixed[36:]))
	if extra > maxSnapshotExtra {
		return "", 0, headerErrorf("snapshot entry with %d bytes of extra data", extra)
	}
	at := offset + snapshotEntrySize + extra + idLength
	text := make([]byte, nameLength)
	if n, err := readAtMost(r, text, at); err != nil {
		return "", 0, err
	} else if n < len(text) {
		return "", 0, headerErrorf("snapshot name at %d is cut short", at)
	}
	length := snapshotEntrySize + extra + idLength + nameLength
	return string(text), offset + (length+7)&^7, nil
}
