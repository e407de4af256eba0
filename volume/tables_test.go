package volume_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

// mapped is a forged image with an L2 table and one cluster of data: header,
// refcount table, refcount block, L1 table, L2 table, data.
func mapped() image {
	b := make(image, 6*64*kib)
	copy(b, forge())
	b.u64(1*64*kib, 2*64*kib)
	b.u64(3*64*kib, 1<<63|4*64*kib)
	b.u64(4*64*kib, 1<<63|5*64*kib)
	return b
}

func checkTables(b []byte) error {
	h, err := read(b)
	if err != nil {
		return err
	}
	return h.CheckTables(context.Background(), bytes.NewReader(b), int64(len(b)))
}

// compressed is a descriptor for clusters of 64 KiB: the number of further
// sectors lies above bit 54.
func compressed(offset, further uint64) uint64 { return 1<<62 | further<<54 | offset }

func TestCheckTables(t *testing.T) {
	const l1, l2 = 3 * 64 * kib, 4 * 64 * kib
	extended := func(b image) { b.u64(72, 16) }
	tests := map[string]struct {
		spoil func(b image)
		ok    bool
	}{
		"plain":                         {func(image) {}, true},
		"zero cluster":                  {func(b image) { b.u64(l2+8, 1) }, true},
		"zero cluster with space":       {func(b image) { b.u64(l2, 1<<63|5*64*kib|1) }, true},
		"compressed data":               {func(b image) { b.u64(l2, compressed(5*64*kib+77, 3)) }, true},
		"compressed to the very end":    {func(b image) { b.u64(l2, compressed(6*64*kib-512, 0)) }, true},
		"compressed, end not written":   {func(b image) { b.u64(l2, compressed(6*64*kib-1, 3)) }, true},
		"subclusters":                   {func(b image) { extended(b); b.u64(l2, 5*64*kib); b.u64(l2+8, 1<<33|1) }, true},
		"refcount table points outside": {func(b image) { b.u64(64*kib, 6*64*kib) }, false},
		"refcount table points askew":   {func(b image) { b.u64(64*kib, 2*64*kib+512) }, false},
		"refcount table reserved bits":  {func(b image) { b.u64(64*kib, 2*64*kib+1) }, false},
		"refcount table in the header":  {func(b image) { b.u64(48, 0) }, false},
		"refcount table past the end":   {func(b image) { b.u64(48, 5*64*kib); b.u32(56, 2) }, false},
		"L1 table in the header":        {func(b image) { b.u64(40, 0) }, false},
		"tables overlap":                {func(b image) { b.u64(40, 64*kib) }, false},
		"tables overlap in part":        {func(b image) { b.u32(56, 3) }, false},
		"L2 table outside":              {func(b image) { b.u64(l1, 6*64*kib) }, false},
		"L2 table far outside":          {func(b image) { b.u64(l1, 0xff<<48) }, false},
		"L2 table askew":                {func(b image) { b.u64(l1, 4*64*kib+512) }, false},
		"L1 entry of reserved bits":     {func(b image) { b.u64(l1, 4*64*kib|1) }, false},
		"L1 entry without offset":       {func(b image) { b.u64(l1, 1<<63) }, false},
		"L2 table twice":                {func(b image) { b.u32(36, 2); b.u64(l1+8, 4*64*kib) }, false},
		"data outside":                  {func(b image) { b.u64(l2, 6*64*kib) }, false},
		"data askew":                    {func(b image) { b.u64(l2, 5*64*kib+512) }, false},
		"the last entry too":            {func(b image) { b.u64(5*64*kib-8, 6*64*kib) }, false},
		"L2 entry of reserved bits":     {func(b image) { b.u64(l2, 5*64*kib|2) }, false},
		"zero flag in version 2":        {func(b image) { b.u32(4, 2); clear(b[72:112]); b.u64(l2, 1) }, false},
		"compressed and copied":         {func(b image) { b.u64(l2, 1<<63|compressed(5*64*kib, 0)) }, false},
		"compressed outside":            {func(b image) { b.u64(l2, compressed(6*64*kib, 0)) }, false},
		"compressed over the end":       {func(b image) { b.u64(l2, compressed(6*64*kib-512, 128)) }, false},
		"compressed in the header":      {func(b image) { b.u64(l2, compressed(100, 0)) }, false},
		"subclusters both ways":         {func(b image) { extended(b); b.u64(l2, 5*64*kib); b.u64(l2+8, 1<<32|1) }, false},
		"subclusters of nothing":        {func(b image) { extended(b); b.u64(l2, 0); b.u64(l2+8, 1) }, false},
		"zero flag with subclusters":    {func(b image) { extended(b); b.u64(l2, 1) }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := mapped()
			tt.spoil(b)
			if err := checkTables(b); tt.ok && err != nil || !tt.ok && !errors.Is(err, volume.ErrHeader) {
				t.Errorf("got %v; want acceptance: %v", err, tt.ok)
			}
		})
	}
}

