package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Bounds of a qcow2 header. The numbers are those of QEMU's documentation
// (docs/interop/qcow2) and of what QEMU itself refuses to open.
const (
	minClusterBits   = 9
	maxClusterBits   = 21
	headerSizeV2     = 72
	headerSizeV3     = 104
	maxBackingName   = 1023
	maxL1Bytes       = 32 << 20
	maxRefTableBytes = 8 << 20
	maxSnapshots     = 65536
	sectorSize       = 512
)

// Incompatible feature bits: who does not know a set bit must not touch the image.
const (
	featureDirty       = 1 << 0
	featureCorrupt     = 1 << 1
	featureDataFile    = 1 << 2
	featureCompression = 1 << 3
	featureExtendedL2  = 1 << 4
	featuresKnown      = featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2
)

const compatibleLazyRefcounts = 1 << 0

// Header is what a qcow2 header says about its image. Sizes are in bytes.
type Header struct {
	Version     int
	VirtualSize int64
	ClusterSize int64
	// BackingFile is the name as recorded, unresolved; empty means none.
	BackingFile string
	// BackingFormat is the recorded format, whatever it says; empty means none.
	BackingFormat Format
	// DataFile is the recorded name of an external data file. ExternalData
	// may be set without a name.
	DataFile     string
	ExternalData bool
	Encrypted    bool
	ExtendedL2   bool
	Zstd         bool
	Dirty        bool
	Corrupt      bool
	// LazyRefcounts is the compatible feature that makes Dirty normal while
	// the image is open.
	LazyRefcounts bool
	// UnknownIncompatible holds the incompatible bits this reader does not know.
	UnknownIncompatible uint64
	// Snapshots counts internal snapshots; SnapshotNames holds at most
	// MaxSnapshotNames of their names.
	Snapshots     int
	SnapshotNames []string

	// Bitmaps says that the image carries persistent dirty bitmaps.
	Bitmaps bool

	l1Offset, l1Entries int64
	refOffset, refSize  int64 // the refcount table, in bytes
	length              int64 // of the header itself, where extensions begin
}

// Compat is the version in the words of qemu-img's compat option.
func (h Header) Compat() string {
	if h.Version == 2 {
		return "0.10"
	}
	return "1.1"
}

// ReadHeader parses the qcow2 v2 or v3 header at the start of r, an image file
// of size bytes. It reads a bounded amount (the first cluster, and the head of
// the snapshot table), follows no name and trusts no number. Fails with
// ErrNotQcow2, ErrHeader or the reader's own error.
func ReadHeader(r io.ReaderAt, size int64) (Header, error) {
	fixed := make([]byte, headerSizeV3+8)
	n, err := readAtMost(r, fixed, 0)
	if err != nil {
		return Header{}, err
	}
	fixed = fixed[:min(int64(n), size)]
	if len(fixed) < 4 || !bytes.Equal(fixed[:4], []byte("QFI\xfb")) {
		return Header{}, ErrNotQcow2
	}
	if len(fixed) < headerSizeV2 {
		return Header{}, headerErrorf("cut short after %d bytes", len(fixed))
	}
	h, err := parseFixed(fixed, size)
	if err != nil {
		return Header{}, err
	}
	cluster := make([]byte, min(h.ClusterSize, size))
	if n, err = readAtMost(r, cluster, 0); err != nil {
		return Header{}, err
	}
	if err := h.parseFirstCluster(cluster[:n], fixed); err != nil {
		return Header{}, err
	}
	if err := h.readSnapshots(r, size, binary.BigEndian.Uint64(fixed[64:])); err != nil {
		return Header{}, err
	}
	return h, nil
}

// parseFixed reads the fields at fixed offsets and checks them against each
// other and against the length of the file.
func parseFixed(b []byte, size int64) (Header, error) {
	be := binary.BigEndian
	h := Header{Version: int(be.Uint32(b[4:])), length: headerSizeV2}
	bits := be.Uint32(b[20:])
	if h.Version != 2 && h.Version != 3 {
		return h, headerErrorf("version %d is not 2 or 3", h.Version)
	}
	if bits < minClusterBits || bits > maxClusterBits {
		return h, headerErrorf("cluster bits %d outside %d..%d", bits, minClusterBits, maxClusterBits)
	}
	h.ClusterSize = 1 << bits
	if h.Version == 3 {
		if err := h.parseV3(b); err != nil {
			return h, err
		}
	}
	if crypt := be.Uint32(b[32:]); crypt > 2 {
		return h, headerErrorf("encryption method %d is not known", crypt)
	} else if crypt != 0 {
		h.Encrypted = true
	}
	virtual := be.Uint64(b[24:])
	if virtual > math.MaxInt64 || virtual%sectorSize != 0 {
		return h, headerErrorf("virtual size %d is not a number of %d-byte sectors", virtual, sectorSize)
	}
	h.VirtualSize = int64(virtual)
	count := be.Uint32(b[60:])
	if count > maxSnapshots {
		return h, headerErrorf("%d internal snapshots", count)
	}
	h.Snapshots = int(count)
	return h, h.checkTables(b, size)
}

