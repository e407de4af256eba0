package volume_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wherry-kvm/wherry/volume"
)

// image is a forged qcow2 v3 image of 64 KiB clusters: header, refcount table,
// refcount block, L1 table. Tests spoil it field by field.
type image []byte

func forge() image {
	b := make(image, 4*64*kib)
	copy(b, "QFI\xfb")
	b.u32(4, 3)
	b.u32(20, 16)
	b.u64(24, mib)
	b.u32(36, 1)
	b.u64(40, 3*64*kib)
	b.u64(48, 64*kib)
	b.u32(56, 1)
	b.u32(96, 4)
	b.u32(100, 112)
	return b
}

func (b image) u16(at int, v uint16) { binary.BigEndian.PutUint16(b[at:], v) }
func (b image) u32(at int, v uint32) { binary.BigEndian.PutUint32(b[at:], v) }
func (b image) u64(at int, v uint64) { binary.BigEndian.PutUint64(b[at:], v) }

// extension writes a header extension at offset and returns where the next goes.
func (b image) extension(at int, kind uint32, data string) int {
	b.u32(at, kind)
	b.u32(at+4, uint32(len(data)))
	copy(b[at+8:], data)
	return at + 8 + (len(data)+7)/8*8
}

// backing names a backing file just before the end of the first cluster.
func (b image) backing(name string) {
	b.u64(8, 4096)
	b.u32(16, uint32(len(name)))
	copy(b[4096:], name)
}

func read(b []byte) (volume.Header, error) {
	return volume.ReadHeader(bytes.NewReader(b), int64(len(b)))
}

