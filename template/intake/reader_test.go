package intake_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/intake"
	"github.com/wherry-kvm/wherry/template/intake/hostile"
)

// counted counts what is read.
type counted struct {
	of    io.ReaderAt
	bytes int64
}

func (c *counted) ReadAt(b []byte, offset int64) (int, error) {
	c.bytes += int64(len(b))
	return c.of.ReadAt(b, offset)
}

// examine reads an image and holds the result against what must be true of any.
func examine(t *testing.T, b []byte, format string) error {
	all := &counted{of: bytes.NewReader(b)}
	info, err := intake.Read(t.Context(), all, int64(len(b)), format, 1<<40)
	if limit := int64(4*len(b) + 128<<10); all.bytes > limit {
		t.Errorf("read %d bytes of an image of %d", all.bytes, len(b))
	}
	if err != nil {
		f, ok := errors.AsType[*fault.Fault](err)
		if !ok || f.Class != fault.Policy || !f.Permanent || len(fault.Message(err)) < 20 {
			t.Errorf("refused by %#v: %v", f, err)
		}
		return err
	}
	switch {
	case info.VirtualSize <= 0 || info.VirtualSize > 1<<40 || info.VirtualSize%512 != 0 || info.Format != format:
		t.Errorf("accepted as %+v", info)
	case format == "raw" && (info.VirtualSize != int64(len(b)) || bytes.HasPrefix(b, []byte("QFI\xfb"))):
		t.Errorf("accepted as raw: %q", b[:4])
	case format == "qcow2":
		accepted(t, b)
	}
	return nil
}

// accepted looks at the header itself, by the numbers of the specification.
func accepted(t *testing.T, b []byte) {
	be := binary.BigEndian
	version := be.Uint32(b[4:])
	switch {
	case !bytes.HasPrefix(b, []byte("QFI\xfb")) || version != 2 && version != 3:
		t.Errorf("accepted: magic %q, version %d", b[:4], version)
	case be.Uint64(b[8:]) != 0 && be.Uint32(b[16:]) != 0:
		t.Error("accepted: a backing file")
	case be.Uint32(b[32:]) != 0:
		t.Error("accepted: encryption")
	case be.Uint32(b[60:]) != 0:
		t.Error("accepted: snapshots")
	case version == 3 && be.Uint64(b[72:])&^(1<<3|1<<4) != 0:
		t.Errorf("accepted: incompatible features %#x", be.Uint64(b[72:]))
	case bytes.Contains(b[len(b)-512:], []byte("conectix")) && bytes.HasPrefix(b[len(b)-512:], []byte("conectix")):
		t.Error("accepted: a VHD")
	}
}

// FuzzRead begins with all hostile images. Zeros at their end are put back, so
// that the fuzzer works on what is in them.
func FuzzRead(f *testing.F) {
	for _, image := range append(hostile.All("/etc/shadow"), hostile.Harmless()...) {
		short := bytes.TrimRight(image.Bytes, "\x00")
		if len(image.Bytes) > 64<<10 {
			continue // the tables of a large one say nothing more
		}
		f.Add(short, uint16(min(len(image.Bytes), 65535)), image.Format == "qcow2")
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint16, qcow2 bool) {
		whole := make([]byte, max(int(size), len(b)))
		copy(whole, b)
		format := "raw"
		if qcow2 {
			format = "qcow2"
		}
		_ = examine(t, whole, format)
	})
}

// QEMU opens whatever our own reader lets through, and reads the same size from
// it: of good images, of which one field after the other was changed at random.
func TestQemuReadsWhatWeRead(t *testing.T) {
	x := intake.New(intake.Options{})
	random := rand.New(rand.NewPCG(1, 2))
	through := 0
	for i := range 4000 {
		b := bytes.Clone(hostile.Harmless()[i%3].Bytes)
		for range 1 + random.IntN(2) {
			at := []int{random.IntN(112), random.IntN(160), 3*4096 + random.IntN(16), 4096 + random.IntN(8), 4*4096 + random.IntN(64)}[random.IntN(5)]
			b[at] ^= 1 << random.IntN(8)
		}
		if examine(t, b, "qcow2") != nil {
			continue
		}
		if through++; through > 60 {
			return
		}
		info, err := intake.Read(t.Context(), bytes.NewReader(b), int64(len(b)), "qcow2", 1<<40)
		must(t, err)
		if err := x.Ask(t.Context(), written(t, b), info); err != nil {
			t.Errorf("let through as %+v, but: %v\n% x", info, err, b[:160])
		}
	}
	t.Errorf("only %d were let through", through)
}

// What qemu-img says is outside bytes too: an image may have taken it over.
func FuzzCompare(f *testing.F) {
	f.Add([]byte(`{"format":"qcow2","virtual-size":1048576,"format-specific":{"data":{"corrupt":false}}}`))
	f.Add([]byte(`{"format":"qcow2","virtual-size":1e6,"snapshots":[{}],"backing-image":null}`))
	f.Fuzz(func(t *testing.T, report []byte) {
		err := intake.Compare(report, template.ImageInfo{Format: "qcow2", VirtualSize: mib})
		why, ok := errors.AsType[*fault.Fault](err)
		switch {
		case err == nil && !bytes.Contains(report, []byte("1048576")):
			t.Errorf("believed %q", report)
		case err != nil && (!ok || len(fault.Message(why)) > fault.MaxMessage):
			t.Errorf("%v", err)
		}
	})
}

func ExampleExaminer_Check() {
	for _, image := range hostile.All("/etc/shadow") {
		if image.Name == "backing-file" || image.Name == "really-vhd-fixed" {
			_, err := intake.Read(nil, bytes.NewReader(image.Bytes), int64(len(image.Bytes)), image.Format, template.DefaultMaxSize) //nolint:staticcheck // no context is needed to read a header
			fmt.Println(err)
		}
	}
	// Output:
	// image refused: it names a backing file, "/etc/shadow"
	// image refused: declared as raw, but it looks like a VHD image (Virtual PC, Hyper-V)
}