func (h *Header) parseV3(b []byte) error {
	if len(b) < headerSizeV3 {
		return headerErrorf("cut short after %d bytes", len(b))
	}
	be := binary.BigEndian
	incompatible := be.Uint64(b[72:])
	h.length = int64(be.Uint32(b[100:]))
	if h.length < headerSizeV3 || h.length > h.ClusterSize {
		return headerErrorf("header length %d outside %d..%d", h.length, headerSizeV3, h.ClusterSize)
	}
	if h.length%8 != 0 {
		return headerErrorf("header length %d is no multiple of 8", h.length)
	}
	if order := be.Uint32(b[96:]); order > 6 {
		return headerErrorf("refcount order %d is over 6", order)
	}
	h.Dirty = incompatible&featureDirty != 0
	h.Corrupt = incompatible&featureCorrupt != 0
	h.ExternalData = incompatible&featureDataFile != 0
	h.ExtendedL2 = incompatible&featureExtendedL2 != 0
	h.UnknownIncompatible = incompatible &^ featuresKnown
	h.LazyRefcounts = be.Uint64(b[80:])&compatibleLazyRefcounts != 0
	if h.ExtendedL2 && h.ClusterSize < 16<<10 {
		return headerErrorf("extended L2 entries with clusters of %d bytes", h.ClusterSize)
	}
	return h.parseCompression(b, incompatible&featureCompression != 0)
}

// parseCompression holds the type byte and the feature bit to each other: the
// specification sets the bit exactly when the type is not zlib.
func (h *Header) parseCompression(b []byte, feature bool) error {
	var kind byte
	if h.length > headerSizeV3 && len(b) > headerSizeV3 {
		kind = b[headerSizeV3]
	}
	if kind > 1 || (kind != 0) != feature {
		return headerErrorf("compression type %d contradicts its feature bit", kind)
	}
	h.Zstd = kind == 1
	return nil
}

// checkTables bounds the L1 and refcount tables, so that nobody who believes
// this header allocates by a number that an image gave.
func (h *Header) checkTables(b []byte, size int64) error {
	be := binary.BigEndian
	entrySize := int64(8)
	if h.ExtendedL2 {
		entrySize = 16
	}
	span := h.ClusterSize * (h.ClusterSize / entrySize) // guest bytes under one L1 entry
	need := h.VirtualSize / span
	if h.VirtualSize%span != 0 {
		need++
	}
	h.l1Entries = int64(be.Uint32(b[36:]))
	if h.l1Entries*8 > maxL1Bytes || need*8 > maxL1Bytes {
		return headerErrorf("L1 table of %d entries for a virtual size of %d is too large", h.l1Entries, h.VirtualSize)
	}
	if h.l1Entries < need {
		return headerErrorf("L1 table of %d entries is too small for a virtual size of %d", h.l1Entries, h.VirtualSize)
	}
	var err error
	if h.l1Offset, err = h.tableOffset("L1 table", be.Uint64(b[40:]), h.l1Entries*8, size); err != nil {
		return err
	}
	clusters := int64(be.Uint32(b[56:]))
	if clusters == 0 || clusters*h.ClusterSize > maxRefTableBytes {
		return headerErrorf("refcount table of %d clusters", clusters)
	}
	h.refSize = clusters * h.ClusterSize
	h.refOffset, err = h.tableOffset("refcount table", be.Uint64(b[48:]), 1, size)
	return err
}

// tableOffset checks that a table of length bytes is aligned to a cluster and
// lies inside the file; a table beyond its end means a truncated image.
func (h *Header) tableOffset(name string, offset uint64, length, size int64) (int64, error) {
	if offset > math.MaxInt64 || int64(offset)%h.ClusterSize != 0 {
		return 0, headerErrorf("%s at %d is not aligned to a cluster", name, offset)
	}
	if length > 0 && (int64(offset) > size || length > size-int64(offset)) {
		return 0, headerErrorf("%s at %d ends beyond the file's %d bytes", name, offset, size)
	}
	return int64(offset), nil
}

// readAtMost fills b as far as the reader goes; the end of the file is no error.
func readAtMost(r io.ReaderAt, b []byte, offset int64) (int, error) {
	n, err := r.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func headerErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrHeader}, args...)...)
}
