package partial_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/partial"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type tb interface {
	Helper()
	Fatal(...any)
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	errCut = errors.New("cut")
	key    = partial.Key{Origin: "https://images.example/a", Want: "sha256:x", Validator: source.Validator{ETag: `"1"`, Total: 7}}
)

func make1(t tb, path string) *partial.Partial {
	t.Helper()
	p, err := partial.Make(path)
	must(t, err)
	must(t, p.Begin(digest.For("md5:")))
	return p
}

// cutAfter gives n bytes, and then fails.
func cutAfter(b []byte, n int) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(errCut))
}

func sums(b []byte) *digest.Sums {
	s := digest.For("md5:")
	_, _ = s.Write(b) // never fails
	return s
}

// Whatever the bytes, and wherever it is cut and taken up by another process,
// the file and the sums are those of the whole.
func TestFillCutAndResumed(t *testing.T) {
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		var content []byte
		for range rapid.IntRange(1, 6).Draw(t, "runs") {
			run := make([]byte, rapid.IntRange(0, 20_000).Draw(t, "length"))
			if fill := rapid.Byte().Draw(t, "fill"); fill > 100 {
				run = bytes.Repeat([]byte{fill}, len(run))
			}
			content = append(content, run...)
		}
		n++
		path := filepath.Join(dir, string(rune('a'+n%26)))
		must(t, partial.Remove(path, 0))
		p := make1(t, path)
		o := partial.Fill{Key: key, Limit: 1 << 30}
		for range rapid.IntRange(0, 3).Draw(t, "cuts") {
			rest := content[p.Size():]
			err := p.Fill(context.Background(), cutAfter(rest, rapid.IntRange(0, len(rest)).Draw(t, "cut")), o)
			if !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			must(t, p.Save(key))
			size := p.Size()
			// What a crash left after the state is not to be seen any more.
			_, err = p.Image().WriteAt([]byte("never synced"), size+rapid.Int64Range(0, 9000).Draw(t, "behind"))
			must(t, err)
			p.Close()
			p, err = partial.Open(path, p.Inode())
			must(t, err)
			if s, ok := p.Saved(); ok {
				if s.Key != key || s.Offset != size {
					t.Fatalf("saved %+v, want offset %d", s, size)
				}
				must(t, p.Resume(s, digest.For("md5:")))
			} else if size > 0 {
				t.Fatalf("%d bytes, and no state", size)
			} else {
				must(t, p.Begin(digest.For("md5:")))
			}
		}
		must(t, p.Fill(context.Background(), iotest.HalfReader(bytes.NewReader(content[p.Size():])), o))
		got, err := os.ReadFile(p.ImagePath())
		must(t, err)
		if !bytes.Equal(got, content) || p.Size() != int64(len(content)) {
			t.Fatalf("%d bytes (%d), want %d", len(got), p.Size(), len(content))
		}
		for _, a := range []string{"sha256", "md5"} {
			if p.Sums().Sum(a) != sums(content).Sum(a) {
				t.Fatalf("%s of the whole is another", a)
			}
		}
		p.Close()
	})
}

// stopped is a clock by which no time passes.
func stopped() time.Time { return time.Time{} }

// large is more than is written between two states, with data at both ends.
func large() []byte {
	b := make([]byte, 67<<20)
	copy(b, "begins")
	copy(b[len(b)-4:], "ends")
	return b
}

