package volume_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

// flatten returns the extent stream of a chain.
func flatten(t testing.TB, c volume.Chain) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := volume.Flatten(t.Context(), c, &b, tempDir(t), volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFlattenAndApply(t *testing.T) {
	specs := map[string]volume.Spec{
		"raw":           {Format: "raw", VirtualSize: 10*mib + 512},
		"raw, larger":   {Format: "raw", VirtualSize: 30 * mib},
		"qcow2":         {Format: "qcow2", VirtualSize: 10*mib + 512},
		"qcow2, larger": {Format: "qcow2", VirtualSize: 30 * mib, Compat: "0.10", ClusterSize: 4 * kib},
	}
	src := source(t, tempDir(t))
	stream := flatten(t, src)
	if len(stream) > 7*mib {
		t.Errorf("%d bytes for 5 MiB of data: holes were sent", len(stream))
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			spec.Path = dir + "/disk"
			o := formatted(t, spec)
			var told int64
			progress := func(done, _ int64) { told = done }
			if err := volume.Apply(t.Context(), bytes.NewReader(stream), o, spec.Format, volume.Exec{}, progress); err != nil {
				t.Fatal(err)
			}
			compare(t, src[0].Path, "qcow2", spec.Path, spec.Format)
			if told == 0 {
				t.Error("no progress was told")
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 1 {
				t.Errorf("left in the folder: %v, %v", left, err)
			}
		})
	}
}

// A raw image whose last sector is not whole reads as if it were.
func TestFlattenAnOddRawImage(t *testing.T) {
	dir := tempDir(t)
	b := bytes.Repeat([]byte("wherry"), 100_001)
	stream := flatten(t, walk(t, writeFile(t, dir+"/raw", b), volume.FormatRaw))
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "raw", VirtualSize: 600_064})
	if err := volume.Apply(t.Context(), bytes.NewReader(stream), o, "raw", volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(o.Path)
	if err != nil || !bytes.Equal(got, slices.Concat(b, make([]byte, 600_064-len(b)))) {
		t.Errorf("%d bytes came through changed, %v", len(got), err)
	}
}

func TestApplyRefuses(t *testing.T) {
	dir := tempDir(t)
	content := make([]byte, 3*mib)
	copy(content[mib+100:], "data in the second record")
	copy(content, "data in the first")
	good := flatten(t, walk(t, writeFile(t, dir+"/raw", content), volume.FormatRaw))
	change := func(at int, b byte) []byte {
		out := bytes.Clone(good)
		out[at] ^= b
		return out
	}
	tests := map[string]struct {
		stream []byte
		want   error
	}{
		"nothing":            {nil, volume.ErrStream},
		"other magic":        {change(0, 1), volume.ErrStream},
		"half a sector":      {change(15, 1), volume.ErrStream},
		"negative size":      {change(8, 0x80), volume.ErrStream},
		"larger size":        {change(9, 1), volume.ErrTooSmall},
		"offset altered":     {change(22, 2), volume.ErrStream},
		"offset beyond":      {change(18, 1), volume.ErrStream},
		"offset negative":    {change(16, 0x80), volume.ErrStream},
		"record too long":    {change(24, 1), volume.ErrStream},
		"data altered":       {change(100, 1), volume.ErrStream},
		"digest altered":     {change(len(good)-1, 1), volume.ErrStream},
		"without its digest": {good[:len(good)-32], volume.ErrStream},
		"without its end":    {good[:len(good)-44], volume.ErrStream},
		"cut in a record":    {good[:1000], volume.ErrStream},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := formatted(t, volume.Spec{Path: tempDir(t) + "/disk", Format: "raw", VirtualSize: 3 * mib})
			err := volume.Apply(t.Context(), bytes.NewReader(tt.stream), o, "raw", volume.Exec{}, nil)
			if !errors.Is(err, tt.want) {
				t.Errorf("apply: %v; want %v", err, tt.want)
			}
			if info, err := os.Stat(o.Path); err != nil || info.Size() != 3*mib {
				t.Errorf("the volume's size became %d, %v", info.Size(), err)
			}
		})
	}
}

