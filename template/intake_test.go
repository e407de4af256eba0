package template_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/template"
)

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
		"qcow2 posing as raw": {qcow2(t), "raw", "looks like qcow2"},
		"raw posing as qcow2": {raw(1, 1<<20), "qcow2", "declared as qcow2"},
		"vmdk":                {asVMDK, "raw", "looks like vmdk"},
		"page":                {[]byte(page), "raw", "HTML"},
		"page as qcow2":       {[]byte(page), "qcow2", "HTML"},
		"cut raw":             {raw(1, 1000), "raw", "512"},
		"nothing":             {nil, "raw", "empty"},
		"header only":         {qcow2(t)[:20], "qcow2", "image refused"},
		"too large":           {raw(1, 1<<21), "raw", "at most"},
	}
	rules := template.Rules{Inspect: inspect, MaxVirtualSize: 8 << 20}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rules := rules
			if name == "too large" {
				rules.MaxVirtualSize = 1 << 20
			}
			path := filepath.Join(t.TempDir(), "image")
			must(t, os.WriteFile(path, tt.content, 0o600))
			info, err := rules.Check(t.Context(), path, tt.format)
			if tt.refused == "" {
				if err != nil || info.VirtualSize <= 0 {
					t.Fatalf("%+v, %v", info, err)
				}
				return
			}
			wantErr(t, err, template.ErrImage, tt.refused)
		})
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := rules.Check(ctx, base, "qcow2"); err == nil {
		t.Error("checked on an ended context")
	}
}

func FuzzSniff(f *testing.F) {
	f.Add([]byte("QFI\xfb\x00\x00\x00\x03"))
	f.Add([]byte("<html>"))
	f.Add([]byte(nil))
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, head []byte) {
		// A raw image may begin with anything but what is known as something else.
		kind := template.Sniff(head)
		if again := template.Sniff(append([]byte(nil), head...)); again != kind {
			t.Errorf("%q, then %q", kind, again)
		}
		if len(head) >= 4 && string(head[:4]) == "QFI\xfb" && kind != "qcow2" {
			t.Errorf("a qcow2 image taken for %q", kind)
		}
	})
}
