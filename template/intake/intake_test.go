package intake_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/intake"
)

const page = "<!DOCTYPE html>\n<title>Log in</title>\n"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, o intake.Options, path, format string) (template.ImageInfo, error) {
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	return intake.New(o).Check(t.Context(), file, format)
}

// raw makes an image of n bytes, with a hole in the middle.
func raw(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = src.Read(b[:n/4]) // never fails
	_, _ = src.Read(b[n-n/4:])
	return b
}

func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// qcow2 makes an image of 8 MiB with the given creation arguments.
func qcow2(t testing.TB, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.qcow2")
	qemuImg(t, slices.Concat([]string{"create", "-q", "-f", "qcow2"}, args, []string{path, "8M"})...)
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// patch changes the incompatible feature bits of a qcow2 image (version 3,
// bytes 72 to 79 of the header, big endian).
func patch(b []byte, bits uint64) []byte {
	binary.BigEndian.PutUint64(b[72:], binary.BigEndian.Uint64(b[72:])|bits)
	return b
}

// encrypted sets the crypt method (bytes 32 to 35) to LUKS.
func encrypted(b []byte) []byte {
	binary.BigEndian.PutUint32(b[32:], 2)
	return b
}

func TestIntake(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", base, "8M")
	snapshot := filepath.Join(dir, "snapshot.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", snapshot, "8M")
	qemuImg(t, "snapshot", "-c", "one", snapshot)
	withSnapshot, err := os.ReadFile(snapshot)
	must(t, err)
	vmdk := filepath.Join(dir, "image.vmdk")
	qemuImg(t, "create", "-q", "-f", "vmdk", vmdk, "8M")
	asVMDK, err := os.ReadFile(vmdk)
	must(t, err)

	tests := map[string]struct {
		content []byte
		format  string
		refused string // "" = accepted
	}{
		"qcow2":               {qcow2(t), "qcow2", ""},
		"old qcow2":           {qcow2(t, "-o", "compat=0.10"), "qcow2", ""},
		"raw":                 {raw(1, 1<<20), "raw", ""},
		"backing file":        {qcow2(t, "-b", base, "-F", "qcow2"), "qcow2", "backing file"},
		"data file":           {qcow2(t, "-o", "data_file="+filepath.Join(dir, "data")), "qcow2", "another file"},
		"encrypted":           {encrypted(qcow2(t)), "qcow2", "encrypted"},
		"snapshots":           {withSnapshot, "qcow2", "snapshot"},
		"dirty":               {patch(qcow2(t), 1), "qcow2", "dirty"},
		"corrupt":             {patch(qcow2(t), 2), "qcow2", "corrupt"},
		"unknown feature":     {patch(qcow2(t), 1<<40), "qcow2", "unknown"},
		"qcow2 posing as raw": {qcow2(t), "raw", "looks like a qcow2 image"},
		"raw posing as qcow2": {raw(1, 1<<20), "qcow2", "declared as qcow2"},
		"vmdk":                {asVMDK, "raw", "looks like a VMDK image"},
		"page":                {[]byte(page), "raw", "HTML"},
		"page as qcow2":       {[]byte(page), "qcow2", "HTML"},
		"cut raw":             {raw(1, 1000), "raw", "512"},
		"nothing":             {nil, "raw", "empty"},
		"header only":         {qcow2(t)[:20], "qcow2", "image refused"},
		"too large":           {raw(1, 1<<21), "raw", "at most"},
	}
	rules := intake.Options{MaxVirtualSize: 8 << 20}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rules := rules
			if name == "too large" {
				rules.MaxVirtualSize = 1 << 20
			}
			path := filepath.Join(t.TempDir(), "image")
			must(t, os.WriteFile(path, tt.content, 0o600))
			info, err := check(t, rules, path, tt.format)
			if tt.refused == "" {
				if err != nil || info.VirtualSize <= 0 {
					t.Fatalf("%+v, %v", info, err)
				}
				return
			}
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || f.Class != fault.Policy || !f.Permanent || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%v; want a refusal with %q", err, tt.refused)
			}
		})
	}
}
