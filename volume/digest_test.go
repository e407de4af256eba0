package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// later is a Digester for which every file has been left alone long enough.
func later() *Digester {
	d := NewDigester()
	d.now = func() time.Time { return time.Now().Add(time.Hour) }
	return d
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func mustDigest(t *testing.T, d *Digester, path string) string {
	t.Helper()
	got, err := d.Digest(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDigest(t *testing.T) {
	sparse := make([]byte, 5<<20+17)
	copy(sparse[2<<20:], "data between two holes")
	tests := map[string][]byte{"empty": nil, "short": []byte("wherry"), "sparse": sparse, "hole at the end": make([]byte, 1<<20+1)}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(content) > 2<<20 {
				_, err = f.WriteAt(content[2<<20:2<<20+100], 2<<20)
			} else if name == "short" {
				_, err = f.Write(content)
			}
			if err := errors.Join(err, f.Truncate(int64(len(content))), f.Close()); err != nil {
				t.Fatal(err)
			}
			if got, want := mustDigest(t, NewDigester(), path), digestOf(content); got != want {
				t.Errorf("digest %s; want %s", got, want)
			}
		})
	}
}

func TestDigestIsRemembered(t *testing.T) {
	d, path := later(), filepath.Join(t.TempDir(), "file")
	put(t, path, []byte("one"))
	for range 3 {
		mustDigest(t, d, path)
	}
	if d.reads != 1 {
		t.Errorf("%d reads; want 1", d.reads)
	}
}

// Who has read a file already is believed, and asked every time.
func TestDigestIsVouchedFor(t *testing.T) {
	d, path := later(), filepath.Join(t.TempDir(), "file")
	put(t, path, []byte("one"))
	vouches := true
	d.Vouched(func(asked string, info fs.FileInfo) (string, bool) {
		if asked != path || info.Size() != 3 {
			t.Errorf("asked for %q of %d bytes", asked, info.Size())
		}
		return "sha256:known", vouches
	})
	if got := mustDigest(t, d, path); got != "sha256:known" || d.reads != 0 {
		t.Errorf("digest %s after %d reads; want what is known", got, d.reads)
	}
	vouches = false
	if got := mustDigest(t, d, path); got != digestOf([]byte("one")) || d.reads != 1 {
		t.Errorf("digest %s after %d reads; want it read", got, d.reads)
	}
}

// Whatever makes another file or other bytes of it is read anew.
func TestDigestIsForgotten(t *testing.T) {
	tests := map[string]func(t *testing.T, path string){
		"written": func(t *testing.T, path string) { put(t, path, []byte("two")) },
		"longer":  func(t *testing.T, path string) { put(t, path, []byte("one and more")) },
		"replaced": func(t *testing.T, path string) {
			put(t, path+".new", []byte("two"))
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
		"written, with its time put back": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			put(t, path, []byte("two"))
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			d, path := later(), filepath.Join(t.TempDir(), "file")
			put(t, path, []byte("one"))
			mustDigest(t, d, path)
			// The clock of the file system ticks; wait until it shows.
			before := ctime(t, path)
			for ctime(t, path) == before {
				if err := os.Chmod(path, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			change(t, path)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := mustDigest(t, d, path), digestOf(b); got != want {
				t.Errorf("digest %s; want %s", got, want)
			}
		})
	}
}

func ctime(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ctim.Nano()
}

// Two writes within one tick of the file system's clock look the same: a file
// that was changed a moment ago is not remembered.
func TestDigestOfAFreshFileIsNotRemembered(t *testing.T) {
	d, path := NewDigester(), filepath.Join(t.TempDir(), "file")
	put(t, path, []byte("one"))
	mustDigest(t, d, path)
	mustDigest(t, d, path)
	if d.reads != 2 {
		t.Errorf("%d reads; want 2", d.reads)
	}
}

func TestDigestRefuses(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/file", nil)
	if err := os.Symlink("file", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{dir + "/link": ErrFileType, dir: ErrFileType, "/dev/zero": ErrFileType, dir + "/gone": fs.ErrNotExist} {
		if _, err := NewDigester().Digest(t.Context(), path); !errors.Is(err, want) {
			t.Errorf("%q: %v; want %v", path, err, want)
		}
	}
}

func TestDigestFileThatChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, make([]byte, 1<<20))
	f, key, err := openForDigest(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := digestFile(t.Context(), f, key); !errors.Is(err, ErrChanged) {
		t.Errorf("a file that got shorter: %v; want ErrChanged", err)
	}
}

func TestDigestFileThatIsRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, []byte("one"))
	f, key, err := openForDigest(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for ctime(t, path) == key.ctime {
		put(t, path, []byte("two"))
	}
	if _, err := digestFile(t.Context(), f, key); !errors.Is(err, ErrChanged) {
		t.Errorf("other bytes of the same length: %v; want ErrChanged", err)
	}
}

// Callers of the same file share a read; one that leaves does not end it for
// the others, and the last to leave does.
func TestDigestIsShared(t *testing.T) {
	d, path := later(), filepath.Join(t.TempDir(), "file")
	put(t, path, nil)
	const size = 64 << 30 // all hole: hashing it outlasts the test
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	why := errors.New("enough")
	leave := make([]context.CancelCauseFunc, 3)
	errs := make([]error, len(leave))
	for i := range leave {
		ctx, cancel := context.WithCancelCause(t.Context())
		leave[i] = cancel
		waiting.Go(func() { _, errs[i] = d.Digest(ctx, path) })
	}
	waiters := func() (flights, n int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, run := range d.flights {
			n += run.waiters
		}
		return len(d.flights), n
	}
	until := func(want int) {
		for {
			if _, n := waiters(); n == want {
				return
			}
			if t.Context().Err() != nil {
				t.FailNow()
			}
			runtime.Gosched()
		}
	}
	until(3)
	if flights, _ := waiters(); flights != 1 || d.reads != 1 {
		t.Errorf("%d reads for three callers", d.reads)
	}
	leave[0](why)
	until(2)
	if flights, _ := waiters(); flights != 1 {
		t.Error("one who left took the read with them")
	}
	leave[1](why)
	leave[2](why)
	waiting.Wait()
	if flights, _ := waiters(); flights != 0 {
		t.Error("a read that nobody waits for goes on")
	}
	for _, err := range errs {
		if !errors.Is(err, why) {
			t.Errorf("left with %v; want %v", err, why)
		}
	}
}

func TestDigestCacheIsBounded(t *testing.T) {
	d := later()
	for i := range maxDigests + 10 {
		d.remember(fileKey{ino: uint64(i)}, "sha256:")
	}
	if len(d.cache) != maxDigests {
		t.Errorf("%d digests are remembered", len(d.cache))
	}
}