func TestReadHeader(t *testing.T) {
	base := volume.Header{Version: 3, VirtualSize: mib, ClusterSize: 64 * kib}
	tests := map[string]struct {
		spoil func(b image)
		want  func(h *volume.Header)
	}{
		"plain":                                  {func(image) {}, func(*volume.Header) {}},
		"dirty":                                  {func(b image) { b.u64(72, 1) }, func(h *volume.Header) { h.Dirty = true }},
		"corrupt":                                {func(b image) { b.u64(72, 2) }, func(h *volume.Header) { h.Corrupt = true }},
		"extended L2":                            {func(b image) { b.u64(72, 16) }, func(h *volume.Header) { h.ExtendedL2 = true }},
		"zstd":                                   {func(b image) { b.u64(72, 8); b[104] = 1 }, func(h *volume.Header) { h.Zstd = true }},
		"unknown bits":                           {func(b image) { b.u64(72, 1<<5|1<<63) }, func(h *volume.Header) { h.UnknownIncompatible = 1<<5 | 1<<63 }},
		"lazy refcounts":                         {func(b image) { b.u64(80, 1) }, func(h *volume.Header) { h.LazyRefcounts = true }},
		"unknown compatible bits are compatible": {func(b image) { b.u64(80, 1<<40) }, func(*volume.Header) {}},
		"aes":                                    {func(b image) { b.u32(32, 1) }, func(h *volume.Header) { h.Encrypted = true }},
		"luks":                                   {func(b image) { b.u32(32, 2) }, func(h *volume.Header) { h.Encrypted = true }},
		"encryption header only":                 {func(b image) { b.extension(112, 0x0537BE77, strings.Repeat("x", 16)) }, func(h *volume.Header) { h.Encrypted = true }},
		"persistent bitmaps":                     {func(b image) { b.extension(112, 0x23852875, strings.Repeat("\x00", 24)) }, func(h *volume.Header) { h.Bitmaps = true }},
		"data file without name":                 {func(b image) { b.u64(72, 4) }, func(h *volume.Header) { h.ExternalData = true }},
		"data file": {func(b image) { b.u64(72, 4); b.extension(112, 0x44415441, "/etc/shadow") },
			func(h *volume.Header) { h.ExternalData, h.DataFile = true, "/etc/shadow" }},
		"data file name without its bit": {func(b image) { b.extension(112, 0x44415441, "d") },
			func(h *volume.Header) { h.ExternalData, h.DataFile = true, "d" }},
		"backing": {func(b image) { b.extension(112, 0xE2792ACA, "qcow2"); b.backing("base") },
			func(h *volume.Header) { h.BackingFile, h.BackingFormat = "base", "qcow2" }},
		"backing without format": {func(b image) { b.backing("base") }, func(h *volume.Header) { h.BackingFile = "base" }},
		"backing name of the greatest length": {func(b image) { b.backing(strings.Repeat("n", 1023)) },
			func(h *volume.Header) { h.BackingFile = strings.Repeat("n", 1023) }},
		"format behind unknown extensions": {func(b image) {
			at := b.extension(112, 0x6803f857, strings.Repeat("feature", 31))
			b.extension(at, 0xE2792ACA, "raw")
			b.backing("base")
		}, func(h *volume.Header) { h.BackingFile, h.BackingFormat = "base", "raw" }},
		"extensions that fill the cluster": {func(b image) { b.extension(112, 0x12345678, strings.Repeat("x", 64*kib-112-8)) }, func(*volume.Header) {}},
		"version 2":                        {func(b image) { b.u32(4, 2); clear(b[72:112]) }, func(h *volume.Header) { h.Version = 2 }},
		"version 2 has no feature bits": {func(b image) { b.u32(4, 2); clear(b[72:112]); b.extension(72, 0xE2792ACA, "raw"); b.backing("b") },
			func(h *volume.Header) { h.Version, h.BackingFile, h.BackingFormat = 2, "b", "raw" }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, want := forge(), base
			tt.spoil(b)
			tt.want(&want)
			got, err := read(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(volume.Header{})); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadHeaderRefuses(t *testing.T) {
	tests := map[string]func(b image){
		"version 1":                           func(b image) { b.u32(4, 1) },
		"version 4":                           func(b image) { b.u32(4, 4) },
		"clusters of 256 bytes":               func(b image) { b.u32(20, 8) },
		"clusters of 4 MiB":                   func(b image) { b.u32(20, 22) },
		"cluster bits beyond a shift":         func(b image) { b.u32(20, 1<<31) },
		"half a sector":                       func(b image) { b.u64(24, 1025) },
		"negative size":                       func(b image) { b.u64(24, 1<<63) },
		"size beyond every L1 table":          func(b image) { b.u64(24, 1<<62) },
		"encryption method 3":                 func(b image) { b.u32(32, 3) },
		"L1 table of two gigabytes":           func(b image) { b.u32(36, 0x7fffffff) },
		"L1 table too small":                  func(b image) { b.u64(24, 1<<30) },
		"L1 table beyond the end":             func(b image) { b.u64(40, 4*64*kib) },
		"L1 table askew":                      func(b image) { b.u64(40, 3*64*kib+8) },
		"L1 table below zero":                 func(b image) { b.u64(40, 1<<63) },
		"refcount table beyond the end":       func(b image) { b.u64(48, 1<<40) },
		"refcount table askew":                func(b image) { b.u64(48, 1) },
		"no refcount table":                   func(b image) { b.u32(56, 0) },
		"refcount table of 256 clusters":      func(b image) { b.u32(56, 256) },
		"refcounts of 128 bits":               func(b image) { b.u32(96, 7) },
		"header shorter than its fields":      func(b image) { b.u32(100, 96) },
		"header longer than a cluster":        func(b image) { b.u32(100, 64*kib+8) },
		"header of an odd length":             func(b image) { b.u32(100, 108) },
		"extended L2 with small clusters":     func(b image) { b.u32(20, 13); b.u64(72, 16) },
		"compression bit without type":        func(b image) { b.u64(72, 8) },
		"compression type without bit":        func(b image) { b[104] = 1 },
		"compression type 2":                  func(b image) { b.u64(72, 8); b[104] = 2 },
		"backing name beyond the cluster":     func(b image) { b.u64(8, 64*kib+1); b.u32(16, 4) },
		"backing name across the end":         func(b image) { b.u64(8, 64*kib-4); b.u32(16, 5) },
		"backing name inside the header":      func(b image) { b.u64(8, 80); b.u32(16, 4) },
		"backing name at a negative offset":   func(b image) { b.u64(8, 1<<63|4096) },
		"backing name too long":               func(b image) { b.u64(8, 4096); b.u32(16, 1024) },
		"backing name with a NUL":             func(b image) { b.backing("base\x00evil") },
		"backing format too long":             func(b image) { b.extension(112, 0xE2792ACA, strings.Repeat("q", 16)) },
		"backing format twice":                func(b image) { b.extension(b.extension(112, 0xE2792ACA, "qcow2"), 0xE2792ACA, "raw") },
		"data file name with a NUL":           func(b image) { b.extension(112, 0x44415441, "a\x00b") },
		"data file name too long":             func(b image) { b.extension(112, 0x44415441, strings.Repeat("d", 1024)) },
		"extension beyond the cluster":        func(b image) { b.u32(112, 0x12345678); b.u32(116, 64*kib) },
		"end of extensions with a length":     func(b image) { b.u32(116, 64*kib) },
		"extension into the backing name":     func(b image) { b.backing("base"); b.u32(112, 0x12345678); b.u32(116, 4096-112-7) },
		"extension area ends inside a record": func(b image) { b.u64(8, 116); b.u32(16, 4) },
		"snapshots beyond every bound":        func(b image) { b.u32(60, 65537) },
		"snapshots without room":              func(b image) { b.u32(60, 4000); b.u64(64, 2*64*kib) },
		"snapshot table askew":                func(b image) { b.u32(60, 1); b.u64(64, 12345) },
		"snapshot table beyond the end":       func(b image) { b.u32(60, 1); b.u64(64, 1<<40) },
		"snapshot with too much extra data":   func(b image) { b.u32(60, 1); b.u64(64, 2*64*kib); b.u32(2*64*kib+36, 1025) },
		"snapshot name beyond the end":        func(b image) { b.u32(60, 1); b.u64(64, 3*64*kib); b.u16(3*64*kib+14, 65535) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			b := forge()
			spoil(b)
			if h, err := read(b); !errors.Is(err, volume.ErrHeader) {
				t.Errorf("got %+v, %v; want ErrHeader", h, err)
			}
		})
	}
}

func TestReadHeaderCutShort(t *testing.T) {
	b := forge()
	for _, n := range []int{0, 3} {
		if _, err := read(b[:n]); !errors.Is(err, volume.ErrNotQcow2) {
			t.Errorf("%d bytes: %v; want ErrNotQcow2", n, err)
		}
	}
	for _, n := range []int{4, 71, 72, 103, 104, 111, 112, 64 * kib, 3*64*kib + 7} {
		if _, err := read(b[:n]); !errors.Is(err, volume.ErrHeader) {
			t.Errorf("%d bytes: %v; want ErrHeader", n, err)
		}
	}
}

func TestReadHeaderSnapshotNames(t *testing.T) {
	b := forge()
	b.u32(60, 2)
	b.u64(64, 2*64*kib)
	at := 2 * 64 * kib
	for _, name := range []string{"before the upgrade", "näch"} {
		b.u16(at+12, 1)
		b.u16(at+14, uint16(len(name)))
		b.u32(at+36, 24)
		copy(b[at+40+24+1:], name)
		at += (40 + 24 + 1 + len(name) + 7) / 8 * 8
	}
	h, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"before the upgrade", "näch"}, h.SnapshotNames); diff != "" || h.Snapshots != 2 {
		t.Errorf("%d snapshots, names (-want +got):\n%s", h.Snapshots, diff)
	}
}

