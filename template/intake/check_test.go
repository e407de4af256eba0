package intake_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/intake"
	"github.com/wherry-kvm/wherry/template/intake/hostile"
)

// Every hostile image is refused by our own reader, by name, and qemu-img never
// sees it: there is none in this test.
func TestHostileImagesAreRefused(t *testing.T) {
	x := intake.New(intake.Options{Program: "/nonexistent/qemu-img"})
	seen := map[string]bool{}
	for _, image := range hostile.All("/etc/shadow") {
		t.Run(image.Name, func(t *testing.T) {
			if seen[image.Name] {
				t.Error("the name occurs twice")
			}
			seen[image.Name] = true
			wantRefusal(t, check(t, x, image.Bytes, image.Format), image.Code, image.Says)
		})
	}
}

// The builder makes images that differ from good ones in what they are named
// for only: the plain ones pass, in the eyes of QEMU too.
func TestHarmlessImagesPass(t *testing.T) {
	x := intake.New(intake.Options{})
	for _, image := range hostile.Harmless() {
		t.Run(image.Name, func(t *testing.T) {
			t.Parallel()
			file := written(t, image.Bytes)
			info, err := x.Check(t.Context(), file, image.Format)
			if err != nil || info.Format != image.Format || info.VirtualSize <= 0 {
				t.Fatalf("%+v, %v", info, err)
			}
			if image.Format == "qcow2" {
				qemuImg(t, "check", "-f", "qcow2", file.Name())
			}
		})
	}
}

// What qemu-img makes passes, whatever the options.
func TestRealImagesPass(t *testing.T) {
	x := intake.New(intake.Options{})
	for _, options := range []string{
		"compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M", "extended_l2=on",
		"preallocation=metadata", "compression_type=zstd", "lazy_refcounts=on", "refcount_bits=64",
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			qemuImg(t, "create", "-q", "-f", "qcow2", "-o", options, path, "24M")
			file, err := os.Open(path)
			must(t, err)
			defer file.Close()
			info, err := x.Check(t.Context(), file, "qcow2")
			if err != nil || info.VirtualSize != 24*mib {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

func TestVirtualSizeIsLimited(t *testing.T) {
	for _, image := range hostile.Harmless() {
		x := intake.New(intake.Options{MaxVirtualSize: 4096})
		wantRefusal(t, check(t, x, image.Bytes, image.Format), fault.Image, "4096 at most")
	}
	file := written(t, nil)
	must(t, file.Truncate(2<<40+512))
	_, err := intake.New(intake.Options{}).Check(t.Context(), file, "raw")
	wantRefusal(t, err, fault.Image, "2199023255552 at most")
	must(t, file.Truncate(2<<40))
	if info, err := intake.New(intake.Options{}).Check(t.Context(), file, "raw"); err != nil || info.VirtualSize != 2<<40 {
		t.Errorf("of the greatest size: %+v, %v", info, err)
	}
}

// The largest tables that our reader lets through, QEMU opens within its
// limits: the smallest clusters, an L1 table of 32 MiB, a refcount table of 8.
func TestLargestTables(t *testing.T) {
	const refs, l1 = 512, 512 + 8<<20
	b := make([]byte, l1+32<<20)
	copy(b, hostile.Harmless()[0].Bytes[:112])
	be := binary.BigEndian
	be.PutUint32(b[20:], 9)
	be.PutUint64(b[24:], 128<<30)
	be.PutUint32(b[36:], 4<<20)
	be.PutUint64(b[40:], l1)
	be.PutUint64(b[48:], refs)
	be.PutUint32(b[56:], 8<<20/512)
	if err := check(t, intake.New(intake.Options{}), b, "qcow2"); err != nil {
		t.Error(err)
	}
}

// Only two formats are known, and none is guessed.
func TestFormatIsOneOfTwo(t *testing.T) {
	x := intake.New(intake.Options{})
	for _, format := range []string{"", "vmdk", "RAW", "qcow", "luks", "raw,file.filename=/etc/passwd", "qcow2\n", "json:{}"} {
		wantRefusal(t, check(t, x, hostile.Harmless()[0].Bytes, format), fault.Image, "not one of raw and qcow2")
	}
}

// What is no regular file is not read at all: reading a pipe waits for whoever
// writes, a device has effects.
func TestOnlyRegularFiles(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	must(t, unix.Mkfifo(pipe, 0o600))
	for _, path := range []string{pipe, "/dev/zero", "/dev/null", t.TempDir()} {
		file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		must(t, err)
		_, err = intake.New(intake.Options{}).Check(t.Context(), file, "raw")
		file.Close()
		wantRefusal(t, err, fault.Image, "no regular file")
	}
}

// The file is left as it was: its offset is the caller's, and so is the mode.
func TestCheckLeavesTheFileAlone(t *testing.T) {
	file := written(t, hostile.Harmless()[0].Bytes)
	_, err := file.Seek(77, io.SeekStart)
	must(t, err)
	before, err := file.Stat()
	must(t, err)
	_, err = intake.New(intake.Options{}).Check(t.Context(), file, "qcow2")
	must(t, err)
	after, err := file.Stat()
	must(t, err)
	if at, err := file.Seek(0, io.SeekCurrent); at != 77 || err != nil {
		t.Errorf("offset %d, %v", at, err)
	}
	if before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) || before.Size() != after.Size() {
		t.Errorf("%v became %v", before, after)
	}
}

// An ended context and a file that cannot be read are no refusals.
func TestTroubleIsNoRefusal(t *testing.T) {
	x := intake.New(intake.Options{})
	stopped := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(stopped)
	if _, err := x.Check(ctx, written(t, hostile.Harmless()[0].Bytes), "qcow2"); !errors.Is(err, stopped) {
		t.Errorf("on an ended context: %v", err)
	}
	file := written(t, hostile.Harmless()[0].Bytes)
	file.Close()
	if _, err := x.Check(t.Context(), file, "qcow2"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("of a closed file: %v", err)
	}
	_, err := intake.Read(t.Context(), broken{}, mib, "raw", mib)
	if !errors.Is(err, io.ErrClosedPipe) || fault.Of(err).Permanent {
		t.Errorf("of a broken disk: %v", err)
	}
	x = intake.New(intake.Options{Program: "/nonexistent/qemu-img"})
	wantTrouble(t, check(t, x, hostile.Harmless()[0].Bytes, "qcow2"), fault.Internal, "no qemu-img")
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

var _ template.Intake = (*intake.Examiner)(nil)
