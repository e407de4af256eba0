package sniff_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/template/sniff"
)

const mib = 1 << 20

func names(t testing.TB, b []byte) []string {
	t.Helper()
	kinds, err := sniff.Look(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range kinds {
		if k.Text == "" {
			t.Errorf("%q has no words", k.Name)
		}
		out = append(out, k.Name)
	}
	slices.Sort(out)
	return out
}

// disk is a raw disk of a mebibyte: a boot sector with an end mark, random-like
// code before it, and zeros.
func disk() []byte {
	b := make([]byte, mib)
	copy(b, "\xeb\x63\x90\x10\x8e\xd0\xbc\x00\xb0")
	b[510], b[511] = 0x55, 0xaa
	return b
}

func with(at int, s string) []byte {
	b := disk()
	copy(b[at:], s)
	return b
}

func luks2(at, says uint64) []byte {
	b := make([]byte, 8*mib)
	copy(b[at:], "SKUL\xba\xbe")
	binary.BigEndian.PutUint64(b[at+256:], says)
	return b
}

func TestLook(t *testing.T) {
	for name, tt := range map[string]struct {
		content []byte
		want    string // names, joined
	}{
		"nothing":        {nil, ""},
		"zeros":          {make([]byte, mib), ""},
		"disk with MBR":  {disk(), ""},
		"disk with GPT":  {with(512, "EFI PART\x00\x00\x01\x00"), ""},
		"ext4":           {with(1080, "\x53\xef"), ""},
		"XFS":            {with(0, "XFSB\x00\x00\x10\x00"), ""},
		"LVM":            {with(512, "LABELONE\x00\x00\x00\x00"), ""},
		"one byte":       {[]byte{0xeb}, ""},
		"qcow2":          {with(0, "QFI\xfb\x00\x00\x00\x03"), "qcow2"},
		"old qcow2":      {with(0, "QFI\xfb\x00\x00\x00\x02"), "qcow2"},
		"qcow":           {with(0, "QFI\xfb\x00\x00\x00\x01"), "qcow"},
		"cut qcow2":      {[]byte("QFI\xfb"), "qcow2"},
		"fixed VHD":      {with(mib-512, "conectix"), "vhd"},
		"old fixed VHD":  {with(mib-511, "conectix"), "vhd"},
		"both of a VHD":  {append(with(0, "conectix")[:mib-512], with(mib-512, "conectix")[mib-512:]...), "vhd"},
		"short footer":   {append(make([]byte, 100), append([]byte("conectix"), make([]byte, 504)...)...), "vhd"},
		"VMDK footer":    {with(mib-1024, "KDMV"), "vmdk"},
		"DMG":            {with(mib-512, "koly"), "dmg"},
		"ISO":            {with(32768, "\x01CD001\x01"), "iso"},
		"hybrid ISO":     {with(32769, "CD001"), "iso"},
		"UDF":            {with(32769, "BEA01"), "iso"},
		"tar":            {with(257, "ustar\x0000"), "tar"},
		"LUKS":           {with(0, "LUKS\xba\xbe\x00\x01"), "luks"},
		"LUKS 2":         {with(0, "LUKS\xba\xbe\x00\x02"), "luks"},
		"headless LUKS2": {luks2(16<<10, 16<<10), "luks"},
		"at 4 MiB":       {luks2(4*mib, 4*mib), "luks"},
		// A partition at 1 MiB whose second header lies where that of a whole
		// disk would: 1 MiB after its beginning.
		"partition with LUKS2":          {luks2(2*mib, 1*mib), ""},
		"page":                          {[]byte("\xef\xbb\xbf \r\n<!DOCTYPE html>\n<title>Log in</title>"), "html"},
		"page in capitals":              {[]byte("<HTML>\n"), "html"},
		"page in UTF-16":                {[]byte("\xff\xfe<\x00h\x00t\x00m\x00l\x00"), "html"},
		"page in the clothes of a disk": {append([]byte("<html>"), make([]byte, mib)...), "html"},
		"answer of a store":             {[]byte("<?xml version=\"1.0\"?><Error/>"), "html"},
		"pointer":                       {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "text"},
		"text":                          {[]byte(strings.Repeat("näh\r\n\t", 1000)), "text"},
		"text that is cut":              {[]byte("x" + strings.Repeat("ä", 4096)), "text"},
		"text with a zero":              {[]byte("text\x00"), ""},
		"Latin-1 is no text":            {[]byte("n\xe4h and more"), ""},
		"descriptor":                    {[]byte("# Disk DescriptorFile\nversion=1\n"), "vmdk"},
		"descriptor without its title":  {[]byte("#\n \r\n\n  VERSION=9"), "vmdk"},
		"descriptor with no version":    {[]byte("#disk descriptorfile\nRW 1 FLAT \"/etc/passwd\" 0\n"), "vmdk"},
		"descriptor before a disk":      {append([]byte("version=1\n"), make([]byte, mib)...), "vmdk"},
		"script":                        {[]byte("#!/bin/sh\necho version=1\n"), "text"},
		"two":                           {with(0, "QFI\xfb\x00\x00\x00\x03"+strings.Repeat("\x00", 56)+"\x7f\x10\xda\xbe"), "qcow2 vdi"},
		"three":                         {append(with(0, "KDMV")[:mib-512], with(mib-512, "conectix")[mib-512:]...), "vhd vmdk"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(names(t, tt.content), " "); got != tt.want {
				t.Errorf("looks like %q; want %q", got, tt.want)
			}
		})
	}
}

