package extents_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"time"

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

// decoded gives what a stream holds, and where in the file it begins.
func decoded(stream io.Reader) (content []byte, start, size int64, err error) {
	r, err := extents.NewReader(stream)
	if err != nil {
		return nil, 0, 0, err
	}
	content, err = io.ReadAll(r)
	return content, r.Start(), r.Size(), err
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
		start := rapid.Int64Range(0, size).Draw(t, "start")
		var stream bytes.Buffer
		if err := extents.Encode(&stream, f, start); err != nil {
			t.Fatal(err)
		}
		// However the network cuts it up.
		got, at, whole, err := decoded(iotest.HalfReader(&stream))
		if err != nil || at != start || whole != size {
			t.Fatalf("from %d of %d: %v", at, whole, err)
		}
		if !bytes.Equal(got, want[start:]) {
			t.Fatalf("%d bytes came back other than they were (%d)", len(got), len(want)-int(start))
		}
	})
}

// A stream that was cut anywhere is gone on with by a second one from where
// the first stopped, and the two make the file.
func TestACutStreamIsGoneOnWith(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		f := image(t, dir, 300_000, map[int64][]byte{70_000: bytes.Repeat([]byte("a"), 9000), 200_000: bytes.Repeat([]byte("b"), 50_000)})
		defer func() { _ = f.Close() }()
		want, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		var first, second bytes.Buffer
		if err := extents.Encode(&first, f, 0); err != nil {
			t.Fatal(err)
		}
		first.Truncate(rapid.IntRange(24, first.Len()-1).Draw(t, "cut"))
		got, _, _, err := decoded(&first)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("a cut stream ends with %v", err)
		}
		if err := extents.Encode(&second, f, int64(len(got))); err != nil {
			t.Fatal(err)
		}
		rest, start, _, err := decoded(&second)
		if err != nil || start != int64(len(got)) || !bytes.Equal(append(got, rest...), want) {
			t.Fatalf("from %d on: %d bytes, %v", len(got), len(rest), err)
		}
	})
}

func TestHolesAreNotSent(t *testing.T) {
	f := image(t, t.TempDir(), 1<<40, map[int64][]byte{1 << 30: []byte("data")})
	defer func() { _ = f.Close() }()
	var stream bytes.Buffer
	if err := extents.Encode(&stream, f, 0); err != nil {
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
	if err := extents.Encode(failing{broken}, f, 0); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// meddler writes to the file while it is sent.
type meddler struct {
	bytes.Buffer
	meddle func()
}

func (m *meddler) Write(p []byte) (int, error) {
	m.meddle()
	return m.Buffer.Write(p)
}

func TestAFileThatChangesGetsNoEnd(t *testing.T) {
	for _, row := range []struct {
		name   string
		meddle func(f *os.File) error
	}{
		{"written to", func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 3<<20); return err }},
		{"longer", func(f *os.File) error { return f.Truncate(5 << 20) }},
		{"shorter", func(f *os.File) error { return f.Truncate(1) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := image(t, t.TempDir(), 4<<20, map[int64][]byte{0: bytes.Repeat([]byte("a"), 2<<20)})
			defer func() { _ = f.Close() }()
			// Its present time of change would not tell, were it the same tick.
			if err := os.Chtimes(f.Name(), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			var w meddler
			w.meddle = sync.OnceFunc(func() {
				if err := row.meddle(f); err != nil {
					t.Error(err)
				}
			})
			if err := extents.Encode(&w, f, 0); !errors.Is(err, extents.ErrChanged) {
				t.Errorf("sent with %v", err)
			}
			if _, _, _, err := decoded(&w.Buffer); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("read with %v", err)
			}
		})
	}
}

func TestEncodeFromOutsideTheFile(t *testing.T) {
	f := image(t, t.TempDir(), 10, nil)
	defer func() { _ = f.Close() }()
	for _, start := range []int64{-1, 11} {
		if err := extents.Encode(io.Discard, f, start); err == nil {
			t.Errorf("encoded from %d of 10", start)
		}
	}
}

// stream builds a stream by hand, as the package's documentation has it.
type stream struct{ b []byte }

func begin(size, start uint64) *stream {
	b := binary.BigEndian.AppendUint64([]byte("wherryX2"), size)
	return &stream{binary.BigEndian.AppendUint64(b, start)}
}

func (s *stream) extent(at, length uint64, data string) *stream {
	s.b = binary.BigEndian.AppendUint64(s.b, at)
	s.b = binary.BigEndian.AppendUint64(s.b, length)
	s.b = append(s.b, data...)
	return s
}

func (s *stream) end(size uint64) []byte { return s.extent(size, 0, "").b }

