// Package sniff tells what the beginning of a file looks like. It proves
// nothing and opens nothing: whether an image may be a template is for
// template/intake to say.
package sniff

import (
	"bytes"
	"strings"
)

// HeadSize is how much of a file Kind wants to see, in bytes.
const HeadSize = 4096

// magics are the beginnings of what could be taken for a raw image. The list
// is closed by intent: it only refuses.
var magics = []struct {
	at    int
	bytes string
	kind  string
}{
	{0, "QFI\xfb", "qcow2"},
	{0, "QED\x00", "qed"},
	{0, "KDMV", "vmdk"},
	{0, "COWD", "vmdk"},
	{0, "# Disk DescriptorFile", "vmdk"},
	{0, "vhdxfile", "vhdx"},
	{0, "conectix", "vhd"},
	{0x40, "\x7f\x10\xda\xbe", "vdi"},
	{0, "WithoutFreeSpace", "parallels"},
	{0, "WithouFreSpacExt", "parallels"},
	{0, "LUKS\xba\xbe", "luks"},
	{0, "\x1f\x8b", "gzip-compressed data"},
	{0, "\xfd7zXZ\x00", "xz-compressed data"},
	{0, "BZh", "bzip2-compressed data"},
	{0, "\x28\xb5\x2f\xfd", "zstd-compressed data"},
	{0, "PK\x03\x04", "a zip archive"},
	{0, "7z\xbc\xaf\x27\x1c", "a 7z archive"},
	{257, "ustar", "a tar archive"},
}

// Kind tells what the beginning of a file looks like: a format or archive,
// "html", "text", or "" for what may be a raw image.
func Kind(head []byte) string {
	for _, m := range magics {
		if len(head) >= m.at && bytes.HasPrefix(head[m.at:], []byte(m.bytes)) {
			return m.kind
		}
	}
	text := strings.ToLower(strings.TrimLeft(strings.TrimPrefix(string(head[:min(len(head), 512)]), "\xef\xbb\xbf"), " \t\r\n"))
	for _, tag := range []string{"<!doctype html", "<html", "<head", "<body", "<?xml"} {
		if strings.HasPrefix(text, tag) {
			return "html"
		}
	}
	if len(head) > 0 && !bytes.ContainsFunc(head, func(c rune) bool { return c < ' ' && c != '\t' && c != '\n' && c != '\r' || c > '~' }) {
		return "text"
	}
	return ""
}
