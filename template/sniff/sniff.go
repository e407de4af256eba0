// Package sniff tells what a file looks like: which disk image formats, media,
// archives and pages its bytes could be taken for. It reads a bounded amount at
// fixed places, trusts no number that it finds, opens nothing that is named
// there, and proves nothing: whether an image may be a template is for
// template/intake to say.
//
// It is at least as ready to see a format as QEMU's own probing is, because a
// raw image that QEMU would take for another format becomes one for whoever
// forgets to say that it is raw (CVE-2014-0134, CVE-2024-40767).
package sniff

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
)

// Kind is something that a file may be.
type Kind struct {
	// Name is short and stable, such as "vhd" or "html".
	Name string
	// Text says it in a sentence: "a VHD image".
	Text string
}

// How much is read, in bytes: up to the third volume descriptor of a medium
// from the beginning, and the header copies that some formats keep at the end.
const (
	headSize = 18*2048 + 512
	tailSize = 1024
)

// Look gives all kinds that the first size bytes of r look like, in no order
// that means anything; none for what can be nothing but a raw disk. Two kinds
// at once are a polyglot: different readers see different images in it. An
// error is the reader's own.
func Look(r io.ReaderAt, size int64) ([]Kind, error) {
	if size <= 0 {
		return nil, nil
	}
	head, err := read(r, 0, min(headSize, size))
	if err != nil {
		return nil, err
	}
	tail, err := read(r, max(0, size-tailSize), min(tailSize, size))
	if err != nil {
		return nil, err
	}
	kinds := match(head, tail)
	luks2, err := secondLUKS(r, size)
	if err != nil {
		return nil, err
	}
	if luks2 {
		kinds = append(kinds, luks)
	}
	if k, ok := text(head); ok && len(kinds) == 0 {
		kinds = append(kinds, k)
	}
	return unique(kinds), nil
}

// Join names several kinds in one sentence: "a qcow2 image and a VHD image".
func Join(kinds []Kind) string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = k.Text
	}
	return strings.Join(out, " and ")
}

// match holds the table against the beginning and the end of a file.
func match(head, tail []byte) (kinds []Kind) {
	for _, m := range magics {
		if at(head, tail, m.at, m.bytes) {
			kinds = append(kinds, m.kind)
		}
	}
	if k, ok := qcow(head); ok {
		kinds = append(kinds, k)
	}
	if describesVMDK(head) {
		kinds = append(kinds, vmdk)
	}
	return kinds
}

// at tells whether bytes lie at an offset, which counts from the end if it is
// negative.
func at(head, tail []byte, offset int, magic string) bool {
	part := head
	if offset < 0 {
		part, offset = tail, offset+len(tail)
	}
	return offset >= 0 && len(part) >= offset && bytes.HasPrefix(part[offset:], []byte(magic))
}

func unique(kinds []Kind) []Kind {
	var out []Kind
	for _, k := range kinds {
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// read gives length bytes at an offset, or what there is of them: the file may
// have become shorter.
func read(r io.ReaderAt, offset, length int64) ([]byte, error) {
	b := make([]byte, length)
	n, err := r.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}