// What another program makes is seen for what it is.
func TestLookAtRealImages(t *testing.T) {
	for _, tt := range []struct{ format, options, want string }{
		{"qcow2", "compat=1.1", "qcow2"}, {"qcow2", "compat=0.10", "qcow2"}, {"qcow2", "cluster_size=512", "qcow2"},
		{"qcow", "", "qcow"}, {"qed", "", "qed"}, {"vdi", "", "vdi"}, {"vhdx", "", "vhdx"}, {"parallels", "", "parallels"},
		{"vmdk", "subformat=monolithicSparse", "vmdk"}, {"vmdk", "subformat=streamOptimized", "vmdk"},
		{"vmdk", "subformat=monolithicFlat", "vmdk"}, {"vmdk", "subformat=twoGbMaxExtentFlat", "vmdk"},
		{"vpc", "subformat=dynamic", "vhd"}, {"vpc", "subformat=fixed", "vhd"},
		{"raw", "", ""},
	} {
		t.Run(tt.format+" "+tt.options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			args := []string{"create", "-q", "-f", tt.format}
			if tt.options != "" {
				args = append(args, "-o", tt.options)
			}
			if out, err := exec.CommandContext(t.Context(), "qemu-img", append(args, path, "8M")...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(names(t, b), " "); got != tt.want {
				t.Errorf("looks like %q; want %q", got, tt.want)
			}
		})
	}
}

// counting bounds what is read of a file that has no end.
type counting struct{ bytes int64 }

func (c *counting) ReadAt(b []byte, _ int64) (int, error) {
	c.bytes += int64(len(b))
	return len(b), nil
}

func TestLookReadsLittle(t *testing.T) {
	var c counting
	if _, err := sniff.Look(&c, 1<<62); err != nil || c.bytes > 64<<10 {
		t.Errorf("read %d bytes, %v", c.bytes, err)
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestLookSaysThatItCouldNot(t *testing.T) {
	if _, err := sniff.Look(broken{}, mib); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

func TestJoin(t *testing.T) {
	if got := sniff.Join([]sniff.Kind{{Name: "a", Text: "an apple"}, {Name: "b", Text: "a bee"}}); got != "an apple and a bee" {
		t.Errorf("%q", got)
	}
}

// QEMU guesses a format from the first bytes; whatever it would guess must be
// seen here too, at the least.
func FuzzLook(f *testing.F) {
	for _, s := range []string{"QFI\xfb\x00\x00\x00\x03", "<html>", "", "KDMV", "# x\n \nversion=1\n", "conectix", "LUKS\xba\xbe\x00\x01"} {
		f.Add([]byte(s), 0)
		f.Add([]byte(s), mib-512)
	}
	f.Fuzz(func(t *testing.T, b []byte, offset int) {
		whole := make([]byte, mib)
		if offset >= 0 && offset < len(whole) {
			copy(whole[offset:], b)
		}
		for _, content := range [][]byte{b, whole} {
			kinds, err := sniff.Look(bytes.NewReader(content), int64(len(content)))
			if err != nil {
				t.Fatal(err)
			}
			for i, k := range kinds {
				if k.Name == "" || k.Text == "" || slices.Contains(kinds[:i], k) {
					t.Errorf("kinds %+v", kinds)
				}
			}
			if bytes.HasPrefix(content, []byte("QFI\xfb")) && len(kinds) == 0 {
				t.Error("a qcow2 image taken for nothing")
			}
		}
	})
}