// A process that is killed has said nothing; the state is there all the same,
// and tells of synced bytes only. Holes stay holes.
func TestStateIsSavedOnTheWay(t *testing.T) {
	content := large()
	path := filepath.Join(t.TempDir(), "p")
	p := make1(t, path)
	err := p.Fill(t.Context(), cutAfter(content, 66<<20), partial.Fill{Key: key, Limit: 1 << 30, Now: stopped})
	if !errors.Is(err, errCut) || p.Size() != 66<<20 {
		t.Fatalf("%v at %d", err, p.Size())
	}
	again, err := partial.Open(path, p.Inode())
	p.Close()
	must(t, err)
	defer again.Close()
	s, ok := again.Saved()
	if !ok || s.Offset != 64<<20 || s.Key != key {
		t.Fatalf("saved %+v, %t", s, ok)
	}
	must(t, again.Resume(s, digest.For("md5:")))
	must(t, again.Fill(t.Context(), bytes.NewReader(content[s.Offset:]), partial.Fill{Key: key, Limit: 1 << 30}))
	if again.Sums().Sum("sha256") != sums(content).Sum("sha256") {
		t.Error("the sum is another")
	}
	info, err := os.Stat(again.ImagePath())
	must(t, err)
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != 67<<20 || used > 64<<10 {
		t.Errorf("%d bytes, %d of them on disk", info.Size(), used)
	}
	// Other bytes begin: the state must not be there to speak of them.
	must(t, again.Begin(digest.For()))
	if s, ok := again.Saved(); ok || again.Size() != 0 {
		t.Errorf("after a new beginning: %+v", s)
	}
}

// What comes slowly is not lost by the hour: a crash costs seconds.
func TestStateIsSavedByTime(t *testing.T) {
	content := bytes.Repeat([]byte("slowly "), 9000)
	path := filepath.Join(t.TempDir(), "p")
	p := make1(t, path)
	in := &slow{Reader: cutAfter(content, 50_000)}
	err := p.Fill(t.Context(), in, partial.Fill{Key: key, Limit: 1 << 30, Now: func() time.Time { return time.Unix(in.reads, 0) }})
	p.Close()
	if !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	again, err := partial.Open(path, p.Inode())
	must(t, err)
	defer again.Close()
	// The states after the first may fall into the time that its sync takes.
	s, ok := again.Saved()
	if !ok || s.Key != key || s.Offset < 2000 {
		t.Fatalf("saved %+v, %t", s, ok)
	}
	must(t, again.Resume(s, digest.For("md5:")))
	must(t, again.Fill(t.Context(), bytes.NewReader(content[s.Offset:]), partial.Fill{Key: key, Limit: 1 << 30}))
	if again.Sums().Sum("sha256") != sums(content).Sum("sha256") {
		t.Error("the sum is another")
	}
}

// slow gives 1000 bytes each second.
type slow struct {
	io.Reader
	reads int64
}

func (s *slow) Read(p []byte) (int, error) {
	s.reads++
	return s.Reader.Read(p[:min(len(p), 1000)])
}

// Bytes that cannot be asked for from the middle on leave no state.
func TestNothingIsSavedWithoutAWant(t *testing.T) {
	p := make1(t, filepath.Join(t.TempDir(), "p"))
	defer p.Close()
	if err := p.Fill(t.Context(), cutAfter(large(), 66<<20), partial.Fill{Limit: 1 << 30}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	if s, ok := p.Saved(); ok {
		t.Errorf("saved %+v", s)
	}
}

func TestFillFails(t *testing.T) {
	content := large()
	p := make1(t, filepath.Join(t.TempDir(), "p"))
	if err := p.Fill(t.Context(), bytes.NewReader(content), partial.Fill{Limit: 1 << 20}); !errors.Is(err, partial.ErrLimit) {
		t.Errorf("over the limit: %v", err)
	}
	must(t, p.Begin(digest.For()))
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errCut)
	if err := p.Fill(ctx, bytes.NewReader(content), partial.Fill{Limit: 1 << 30}); !errors.Is(err, errCut) {
		t.Errorf("cancelled: %v", err)
	}
	must(t, p.Begin(digest.For()))
	must(t, p.Fill(t.Context(), bytes.NewReader(content[:100]), partial.Fill{Limit: 1 << 30}))
	must(t, p.Save(key))
	p.Close()
	// The disk is gone, as it were: the reader is not waited for.
	if err := p.Fill(t.Context(), bytes.NewReader(content), partial.Fill{Key: key, Limit: 1 << 30}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("on a closed file: %v", err)
	}
	// Sums and bytes may disagree now, and must not be saved as one.
	must(t, p.Save(key))
}