// forgeStream writes a stream as the format's description has it, from pairs
// of an offset and a length.
func forgeStream(size uint64, records ...[2]uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte("WHRYEXT1"), size)
	for _, r := range records {
		b = binary.BigEndian.AppendUint64(b, r[0])
		b = binary.BigEndian.AppendUint32(b, uint32(r[1]))
		b = append(b, bytes.Repeat([]byte{'x'}, int(r[1]))...)
	}
	b = binary.BigEndian.AppendUint64(b, size)
	b = binary.BigEndian.AppendUint32(b, 0)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func TestApplyHoldsToTheDescription(t *testing.T) {
	tests := map[string]struct {
		stream []byte
		want   error
	}{
		"no records":          {forgeStream(mib), nil},
		"side by side":        {forgeStream(mib, [2]uint64{0, 10}, [2]uint64{10, 10}), nil},
		"up to the end":       {forgeStream(mib, [2]uint64{mib - 7, 7}), nil},
		"whole volume":        {forgeStream(mib, [2]uint64{0, mib}), nil},
		"overlap":             {forgeStream(mib, [2]uint64{0, 10}, [2]uint64{9, 10}), volume.ErrStream},
		"descending":          {forgeStream(mib, [2]uint64{100, 10}, [2]uint64{0, 10}), volume.ErrStream},
		"across the end":      {forgeStream(mib, [2]uint64{mib - 7, 8}), volume.ErrStream},
		"offset wraps":        {forgeStream(mib, [2]uint64{1<<64 - 8, 8}), volume.ErrStream},
		"longer than allowed": {forgeStream(4*mib, [2]uint64{0, mib + 1}), volume.ErrStream},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := formatted(t, volume.Spec{Path: tempDir(t) + "/disk", Format: "raw", VirtualSize: 4 * mib})
			err := volume.Apply(t.Context(), bytes.NewReader(tt.stream), o, "raw", volume.Exec{}, nil)
			if !errors.Is(err, tt.want) {
				t.Errorf("apply: %v; want %v", err, tt.want)
			}
		})
	}
}

func TestApplyRefusesAUsedVolume(t *testing.T) {
	dir := tempDir(t)
	stream := flatten(t, walk(t, writeFile(t, dir+"/raw", make([]byte, mib)), volume.FormatRaw))
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "raw", VirtualSize: mib})
	write(t, "raw", o.Path, "write -P 1 0 512")
	if err := volume.Apply(t.Context(), bytes.NewReader(stream), o, "raw", volume.Exec{}, nil); !errors.Is(err, volume.ErrNotFresh) {
		t.Errorf("apply: %v; want ErrNotFresh", err)
	}
}

// A writer that fails ends the stream with its own error.
func TestFlattenKeepsTheWritersError(t *testing.T) {
	src := source(t, tempDir(t))
	why := errors.New("the peer hung up")
	if err := volume.Flatten(t.Context(), src, failing{why}, tempDir(t), volume.Exec{}, nil); !errors.Is(err, why) {
		t.Errorf("flatten: %v; want %v", err, why)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// FuzzApply feeds any bytes to a volume: it keeps its size and only a whole
// stream succeeds.
func FuzzApply(f *testing.F) {
	dir := tempDir(f)
	content := make([]byte, 64*kib)
	copy(content[8*kib:], "some data")
	var b bytes.Buffer
	c := walk(f, writeFile(f, dir+"/raw", content), volume.FormatRaw)
	if err := volume.Flatten(f.Context(), c, &b, dir, volume.Exec{}, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:50])
	f.Fuzz(func(t *testing.T, stream []byte) {
		o := formatted(t, volume.Spec{Path: tempDir(t) + "/disk", Format: "raw", VirtualSize: 64 * kib})
		err := volume.Apply(t.Context(), bytes.NewReader(stream), o, "raw", volume.Exec{}, nil)
		if err != nil && !errors.Is(err, volume.ErrStream) && !errors.Is(err, volume.ErrTooSmall) {
			t.Fatalf("error of no known kind: %v", err)
		}
		if info, err := os.Stat(o.Path); err != nil || info.Size() != 64*kib {
			t.Fatalf("the volume's size became %d, %v", info.Size(), err)
		}
	})
}
