package source_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

const noLimit = 1 << 40

// pack runs the real tool.
func pack(t testing.TB, content []byte, tool string, args ...string) []byte {
	t.Helper()
	c := exec.CommandContext(t.Context(), tool, append(args, "-c")...)
	c.Stdin = bytes.NewReader(content)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", tool, strings.Join(args, " "), err)
	}
	return out
}

// mixed is like an image: parts that pack, parts that do not, and zeros.
func mixed(n int) []byte {
	b := random(3, n)
	clear(b[n/4 : n/2])
	copy(b[n/2:], bytes.Repeat([]byte("wherry "), n/28))
	return b
}

// unpacked reads all, and tells how many bytes were read of the packed ones.
func unpacked(b []byte, limit int64) (got []byte, kind string, seen int, err error) {
	all := &counting{from: bytes.NewReader(b)} // where a caller takes its digest
	r, kind, err := source.Unpack(all, limit)
	if err != nil {
		return nil, kind, all.n, err
	}
	got, err = io.ReadAll(r)
	return got, kind, all.n, err
}

type counting struct {
	from io.Reader
	n    int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += n
	return n, err
}

func TestUnpack(t *testing.T) {
	image := mixed(1 << 20)
	half := len(image) / 2
	for name, tt := range map[string]struct {
		packed []byte
		kind   string
	}{
		"gzip":                 {pack(t, image, "gzip", "-1", "-n"), source.Gzip},
		"gzip with a name":     {pack(t, image, "gzip", "-1"), source.Gzip},
		"gzip in two members":  {slices.Concat(pack(t, image[:half], "gzip", "-1"), pack(t, image[half:], "gzip", "-9")), source.Gzip},
		"gzip and zeros":       {append(pack(t, image, "gzip", "-1"), make([]byte, 1<<20)...), source.Gzip},
		"xz":                   {pack(t, image, "xz", "-0"), source.XZ},
		"xz in blocks":         {pack(t, image, "xz", "-0", "-T2", "--block-size=65536"), source.XZ},
		"xz in two streams":    {slices.Concat(pack(t, image[:half], "xz", "-0"), pack(t, image[half:], "xz", "-0", "--check=sha256")), source.XZ},
		"xz, padding, and xz":  {slices.Concat(pack(t, image[:half], "xz", "-0", "--check=crc32"), make([]byte, 8), pack(t, image[half:], "xz", "-0")), source.XZ},
		"xz without a check":   {pack(t, image, "xz", "-0", "--check=none"), source.XZ},
		"zstd":                 {pack(t, image, "zstd", "-q", "-1"), source.Zstd},
		"zstd with a sum":      {pack(t, image, "zstd", "-q", "-1", "--check"), source.Zstd},
		"zstd, long":           {pack(t, image, "zstd", "-q", "-1", "--long=27"), source.Zstd},
		"zstd in two frames":   {slices.Concat(pack(t, image[:half], "zstd", "-q", "-1"), pack(t, image[half:], "zstd", "-q", "-5")), source.Zstd},
		"zstd and a user's":    {append(pack(t, image, "zstd", "-q"), 0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'), source.Zstd},
		"not packed":           {image, ""},
		"short":                {image[:3], ""},
		"the magic alone, cut": {[]byte("\xfd7zX"), ""},
		"empty":                {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := image
			if tt.kind == "" {
				want = tt.packed
			}
			got, kind, seen, err := unpacked(tt.packed, int64(len(want)))
			if err != nil || !bytes.Equal(got, want) || kind != tt.kind {
				t.Errorf("%d bytes, kind %q, %v", len(got), kind, err)
			}
			if seen != len(tt.packed) {
				t.Errorf("%d bytes of %d were seen", seen, len(tt.packed))
			}
		})
	}
}

func TestBrokenArchives(t *testing.T) {
	image := mixed(1 << 20)
	change := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[(at+len(b))%len(b)] ^= 0x40
		return b
	}
	for kind, packed := range map[string][]byte{
		source.Gzip: pack(t, image, "gzip", "-1"),
		source.XZ:   pack(t, image, "xz", "-0"),
		source.Zstd: pack(t, image, "zstd", "-q", "-1", "--check"),
	} {
		for name, b := range map[string][]byte{
			"only its magic":    packed[:6],
			"cut early":         packed[:100],
			"cut half way":      packed[:len(packed)/2],
			"cut at the end":    packed[:len(packed)-1],
			"changed half way":  change(packed, len(packed)/2),
			"changed sum":       change(packed, -2),
			"a line behind it":  append(slices.Clone(packed), "<html>\n"...),
			"zeros and a line":  append(slices.Clone(packed), "\x00\x00\x00\x00x"...),
			"half another":      append(slices.Clone(packed), packed[:len(packed)/2]...),
			"something else":    slices.Concat(packed[:6], random(9, 100_000)),
			"other kind behind": append(slices.Clone(packed), "BZh91AY&SY"...),
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				got, _, seen, err := unpacked(b, noLimit)
				wantFault(t, err, fault.Packed, kind)
				if len(got) > 2*len(image) || seen != len(b) {
					t.Errorf("%d bytes given, %d of %d seen", len(got), seen, len(b))
				}
			})
		}
	}
}