// An L1 table of the greatest size that names one L2 table everywhere would be
// work without end.
func TestCheckTablesSamePlaceMillionsOfTimes(t *testing.T) {
	b := make(image, 40*mib)
	copy(b, mapped()[:3*64*kib])
	b.u32(36, 4<<20)
	b.u64(40, 3*64*kib)
	for i := range 4 << 20 {
		b.u64(3*64*kib+i*8, 36*mib)
	}
	if err := checkTables(b); !errors.Is(err, volume.ErrHeader) {
		t.Errorf("got %v", err)
	}
}

// What QEMU writes is accepted, in every variant and after all that may happen
// to an image; and cut short by a cluster it is not.
func TestCheckTablesOfRealImages(t *testing.T) {
	for name, options := range map[string]string{
		"v2": "compat=0.10", "v3": "compat=1.1", "small clusters": "cluster_size=512", "great clusters": "cluster_size=2M",
		"subclusters": "extended_l2=on", "lazy": "lazy_refcounts=on", "narrow refcounts": "refcount_bits=1",
		"metadata": "preallocation=metadata", "falloc": "preallocation=falloc", "zstd": "compression_type=zstd",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := qcow2(t, filepath.Join(t.TempDir(), "i"), "24M", "-o", options)
			write(t, "qcow2", path, "write -P 1 3k 70k", "discard 4M 2M", "write -c -P 2 4M 2M", "write -z 6M 128k", "discard 4M 64k", "write -P 3 23M 1M")
			if name != "narrow refcounts" {
				qemuImg(t, "snapshot", "-c", "s", path)
				write(t, "qcow2", path, "write -P 4 3k 300k")
				qemuImg(t, "snapshot", "-d", "s", path)
			}
			if name != "v2" && name != "metadata" && name != "falloc" {
				qemuImg(t, "resize", "-q", path, "40M")
				write(t, "qcow2", path, "write -P 5 39M 64k")
				qemuImg(t, "resize", "-q", "--shrink", path, "16M")
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := checkTables(b); err != nil {
				t.Fatal(err)
			}
			if err := checkTables(b[:len(b)/2]); !errors.Is(err, volume.ErrHeader) {
				t.Errorf("cut in half: %v", err)
			}
		})
	}
}

func TestCheckTablesCanBeStopped(t *testing.T) {
	b := mapped()
	h, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(stopped)
	if err := h.CheckTables(ctx, bytes.NewReader(b), int64(len(b))); !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}

type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestCheckTablesSaysThatItCouldNotRead(t *testing.T) {
	b := mapped()
	h, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.CheckTables(t.Context(), unreadable{}, int64(len(b))); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, volume.ErrHeader) {
		t.Errorf("got %v", err)
	}
}

// smallest is mapped with clusters of 512 bytes: a fuzzer gets further with
// three kilobytes than with hundreds.
func smallest() image {
	b := make(image, 6*512)
	copy(b, mapped()[:112])
	b.u32(20, 9)
	b.u64(24, 32*kib)
	b.u64(40, 3*512)
	b.u64(48, 512)
	b.u64(512, 2*512)
	b.u64(3*512, 1<<63|4*512)
	b.u64(4*512, 1<<63|5*512)
	return b
}

func FuzzCheckTables(f *testing.F) {
	b := smallest()
	if err := checkTables(b); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(b))
	b = smallest()
	b.u64(4*512, 1<<62|5*512+17)
	f.Add([]byte(b))
	b = smallest()
	b.u32(4, 2)
	f.Add([]byte(b))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := read(b)
		if err != nil {
			return
		}
		all := &counted{of: bytes.NewReader(b)}
		err = h.CheckTables(t.Context(), all, int64(len(b)))
		if err != nil && !errors.Is(err, volume.ErrHeader) {
			t.Fatalf("error of no known kind: %v", err)
		}
		if all.bytes > 3*len(b) {
			t.Fatalf("read %d bytes of an image of %d", all.bytes, len(b))
		}
	})
}

// counted counts what is asked for.
type counted struct {
	of    io.ReaderAt
	bytes int
}

func (c *counted) ReadAt(b []byte, offset int64) (int, error) {
	c.bytes += len(b)
	return c.of.ReadAt(b, offset)
}
