package volume

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
)

// Parts of a table entry (docs/interop/qcow2, "Cluster mapping").
const (
	entryOffset     = 0x00ff_ffff_ffff_fe00 // bits 9 to 55
	entryCopied     = 1 << 63
	entryCompressed = 1 << 62
	entryZero       = 1 << 0
	refReserved     = 0x1ff
)

// CheckTables reads the tables that map guest clusters, and the refcount table,
// and refuses what points outside of the file, at the header, askew, at one L2
// table twice, or has reserved bits: a truncated or a forged image. It is for
// images that hold their data themselves, and says nothing about refcounts,
// which matter to nobody who only reads. size is the file's, in bytes.
//
// The L1 table has 32 MiB at most, the refcount table 8 MiB; L2 tables are each
// read once and lie in the file, so that no more is read than the file has, and
// nothing larger than these is held. Fails with ErrHeader, ctx's cause, or the
// reader's own error.
func (h Header) CheckTables(ctx context.Context, r io.ReaderAt, size int64) error {
	l1Size := h.l1Entries * 8
	switch {
	case l1Size > 0 && h.l1Offset == 0:
		return headerErrorf("L1 table lies in the header")
	case h.refOffset == 0:
		return headerErrorf("refcount table lies in the header")
	case h.refSize > size-h.refOffset:
		return headerErrorf("refcount table at %d ends beyond the file's %d bytes", h.refOffset, size)
	case h.l1Offset < h.refOffset+h.refSize && h.refOffset < h.l1Offset+l1Size:
		return headerErrorf("L1 table at %d and refcount table at %d overlap", h.l1Offset, h.refOffset)
	}
	blocks, err := h.readTable(r, h.refOffset, h.refSize)
	if err != nil {
		return err
	}
	for _, e := range blocks {
		if e&refReserved != 0 || !h.holds(e, size) {
			return headerErrorf("refcount table entry %#x points outside of the file, or is malformed", e)
		}
	}
	tables, err := h.l2Tables(r, size)
	if err != nil {
		return err
	}
	for _, at := range tables {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := h.checkL2(r, at, size); err != nil {
			return err
		}
	}
	return nil
}

// readTable gives the entries of a table whose length was bounded before.
func (h Header) readTable(r io.ReaderAt, offset, length int64) ([]uint64, error) {
	b := make([]byte, length)
	if n, err := readAtMost(r, b, offset); err != nil {
		return nil, err
	} else if n < len(b) {
		return nil, headerErrorf("table at %d is cut short", offset)
	}
	out := make([]uint64, len(b)/8)
	for i := range out {
		out[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	return out, nil
}

// holds tells whether a whole cluster lies at an offset in the file, past the
// header. The last one may be short: QEMU writes no zeros behind its end.
func (h Header) holds(offset uint64, size int64) bool {
	return offset == 0 || offset%uint64(h.ClusterSize) == 0 && offset < uint64(size)
}

// l2Tables gives where L2 tables lie, in order.
func (h Header) l2Tables(r io.ReaderAt, size int64) ([]int64, error) {
	l1, err := h.readTable(r, h.l1Offset, h.l1Entries*8)
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, e := range l1 {
		offset := e & entryOffset
		switch {
		case e == 0:
			continue
		case e&^(entryOffset|entryCopied) != 0 || offset == 0:
			return nil, headerErrorf("L1 entry %#x is malformed", e)
		case offset%uint64(h.ClusterSize) != 0 || offset > uint64(size) || uint64(size)-offset < uint64(h.ClusterSize):
			return nil, headerErrorf("L1 entry %#x points outside of the file", e)
		}
		out = append(out, int64(offset))
		// More tables than clusters: some occur twice. Stop before the list grows.
		if int64(len(out)) > size/h.ClusterSize {
			return nil, headerErrorf("L1 table names an L2 table twice")
		}
	}
	slices.Sort(out)
	if len(slices.Compact(slices.Clone(out))) != len(out) {
		return nil, headerErrorf("L1 table names an L2 table twice")
	}
	return out, nil
}

func (h Header) checkL2(r io.ReaderAt, at, size int64) error {
	entries, err := h.readTable(r, at, h.ClusterSize)
	if err != nil {
		return err
	}
	step := 1
	if h.ExtendedL2 {
		step = 2 // the second half holds the bits of subclusters
	}
	for i := 0; i < len(entries); i += step {
		var bitmap uint64
		if h.ExtendedL2 {
			bitmap = entries[i+1]
		}
		if why := h.badEntry(entries[i], bitmap, size); why != "" {
			return headerErrorf("L2 entry %#x in the table at %d %s", entries[i], at, why)
		}
	}
	return nil
}

// badEntry says what is wrong with one L2 entry; "" if nothing is.
func (h Header) badEntry(e, bitmap uint64, size int64) string {
	if e&entryCompressed != 0 {
		return h.badCompressed(e, size)
	}
	reserved := ^uint64(entryOffset | entryCopied)
	if h.Version >= 3 && !h.ExtendedL2 {
		reserved &^= entryZero
	}
	offset := e & entryOffset
	alloc, zero := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case e&reserved != 0:
		return "has reserved bits"
	case !h.holds(offset, size):
		return "points outside of the file"
	case alloc&zero != 0, offset == 0 && alloc != 0:
		return "contradicts its subclusters"
	}
	return ""
}

// badCompressed judges a descriptor of compressed data: an offset of any
// alignment, and a number of further sectors above it.
func (h Header) badCompressed(e uint64, size int64) string {
	bits := uint(0)
	for 1<<bits < h.ClusterSize {
		bits++
	}
	shift := 62 - (bits - 8)
	offset := e & (1<<shift - 1)
	sectors := e >> shift & (1<<(bits-8) - 1)
	end := offset&^(sectorSize-1) + (sectors+1)*sectorSize
	switch {
	case e&entryCopied != 0:
		return "is compressed and marked as copied"
	case offset < uint64(h.ClusterSize), offset >= uint64(size), end-min(end, uint64(size)) >= uint64(h.ClusterSize):
		return "points outside of the file"
	}
	return ""
}