// A fault of the way is not one of the archive.
func TestFaultUnderAnArchive(t *testing.T) {
	image := mixed(1 << 20)
	why := fault.New(fault.ConnectionLost, "reset")
	for _, b := range [][]byte{
		pack(t, image, "gzip", "-1"), pack(t, image, "xz", "-0"), pack(t, image, "zstd", "-q", "-1"), image, {0x1f, 0x8b, 8, 0, 0, 0, 0, 0}, nil,
	} {
		for _, keep := range []int{0, 3, 100, len(b) / 2, len(b)} {
			closed := 0
			r, kind, err := source.Unpack(failing{bytes.NewReader(b[:min(keep, len(b))]), why, &closed}, noLimit)
			if err == nil {
				_, err = io.ReadAll(r)
			}
			if !errors.Is(err, why) {
				t.Errorf("%s, %d bytes of %d: %v", kind, keep, len(b), err)
			}
		}
	}
}

func TestDecompressionBombs(t *testing.T) {
	zeros := make([]byte, 16<<20)
	for kind, bomb := range map[string][]byte{
		source.Gzip: pack(t, zeros, "gzip", "-9"), source.XZ: pack(t, zeros, "xz", "-0"), source.Zstd: pack(t, zeros, "zstd", "-q"),
	} {
		t.Run(kind, func(t *testing.T) {
			got, _, _, err := unpacked(bomb, 1<<20)
			wantFault(t, err, fault.TooLarge, "over 1048576 bytes")
			if len(got) > 1<<20 {
				t.Errorf("%d bytes came through", len(got))
			}
			if got, _, _, err := unpacked(bomb, int64(len(zeros))); err != nil || len(got) != len(zeros) {
				t.Errorf("at the limit: %d bytes, %v", len(got), err)
			}
		})
	}
	_, _, _, err := unpacked(zeros, 1<<20)
	wantFault(t, err, fault.TooLarge)
}

// allocated tells how many bytes fn asked the allocator for.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A header can ask for much more memory than the file has bytes.
func TestArchivesThatWantMemory(t *testing.T) {
	image := []byte("small")
	bigger := func(b []byte, dictionary byte) []byte {
		b = slices.Clone(b)
		// Stream header of 12 bytes; of the block's: size, flags, filter id,
		// length of its properties, and the dictionary's size.
		size := (int(b[12]) + 1) * 4
		b[16] = dictionary
		binary.LittleEndian.PutUint32(b[12+size-4:], crc32.ChecksumIEEE(b[12:12+size-4]))
		return b
	}
	x := pack(t, image, "xz", "-0")
	many := slices.Concat(slices.Repeat([][]byte{bigger(x, 30)}, 100)...) // 128 MiB each
	for name, tt := range map[string]struct {
		packed []byte
		words  string
	}{
		"xz with 4 GiB":   {bigger(x, 40), "a dictionary of"},
		"xz with 192 MiB": {bigger(x, 31), "a dictionary of 201326592 bytes is needed, over 134217728"},
		"many streams":    {many, "bytes of dictionaries are needed"},
		"zstd, very long": {pack(t, mixed(1<<20), "zstd", "-q", "-1", "--ultra", "--long=31", "--no-content-size"), "window size"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			used := allocated(func() { _, _, _, err = unpacked(tt.packed, noLimit) })
			wantFault(t, err, fault.Packed, tt.words)
			if used > 3<<30/2 {
				t.Errorf("%d MiB were asked for", used>>20)
			}
		})
	}
	// What is usual at most is unpacked.
	if got, _, _, err := unpacked(pack(t, image, "xz", "-9"), noLimit); err != nil || string(got) != "small" {
		t.Errorf("xz -9: %q, %v", got, err)
	}
	if got, _, _, err := unpacked(bigger(x, 30), noLimit); err != nil || string(got) != "small" {
		t.Errorf("xz with 128 MiB: %q, %v", got, err)
	}
}

// Filters other than LZMA2 are for programs, and unknown to the decoder.
func TestXZWithAnotherFilter(t *testing.T) {
	_, _, _, err := unpacked(pack(t, mixed(1<<16), "xz", "--x86", "--lzma2=preset=0"), noLimit)
	wantFault(t, err, fault.Packed, "xz")
}

func TestUnpackedIsAReader(t *testing.T) {
	image := mixed(100_000)
	for _, b := range [][]byte{pack(t, image, "gzip", "-1"), pack(t, image, "xz", "-0"), pack(t, image, "zstd", "-q", "-1"), image} {
		for name, from := range map[string]io.Reader{
			"bytewise": iotest.OneByteReader(bytes.NewReader(b)), "with the end": iotest.DataErrReader(bytes.NewReader(b)),
		} {
			r, kind, err := source.Unpack(from, noLimit)
			must(t, err)
			if got, err := io.ReadAll(iotest.HalfReader(r)); err != nil || !bytes.Equal(got, image) {
				t.Errorf("%s %s: %d bytes, %v", kind, name, len(got), err)
			}
		}
	}
}

// Whatever the bytes are, nothing more than the limit comes out of them, and
// all of them were seen when their end was told.
func FuzzUnpack(f *testing.F) {
	image := mixed(2000)
	for _, b := range [][]byte{
		pack(f, image, "gzip", "-1"), pack(f, image, "xz", "-0"), pack(f, image, "xz", "-0", "-T2", "--block-size=4096"),
		pack(f, image, "zstd", "-q", "-1"), image,
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		got, kind, seen, err := unpacked(b, limit)
		if len(got) > limit {
			t.Errorf("%d bytes", len(got))
		}
		if err == nil && seen != len(b) {
			t.Errorf("%d of %d bytes seen", seen, len(b))
		}
		if err == nil && kind == "" && !bytes.Equal(got, b) {
			t.Error("other bytes")
		}
		if f := fault.Of(err); f != nil && f.Code != fault.Packed && f.Code != fault.TooLarge {
			t.Errorf("%s: %v", f.Code, err)
		}
	})
}
