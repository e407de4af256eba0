package sniff

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

var (
	html  = Kind{"html", "an HTML or XML page, not an image: the address leads to a web page or a login"}
	plain = Kind{"text", "plain text, not an image"}
)

// textSize is how much must be text for a file to be taken for one: a disk has
// a zero before that.
const textSize = 4096

// text tells a page, or any other text.
func text(head []byte) (Kind, bool) {
	head = bytes.TrimPrefix(head[:min(len(head), textSize)], []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(head, []byte("\xff\xfe<\x00")) || bytes.HasPrefix(head, []byte("\xfe\xff\x00<")) {
		return html, true // UTF-16
	}
	start := strings.ToLower(strings.TrimLeft(string(head[:min(len(head), 512)]), " \t\r\n"))
	for _, tag := range []string{"<!doctype", "<html", "<head", "<body", "<script", "<?xml", "<!--"} {
		if strings.HasPrefix(start, tag) {
			return html, true
		}
	}
	return plain, len(head) > 0 && isText(head)
}

// isText knows only characters that somebody would write: no controls but the
// white ones. Where the text goes on, its last character may be cut.
func isText(b []byte) bool {
	cut := len(b) >= textSize-len("\xef\xbb\xbf")
	for len(b) > 0 {
		c, n := utf8.DecodeRune(b)
		switch {
		case c == utf8.RuneError && n <= 1:
			return cut && !utf8.FullRune(b)
		case c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f', c == 0x7f:
			return false
		}
		b = b[n:]
	}
	return true
}

// describesVMDK tells the text form of VMDK, whose extents are names of other
// files (CVE-2022-47951). Its first line is customary only: QEMU takes any file
// for one that has "version=" after comments and blank lines, however it goes
// on.
func describesVMDK(head []byte) bool {
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\n"))
		line = bytes.ToLower(bytes.TrimSpace(line))
		comment, is := bytes.CutPrefix(line, []byte("#"))
		switch {
		case is && bytes.HasPrefix(bytes.TrimSpace(comment), []byte("disk descriptorfile")):
			return true
		case !is && len(line) > 0:
			return bytes.HasPrefix(line, []byte("version="))
		}
		head = rest
	}
	return false
}
