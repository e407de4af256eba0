package partial_test

import (
	"bytes"
	"io"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/partial"
)

// Room that the file system took ahead for a file that grows is given back
// where there are holes, and what reads as data stays.
func TestRoomTakenAheadIsGivenBack(t *testing.T) {
	const size, ahead = 8 << 20, 16 << 20
	p := make1(t, t.TempDir()+"/x")
	defer p.Close()
	if err := unix.Fallocate(int(p.Image().Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, ahead); err != nil {
		t.Fatal(err) // every file system that images lie on can
	}
	content := make([]byte, size)
	for _, at := range []int{0, 3 << 20, 7 << 20} {
		copy(content[at:], bytes.Repeat([]byte("data"), 16<<10))
	}
	must(t, p.Fill(t.Context(), bytes.NewReader(content), partial.Fill{Key: key, Limit: size}))
	info, err := p.Image().Stat()
	must(t, err)
	if took := info.Sys().(*syscall.Stat_t).Blocks * 512; took > ahead-size+1<<20 {
		t.Errorf("%d bytes taken for 192 kB of data; %d lie behind the end", took, ahead-size)
	}
	got, err := io.ReadAll(io.NewSectionReader(p.Image(), 0, size))
	must(t, err)
	if info.Size() != size || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, which are others", info.Size())
	}
}
