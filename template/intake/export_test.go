package intake

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/template"
)

// Read is our own reader alone.
func Read(ctx context.Context, r io.ReaderAt, size int64, format string, limit int64) (template.ImageInfo, error) {
	return read(ctx, r, size, format, limit)
}

// Ask is qemu-img alone, which the reader would not have let through to it.
func (x *Examiner) Ask(ctx context.Context, file *os.File, info template.ImageInfo) error {
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	return x.ask(ctx, &export{image: file, size: stat.Size(), budget: x.limits.reads}, info)
}

// Run is one child: what it wrote, and how it ended.
func (x *Examiner) Run(ctx context.Context, program string, args ...string) (stdout, stderr string, err error) {
	o, err := run(ctx, x.limits, &export{}, program, args...)
	if err == nil {
		err = o.wait
	}
	return string(o.stdout), string(o.stderr), err
}

// Limit narrows what a child may use.
func (x *Examiner) Limit(cpu uint64, memory uint64, reads int64) *Examiner {
	x.limits.cpu, x.limits.memory, x.limits.reads = cpu, memory, reads
	x.limits.grace = 100 * time.Millisecond
	return x
}

// Serve shows an image to one client.
func Serve(conn io.ReadWriter, image io.ReaderAt, size, budget int64) error {
	return (&export{image: image, size: size, budget: budget}).serve(conn)
}

// What Serve may end in.
var (
	ErrGreedy     = errGreedy
	ErrProtocol   = errProtocol
	ErrUnreadable = errUnreadable
)

// Compare holds a report of qemu-img's against what was read.
func Compare(out []byte, info template.ImageInfo) error { return compare(out, info) }

// Verdict judges a child that had looked at the image, by how it ended.
func Verdict(wait error) error {
	return verdict(outcome{wait: wait, opened: true}, defaultLimits, time.Second)
}
