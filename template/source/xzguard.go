package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bounds of an xz file.
const (
	// maxBlocks of a stream: the decoder keeps a record of each. At the usual
	// 24 MiB of a block it is 24 TiB.
	maxBlocks = 1 << 20
	// Each block has a dictionary of its own, which is cleared: many for few
	// bytes are a way to keep a host busy. So much is free, and so many times
	// what was unpacked.
	freeDictionaries  = 1 << 30
	dictionaryPerByte = 8
)

// xzGuard follows the structure of an xz file that is written to it (file
// format 1.2.1, LZMA2 alone) without unpacking, and refuses what would cost
// the decoder too much memory. The decoder itself has no such bound: a file
// may ask for 4 GiB. What is not understood is refused as well.
type xzGuard struct {
	next func([]byte) error // is given the next need bytes, after skip ones
	need int
	skip int64
	got  []byte

	check        byte  // kind of check of this stream
	blocks       int   // of this stream
	packed       int64 // bytes of this block's data
	unpacked     int64 // bytes of all blocks
	dictionaries int64 // bytes of all blocks
	control      byte  // of this chunk
	index        int64 // bytes of the index so far
	numbers      uint64
	number       []byte
}

// guarded reads what a guard has let pass. (A TeeReader gives away the bytes
// before the error that they caused.)
type guarded struct {
	from  io.Reader
	guard *xzGuard
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.from.Read(p)
	if _, refused := g.guard.Write(p[:n]); refused != nil {
		return 0, refused
	}
	return n, err
}

func newXZGuard() *xzGuard {
	g := &xzGuard{}
	g.expect(4, g.stream)
	return g
}

func (g *xzGuard) expect(n int, next func([]byte) error) { g.need, g.next = n, next }

// Write follows the next bytes of the file.
func (g *xzGuard) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		if g.skip > 0 {
			n := min(g.skip, int64(len(p)))
			g.skip, p = g.skip-n, p[n:]
			continue
		}
		n := min(g.need-len(g.got), len(p))
		g.got, p = append(g.got, p[:n]...), p[n:]
		if len(g.got) < g.need {
			break
		}
		got := g.got
		g.got = g.got[:0]
		if err := g.next(got); err != nil {
			return all - len(p), err
		}
	}
	return all, nil
}

var errXZ = errors.New("not of the structure of an xz file")

// stream: a header begins with its magic, padding is of four zeros.
func (g *xzGuard) stream(b []byte) error {
	switch string(b) {
	case "\x00\x00\x00\x00":
		return nil
	case "\xfd7zX":
		g.blocks = 0
		g.expect(8, g.flags)
		return nil
	}
	return errXZ
}

// flags: the rest of the magic, two bytes of flags, a check.
func (g *xzGuard) flags(b []byte) error {
	g.check = b[3] & 0x0f
	g.expect(1, g.block)
	return nil
}

// block: the size of its header, or 0 for the index.
func (g *xzGuard) block(b []byte) error {
	if b[0] == 0 {
		g.index, g.number, g.numbers = 1, nil, 0
		g.expect(1, g.records)
		return nil
	}
	if g.blocks++; g.blocks > maxBlocks {
		return fmt.Errorf("over %d blocks", maxBlocks)
	}
	g.packed = 0
	g.expect((int(b[0])+1)*4-1, g.header)
	return nil
}

// header: flags, two sizes if they say so, and the one filter.
func (g *xzGuard) header(b []byte) error {
	flags, b := b[0], b[1:]
	for _, present := range []byte{0x40, 0x80} {
		if flags&present == 0 {
			continue
		}
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return errXZ
		}
		b = b[n:]
	}
	const lzma2 = 0x21
	if flags&0x3f != 0 || len(b) < 3 || b[0] != lzma2 || b[1] != 1 || b[2] > 40 {
		return errors.New("a filter other than LZMA2 is needed")
	}
	size := int64(2|b[2]&1) << (b[2]/2 + 11)
	g.dictionaries += size
	if size > maxWindow {
		return fmt.Errorf("a dictionary of %d bytes is needed, over %d", size, maxWindow)
	}
	if g.dictionaries > freeDictionaries+dictionaryPerByte*g.unpacked {
		return fmt.Errorf("%d bytes of dictionaries are needed for %d bytes", g.dictionaries, g.unpacked)
	}
	g.expect(1, g.chunk)
	return nil
}

// chunk of LZMA2: the end of the block, plain bytes, or packed ones.
func (g *xzGuard) chunk(b []byte) error {
	g.control = b[0]
	g.packed++
	switch {
	case g.control == 0:
		// Padding to four bytes, and the check: 4, 8, 16, 32 or 64 bytes for
		// three kinds each, none for the first.
		g.skip = -g.packed & 3
		if g.check > 0 {
			g.skip += 4 << ((g.check - 1) / 3)
		}
		g.expect(1, g.block)
	case g.control <= 2:
		g.expect(2, g.plain)
	case g.control >= 0xc0: // with new properties
		g.expect(5, g.lzma)
	case g.control >= 0x80:
		g.expect(4, g.lzma)
	default:
		return errXZ
	}
	return nil
}

func (g *xzGuard) plain(b []byte) error {
	size := int64(binary.BigEndian.Uint16(b)) + 1
	g.unpacked += size
	g.data(int64(len(b)), size)
	return nil
}

func (g *xzGuard) lzma(b []byte) error {
	g.unpacked += int64(g.control&0x1f)<<16 + int64(binary.BigEndian.Uint16(b)) + 1
	g.data(int64(len(b)), int64(binary.BigEndian.Uint16(b[2:]))+1)
	return nil
}

func (g *xzGuard) data(header, size int64) {
	g.packed += header + size
	g.skip = size
	g.expect(1, g.chunk)
}

// records of the index: their count, and two numbers for each.
func (g *xzGuard) records(b []byte) error {
	g.index++
	g.number = append(g.number, b[0])
	if b[0] >= 0x80 {
		if len(g.number) > binary.MaxVarintLen64 {
			return errXZ
		}
		return nil
	}
	if g.numbers == 0 {
		count, n := binary.Uvarint(g.number)
		if n <= 0 || count != uint64(g.blocks) {
			return errXZ
		}
		g.numbers = 2*count + 1
	}
	g.number = g.number[:0]
	if g.numbers--; g.numbers > 0 {
		return nil
	}
	const check, footer = 4, 12
	g.skip = -g.index&3 + check + footer
	g.expect(4, g.stream)
	return nil
}