func TestReader(t *testing.T) {
	good := begin(10, 1).extent(2, 3, "abc").end(10)
	for _, row := range []struct {
		name string
		in   []byte
		want string // what comes, also before an error
		err  error
	}{
		{"good", good, "\x00abc\x00\x00\x00\x00\x00", nil},
		{"empty file", begin(0, 0).end(0), "", nil},
		{"from the very end", begin(10, 10).end(10), "", nil},
		{"all hole", begin(3, 0).end(3), "\x00\x00\x00", nil},
		{"nothing", nil, "", io.ErrUnexpectedEOF},
		{"cut in the head", good[:10], "", io.ErrUnexpectedEOF},
		{"cut in an extent", good[:42], "\x00ab", io.ErrUnexpectedEOF},
		{"cut before the end", good[:43], "\x00abc", io.ErrUnexpectedEOF},
		{"cut in the end", good[:len(good)-1], "\x00abc", io.ErrUnexpectedEOF},
		{"more behind it", append(bytes.Clone(good), 0), "\x00abc\x00\x00\x00\x00\x00", extents.ErrMalformed},
		{"another magic", append([]byte("wherryX1"), good[8:]...), "", extents.ErrMalformed},
		{"absurd size", begin(1<<63, 0).end(1 << 63), "", extents.ErrMalformed},
		{"begins behind the size", begin(10, 11).end(10), "", extents.ErrMalformed},
		{"absurd start", begin(10, 1<<63+1).end(10), "", extents.ErrMalformed},
		{"extent before the start", begin(10, 5).extent(4, 2, "ab").end(10), "", extents.ErrMalformed},
		{"extent past the size", begin(10, 0).extent(8, 3, "abc").end(10), "", extents.ErrMalformed},
		{"extent behind the size", begin(10, 0).extent(11, 1, "a").end(10), "", extents.ErrMalformed},
		{"absurd offset", begin(10, 0).extent(1<<63+1, 1, "a").end(10), "", extents.ErrMalformed},
		{"absurd length", begin(10, 0).extent(0, 1<<62, "a").end(10), "", extents.ErrMalformed},
		{"long extent", begin(4<<20, 0).extent(0, extents.MaxExtent+1, "a").end(10), "", extents.ErrMalformed},
		{"overlap", begin(10, 0).extent(0, 3, "abc").extent(2, 3, "def").end(10), "abc", extents.ErrMalformed},
		{"backwards", begin(10, 0).extent(5, 1, "a").extent(0, 1, "b").end(10), "\x00\x00\x00\x00\x00a", extents.ErrMalformed},
		{"end too early", begin(10, 0).extent(5, 0, "").b, "", extents.ErrMalformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, _, _, err := decoded(bytes.NewReader(row.in))
			if !errors.Is(err, row.err) || string(got) != row.want {
				t.Errorf("got %q and %v, not %q and %v", got, err, row.want, row.err)
			}
		})
	}
}

// What the stream itself breaks with is passed on.
func TestReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	in := begin(10, 0).extent(2, 3, "abc").b
	got, _, _, err := decoded(io.MultiReader(bytes.NewReader(in), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || string(got) != "\x00\x00abc" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A reader that takes what there is must not wait for what is not there yet.
func TestReaderDoesNotWaitForMore(t *testing.T) {
	r, w := io.Pipe()
	go func() { _, _ = w.Write(begin(10, 0).extent(2, 3, "abc").b) }()
	in, err := extents.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if n, err := io.ReadAtLeast(in, got, 5); n != 5 || err != nil || string(got[:5]) != "\x00\x00abc" {
		t.Errorf("%d bytes %q, %v", n, got[:n], err)
	}
	_ = w.Close()
	if _, err := in.Read(got); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ends with %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(begin(10, 0).extent(2, 3, "abc").end(10))
	f.Add(begin(1<<62, 7).extent(1<<61, 1<<63, "abc").end(1 << 62))
	f.Add([]byte("wherryX2"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := extents.NewReader(bytes.NewReader(in))
		if err != nil {
			return
		}
		if r.Size() < 0 || r.Start() < 0 || r.Start() > r.Size() {
			t.Fatalf("from %d of %d", r.Start(), r.Size())
		}
		const limit = 4 << 20
		n, err := io.Copy(io.Discard, io.LimitReader(r, limit))
		if n > r.Size()-r.Start() {
			t.Fatalf("%d bytes from %d of %d", n, r.Start(), r.Size())
		}
		if err == nil && n < limit && n != r.Size()-r.Start() {
			t.Fatalf("whole with %d bytes from %d of %d", n, r.Start(), r.Size())
		}
	})
}
