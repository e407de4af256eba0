// Package block is the layout of what the lab's guest writes to its disks, and of what a template is filled with.
//
// Every block carries a checksum of itself, its own number, the disk it was written to and a mark of who wrote it, so
// that a lost, stale, torn or misplaced block is told from a good one without any other record.
package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Size is the size of a block in bytes, the unit in which disks are read and written.
const Size = 4096

// Kind says what a block is for.
type Kind string

const (
	// Data blocks are written by the guest, to the second half of a disk.
	Data Kind = "WHERRYD1"
	// Template blocks are written by mkimage, to the beginning of a disk.
	Template Kind = "WHERRYT1"
	// Clean blocks are written by the guest, last of all, when it shuts down in order. The next boot removes them.
	Clean Kind = "WHERRYC1"
)

// Offsets of the fields. The names are padded with zeros.
const (
	atSeq   = 8
	atTotal = 16
	atName  = 24
	atMark  = 56
	atFill  = 88
	atSum   = Size - sha256.Size
	nameLen = atMark - atName
)

var (
	// ErrEmpty is returned for a block of zeros: nothing was ever written there.
	ErrEmpty = errors.New("empty block")
	// ErrCorrupt is returned for a block that is neither empty nor carries its own checksum.
	ErrCorrupt = errors.New("corrupt block")
)

// Block is the content of one block apart from its filling.
type Block struct {
	Kind  Kind
	Seq   uint64 // number of the block, from 0; of a clean one, how many blocks of data were written
	Total uint64 // of a template: how many blocks it has
	Name  string // of a template: its label; else the disk's name. At most 32 bytes.
	Mark  string // of a template: its seed; else the boot that wrote it. At most 32 bytes.
}

// Encode writes the block into dst, which is Size bytes long. The filling follows from the fields and does not
// compress, so that no storage along the way can leave the bytes out.
func (b Block) Encode(dst []byte) {
	clear(dst)
	copy(dst, b.Kind)
	binary.LittleEndian.PutUint64(dst[atSeq:], b.Seq)
	binary.LittleEndian.PutUint64(dst[atTotal:], b.Total)
	copy(dst[atName:atMark], b.Name)
	copy(dst[atMark:atFill], b.Mark)
	fill(dst[atFill:atSum], sha256.Sum256(dst[:atFill]))
	sum := sha256.Sum256(dst[:atSum])
	copy(dst[atSum:], sum[:])
}

// fill writes a pseudo-random sequence (xorshift64*) that begins with seed.
func fill(dst []byte, seed [sha256.Size]byte) {
	x := binary.LittleEndian.Uint64(seed[:]) | 1
	for ; len(dst) >= 8; dst = dst[8:] {
		x ^= x >> 12
		x ^= x << 25
		x ^= x >> 27
		binary.LittleEndian.PutUint64(dst, x*0x2545F4914F6CDD1D)
	}
}

// Decode reads a block from src, which is Size bytes long. It returns ErrEmpty or ErrCorrupt.
func Decode(src []byte) (Block, error) {
	sum := sha256.Sum256(src[:atSum])
	if !bytes.Equal(sum[:], src[atSum:]) {
		if isZero(src) {
			return Block{}, ErrEmpty
		}
		return Block{}, fmt.Errorf("%w: checksum differs, begins with %q", ErrCorrupt, src[:atSeq])
	}
	b := Block{
		Kind:  Kind(src[:atSeq]),
		Seq:   binary.LittleEndian.Uint64(src[atSeq:]),
		Total: binary.LittleEndian.Uint64(src[atTotal:]),
		Name:  text(src[atName:atMark]),
		Mark:  text(src[atMark:atFill]),
	}
	if b.Kind != Data && b.Kind != Template && b.Kind != Clean {
		return Block{}, fmt.Errorf("%w: unknown kind %q", ErrCorrupt, b.Kind)
	}
	return b, nil
}

func text(field []byte) string { return string(bytes.TrimRight(field, "\x00")) }

func isZero(b []byte) bool {
	return b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:])
}

// Slots says where a disk of that many blocks keeps its data: from block first on, in count slots. The first half
// belongs to the template.
func Slots(blocks uint64) (first, count uint64) {
	first = blocks / 2
	return first, blocks - first
}

// CleanAt says where a disk of that many blocks has its clean block: the last of the template's half, which a template
// that fills it has no room for.
func CleanAt(blocks uint64) uint64 { return blocks/2 - 1 }

// Newest returns the number that slot must hold once last was written: the greatest up to last that falls on it.
// It reports false where the slot was not reached yet.
func Newest(last, slot, slots uint64) (uint64, bool) {
	if slot > last {
		return 0, false
	}
	return last - (last-slot)%slots, true
}