func TestOpenOfOther(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"absent":         func(path string) error { return partial.Remove(path, 0) },
		"another folder": func(path string) error { return errors.Join(os.Rename(path, path+"x"), os.Mkdir(path, 0o700)) },
		"no image":       func(path string) error { return os.Remove(filepath.Join(path, "image")) },
		"a link": func(path string) error {
			return errors.Join(os.Remove(filepath.Join(path, "image")), os.Symlink("state", filepath.Join(path, "image")))
		},
		"a pipe": func(path string) error {
			return errors.Join(os.Remove(filepath.Join(path, "image")), syscall.Mkfifo(filepath.Join(path, "image"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "p")
			p := make1(t, path)
			p.Close()
			must(t, spoil(path))
			if p, err := partial.Open(path, p.Inode()); err == nil {
				p.Close()
				t.Error("opened")
			}
		})
	}
	path := filepath.Join(t.TempDir(), "p")
	must(t, os.Mkdir(path, 0o700))
	if _, err := partial.Make(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made over another: %v", err)
	}
	p := make1(t, path+"2")
	defer p.Close()
	info, err := os.Stat(p.Path())
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %s", info.Mode())
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p")
	p := make1(t, path)
	must(t, p.Fill(t.Context(), bytes.NewReader([]byte("x")), partial.Fill{Limit: 1}))
	must(t, p.Save(key))
	p.Close()
	exists := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	must(t, partial.Remove(path, p.Inode()+1))
	if !exists("p/image") || !exists("p/state") {
		t.Error("somebody else's folder was touched")
	}
	must(t, os.WriteFile(filepath.Join(path, "notes"), nil, 0o600))
	if err := partial.Remove(path, p.Inode()); !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("a folder with somebody's file: %v", err)
	}
	if exists("p/image") || !exists("p/notes") {
		t.Error("the image goes, what is not ours stays")
	}
	must(t, os.Remove(filepath.Join(path, "notes")))
	must(t, partial.Remove(path, p.Inode()))
	must(t, partial.Remove(path, p.Inode()))
	if exists("p") {
		t.Error("the folder is left")
	}
	// A link is removed as such, not followed.
	must(t, os.Mkdir(path, 0o700))
	must(t, os.WriteFile(filepath.Join(path, "image"), nil, 0o600))
	must(t, os.Symlink(path, filepath.Join(dir, "link")))
	must(t, partial.Remove(filepath.Join(dir, "link"), 0))
	if exists("link") || !exists("p/image") {
		t.Error("a link was followed")
	}
	// A plain file is what an earlier version left.
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(t, partial.Remove(filepath.Join(dir, "file"), 0))
	if exists("file") {
		t.Error("the file is left")
	}
}

// Whatever lies there as a state: it is refused, or what is resumed from it
// has the bytes and sums that it speaks of.
func FuzzSaved(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "good")
	p := make1(f, path)
	must(f, p.Fill(f.Context(), bytes.NewReader(make([]byte, 5000)), partial.Fill{Limit: 1 << 20}))
	must(f, p.Save(key))
	p.Close()
	good, err := os.ReadFile(filepath.Join(path, "state"))
	must(f, err)
	for _, seed := range [][]byte{good, good[:len(good)/2], nil, []byte("{}"), []byte(`{"want":"x","offset":-1,"sums":{"sha256":""}}`)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "p")
		p := make1(t, path)
		defer p.Close()
		must(t, p.Fill(t.Context(), bytes.NewReader(make([]byte, 5000)), partial.Fill{Limit: 1 << 20}))
		must(t, os.WriteFile(filepath.Join(path, "state"), b, 0o600))
		s, ok := p.Saved()
		if !ok {
			return
		}
		if s.Offset <= 0 || s.Offset > 5000 {
			t.Fatalf("offset %d of 5000", s.Offset)
		}
		if p.Resume(s, digest.For("md5:")) == nil && p.Size() != s.Offset {
			t.Fatalf("resumed at %d, not %d", p.Size(), s.Offset)
		}
	})
}
