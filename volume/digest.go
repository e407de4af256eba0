package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// settleTime is how long a file must have been left alone before its digest is
// remembered. Time stamps have a grain (a clock tick, a second on some file
// systems): within it a second change leaves no trace in them.
const settleTime = 3 * time.Second

// maxDigests bounds the cache; entries beyond it push out an arbitrary one.
const maxDigests = 4096

// Digester computes digests of files and remembers them for as long as the
// file's identity, size and times stay what they were. It is safe for
// concurrent use; callers that ask for the same file share one read.
type Digester struct {
	now   func() time.Time
	vouch func(path string, info fs.FileInfo) (digest string, ok bool)

	mu      sync.Mutex
	cache   map[fileKey]string
	flights map[fileKey]*flight
	reads   int // files read, for tests
}

// fileKey changes whenever a file's content may have changed.
type fileKey struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64
}

// flight is one read under way. It ends early when nobody waits any more.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	digest  string
	err     error
}

// NewDigester returns an empty Digester.
func NewDigester() *Digester {
	return &Digester{now: time.Now, cache: map[fileKey]string{}, flights: map[fileKey]*flight{}}
}

// Vouched has the Digester believe somebody who has read a file already, if it
// is the one that info describes. Call it before the first Digest.
func (d *Digester) Vouched(by func(path string, info fs.FileInfo) (digest string, ok bool)) {
	d.vouch = by
}

// Digest returns "sha256:" and the hex digest of the bytes of the regular file
// at path (ErrFileType for anything else, symbolic links included); holes count
// as zeros, and are not read. A file that changes meanwhile is ErrChanged.
func (d *Digester) Digest(ctx context.Context, path string) (string, error) {
	f, key, err := openForDigest(path)
	if err != nil {
		return "", fmt.Errorf("digest %q: %w", path, err)
	}
	if digest, ok := d.vouchedFor(path, f); ok {
		f.Close()
		return digest, nil
	}
	d.mu.Lock()
	if digest, ok := d.cache[key]; ok {
		d.mu.Unlock()
		f.Close()
		return digest, nil
	}
	run, ok := d.flights[key]
	if ok {
		f.Close()
	} else {
		run = d.launch(ctx, f, key)
	}
	run.waiters++
	d.mu.Unlock()

	select {
	case <-run.done:
		if run.err != nil {
			return "", fmt.Errorf("digest %q: %w", path, run.err)
		}
		return run.digest, nil
	case <-ctx.Done():
		d.leave(run, key)
		return "", fmt.Errorf("digest %q: %w", path, context.Cause(ctx))
	}
}

func (d *Digester) vouchedFor(path string, f *os.File) (string, bool) {
	if d.vouch == nil {
		return "", false
	}
	info, err := f.Stat()
	if err != nil {
		return "", false
	}
	return d.vouch(path, info)
}

// leave drops a waiter; the last one takes the read with it.
func (d *Digester) leave(run *flight, key fileKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if run.waiters--; run.waiters == 0 {
		run.cancel()
		// Who comes now must not join a read that is being given up.
		if d.flights[key] == run {
			delete(d.flights, key)
		}
	}
}

// launch starts a read of f, which it closes. The caller holds d.mu. The read
// belongs to all who wait for it, so it does not end with the first one's context.
func (d *Digester) launch(ctx context.Context, f *os.File, key fileKey) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	run := &flight{done: make(chan struct{}), cancel: cancel}
	d.flights[key] = run
	d.reads++
	settled := d.now().Sub(time.Unix(0, key.ctime)) >= settleTime
	go func() {
		defer cancel()
		defer f.Close()
		run.digest, run.err = digestFile(ctx, f, key)
		d.mu.Lock()
		defer d.mu.Unlock()
		if run.err == nil && settled {
			d.remember(key, run.digest)
		}
		if d.flights[key] == run {
			delete(d.flights, key)
		}
		close(run.done)
	}()
	return run
}

func (d *Digester) remember(key fileKey, digest string) {
	if len(d.cache) >= maxDigests {
		for k := range d.cache {
			delete(d.cache, k)
			break
		}
	}
	d.cache[key] = digest
}

func openForDigest(path string) (*os.File, fileKey, error) {
	f, err := openImage(path, unix.O_RDONLY)
	if err != nil {
		return nil, fileKey{}, err
	}
	key, err := keyOf(f)
	if err != nil {
		f.Close()
		return nil, fileKey{}, err
	}
	return f, key, nil
}

func keyOf(f *os.File) (fileKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileKey{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileKey{}, ErrFileType
	}
	return fileKey{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, nil
}

// digestFile hashes f, which key describes, and checks that it still does.
func digestFile(ctx context.Context, f *os.File, key fileKey) (string, error) {
	sum := sha256.New()
	if err := hashExtents(ctx, sum, f, key.size); err != nil {
		return "", err
	}
	now, err := keyOf(f)
	if err != nil {
		return "", err
	}
	if now != key {
		return "", ErrChanged
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

func hashExtents(ctx context.Context, sum hash.Hash, f *os.File, size int64) error {
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		start, end, err := nextExtent(f, at, size)
		if err != nil {
			return err
		}
		for ; at < start; at += min(start-at, int64(len(zeros))) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			sum.Write(zeros[:min(start-at, int64(len(zeros)))])
		}
		for ; at < end; at += min(end-at, int64(len(buf))) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			chunk := buf[:min(end-at, int64(len(buf)))]
			if err := readFull(f, chunk, at); err != nil {
				return err
			}
			sum.Write(chunk)
		}
	}
	return nil
}
