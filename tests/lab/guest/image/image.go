// Package image makes template images whose content a guest can verify.
package image

import (
	"fmt"
	"os"

	"github.com/wherry-kvm/wherry/tests/lab/guest/block"
)

// Make writes a raw image of size bytes to path, which must not exist. Its first data bytes are blocks that carry label
// and seed (at most 32 bytes each); the rest is a hole.
func Make(path, label, seed string, size, data int64) error {
	if size%block.Size != 0 || data%block.Size != 0 || data > size/2 {
		return fmt.Errorf("size %d and data %d must be multiples of %d, data at most half the size", size, data, block.Size)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	buf := make([]byte, block.Size)
	total := uint64(data / block.Size)
	for seq := range total {
		block.Block{Kind: block.Template, Seq: seq, Total: total, Name: label, Mark: seed}.Encode(buf)
		if _, err := file.Write(buf); err != nil {
			return err
		}
	}
	if err := file.Truncate(size); err != nil {
		return err
	}
	return file.Close()
}
