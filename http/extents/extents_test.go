package extents_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/http/extents"
)

// image makes a file of the given size with the given runs of data.
func image(t rapid.TB, dir string, size int64, runs map[int64][]byte) *os.File {
	f, err := os.Create(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	for at, b := range runs {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// copyOf decodes a stream into a file of its own and gives its content.
func copyOf(t rapid.TB, dir string, stream io.Reader) []byte {
	f, err := os.Create(filepath.Join(dir, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	size, err := extents.Decode(stream, f, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 6<<20).Draw(t, "size")
		runs := map[int64][]byte{}
		for range rapid.IntRange(0, 4).Draw(t, "runs") {
			at := rapid.Int64Range(0, size).Draw(t, "at")
			length := rapid.Int64Range(0, min(size-at, 2<<20)).Draw(t, "length")
			runs[at] = bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, int(length))
		}
		f := image(t, dir, size, runs)
		defer func() { _ = f.Close() }()
		want, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		var stream bytes.Buffer
		if err := extents.Encode(&stream, f); err != nil {
			t.Fatal(err)
		}
		if got := copyOf(t, dir, &stream); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came back other than they were (%d)", len(got), len(want))
		}
	})
}

func TestHolesAreNotSent(t *testing.T) {
	f := image(t, t.TempDir(), 1<<40, map[int64][]byte{1 << 30: []byte("data")})
	defer func() { _ = f.Close() }()
	var stream bytes.Buffer
	if err := extents.Encode(&stream, f); err != nil {
		t.Fatal(err)
	}
	// One block of the file system, at most 64 KiB, and the framing.
	if stream.Len() > 70_000 {
		t.Errorf("%d bytes for 4 in a file of 1 TiB", stream.Len())
	}
}

func TestEncodeStopsWithItsWriter(t *testing.T) {
	f := image(t, t.TempDir(), 1<<20, map[int64][]byte{0: []byte("data")})
	defer func() { _ = f.Close() }()
	broken := errors.New("broken")
	if err := extents.Encode(failing{broken}, f); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error)          { return 0, f.err }
func (f failing) WriteAt([]byte, int64) (int, error) { return 0, f.err }

// stream builds a stream by hand, as the package's documentation has it.
type stream struct{ b []byte }

func begin(size uint64) *stream {
	return &stream{binary.BigEndian.AppendUint64([]byte("wherryX1"), size)}
}

func (s *stream) extent(at, length uint64, data string) *stream {
	s.b = binary.BigEndian.AppendUint64(s.b, at)
	s.b = binary.BigEndian.AppendUint64(s.b, length)
	s.b = append(s.b, data...)
	return s
}

func (s *stream) sum() []byte {
	digest := sha256.Sum256(s.b)
	return append(s.b, digest[:]...)
}

func TestDecode(t *testing.T) {
	const limit = 100
	good := begin(10).extent(2, 3, "abc").extent(10, 0, "").sum()
	for _, row := range []struct {
		name string
		in   []byte
		want error
	}{
		{"good", good, nil},
		{"empty file", begin(0).extent(0, 0, "").sum(), nil},
		{"nothing", nil, io.ErrUnexpectedEOF},
		{"cut in the head", good[:10], io.ErrUnexpectedEOF},
		{"cut in an extent", good[:34], io.ErrUnexpectedEOF},
		{"cut before the end", good[:35], io.ErrUnexpectedEOF},
		{"cut in the digest", good[:len(good)-1], io.ErrUnexpectedEOF},
		{"more behind it", append(bytes.Clone(good), 0), extents.ErrMalformed},
		{"another magic", append([]byte("wherryX2"), good[8:]...), extents.ErrMalformed},
		{"another byte", bytes.Replace(good, []byte("abc"), []byte("abd"), 1), extents.ErrMalformed},
		{"over the limit", begin(limit+1).extent(limit+1, 0, "").sum(), extents.ErrMalformed},
		{"absurd size", begin(1<<63).extent(1<<63, 0, "").sum(), extents.ErrMalformed},
		{"extent past the size", begin(10).extent(8, 3, "abc").extent(10, 0, "").sum(), extents.ErrMalformed},
		{"extent behind the size", begin(10).extent(11, 1, "a").extent(10, 0, "").sum(), extents.ErrMalformed},
		{"absurd offset", begin(10).extent(1<<63+1, 1, "a").extent(10, 0, "").sum(), extents.ErrMalformed},
		{"absurd length", begin(10).extent(0, 1<<62, "a").extent(10, 0, "").sum(), extents.ErrMalformed},
		{"overlap", begin(10).extent(0, 3, "abc").extent(2, 3, "def").extent(10, 0, "").sum(), extents.ErrMalformed},
		{"backwards", begin(10).extent(5, 1, "a").extent(0, 1, "b").extent(10, 0, "").sum(), extents.ErrMalformed},
		{"end too early", begin(10).extent(5, 0, "").sum(), extents.ErrMalformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "copy"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if _, err := extents.Decode(bytes.NewReader(row.in), f, limit); !errors.Is(err, row.want) {
				t.Errorf("got %v, not %v", err, row.want)
			}
		})
	}
}

func TestDecodeStopsWithItsFile(t *testing.T) {
	full := errors.New("no space left")
	in := begin(10).extent(2, 3, "abc").extent(10, 0, "").sum()
	if _, err := extents.Decode(bytes.NewReader(in), failing{full}, 10); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// bounded fails the test on a write outside the limit.
type bounded struct {
	t     *testing.T
	limit int64
	end   int64
}

func (b *bounded) WriteAt(p []byte, at int64) (int, error) {
	if at < b.end || len(p) == 0 || len(p) > extents.MaxExtent || at > b.limit-int64(len(p)) {
		b.t.Fatalf("%d bytes at %d, after %d, limit %d", len(p), at, b.end, b.limit)
	}
	b.end = at + int64(len(p))
	return len(p), nil
}

func FuzzDecode(f *testing.F) {
	f.Add(begin(10).extent(2, 3, "abc").extent(10, 0, "").sum(), int64(10))
	f.Add(begin(1<<63).extent(1<<63, 1<<63, "abc").sum(), int64(-1))
	f.Add([]byte("wherryX1"), int64(1))
	f.Fuzz(func(t *testing.T, in []byte, limit int64) {
		w := &bounded{t: t, limit: limit}
		size, err := extents.Decode(bytes.NewReader(in), w, limit)
		if err != nil {
			return
		}
		if size < 0 || size > max(limit, 0) || w.end > size {
			t.Fatalf("size %d of at most %d, written to %d", size, limit, w.end)
		}
	})
}