// The number of names read is bounded however many snapshots there are.
func TestReadHeaderManySnapshots(t *testing.T) {
	b := forge()
	b.u32(60, 1000)
	b.u64(64, 2*64*kib)
	h, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	if h.Snapshots != 1000 || len(h.SnapshotNames) != volume.MaxSnapshotNames {
		t.Errorf("%d snapshots with %d names", h.Snapshots, len(h.SnapshotNames))
	}
}

// seeds are real images, and forged ones that come close to every branch.
func seeds(f *testing.F) {
	dir := f.TempDir()
	for name, args := range map[string][]string{
		"v2": {"-o", "compat=0.10"}, "v3": nil, "ext": {"-o", "extended_l2=on,cluster_size=16k"},
		"backed": {"-u", "-b", "/nowhere/base", "-F", "raw"}, "small": {"-o", "cluster_size=512,lazy_refcounts=on"},
		"data": {"-o", "data_file=" + filepath.Join(dir, "d")},
	} {
		path := qcow2(f, filepath.Join(dir, name), "1M", args...)
		if name == "v2" || name == "v3" {
			qemuImg(f, "snapshot", "-c", "one", path)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 512*kib)])
	}
	b := forge()
	b.backing("json:{}")
	b.extension(112, 0xE2792ACA, "qcow2")
	f.Add([]byte(b[:8*kib]))
	f.Add([]byte(b))
}

func FuzzReadHeader(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := read(b)
		if err != nil {
			if !errors.Is(err, volume.ErrHeader) && !errors.Is(err, volume.ErrNotQcow2) {
				t.Fatalf("error of no known kind: %v", err)
			}
			return
		}
		switch {
		case h.Version != 2 && h.Version != 3,
			h.ClusterSize < 512 || h.ClusterSize > 2*mib || h.ClusterSize&(h.ClusterSize-1) != 0,
			h.VirtualSize < 0 || h.VirtualSize%512 != 0,
			len(h.BackingFile) > 1023 || strings.Contains(h.BackingFile, "\x00"),
			h.Snapshots > 65536 || len(h.SnapshotNames) > min(h.Snapshots, volume.MaxSnapshotNames):
			t.Fatalf("header out of bounds: %+v", h)
		}
	})
}
