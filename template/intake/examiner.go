package intake

import (
	"context"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/template"
)

// Options of an Examiner. The zero value is a host's usual rules.
type Options struct {
	// MaxVirtualSize in bytes; default 2 TiB.
	MaxVirtualSize int64
	// Program is the qemu-img to ask: a path, or a name to be found in PATH.
	Program string
	// Deadline for the program; default 30 s.
	Deadline time.Duration
}

// Examiner is the [template.Intake] of a host. It may be used by several
// goroutines at the same time.
type Examiner struct {
	maxVirtual int64
	program    string
	deadline   time.Duration
	limits     limits
}

var _ template.Intake = (*Examiner)(nil)

// New makes an examiner.
func New(o Options) *Examiner {
	x := &Examiner{maxVirtual: o.MaxVirtualSize, program: o.Program, deadline: o.Deadline, limits: defaultLimits}
	if x.maxVirtual <= 0 {
		x.maxVirtual = template.DefaultMaxSize
	}
	if x.program == "" {
		x.program = "qemu-img"
	}
	if x.deadline <= 0 {
		x.deadline = 30 * time.Second
	}
	return x
}

// Check implements [template.Intake]. Refusals are a *fault.Fault of class
// Policy and of code "image" for a broken rule, or "not-an-image" for bytes of
// another kind than declared; permanent, except for one that a busy host could
// cause. Other errors are ctx's cause, that the file could not be read, or a
// fault of class Local: the host cannot examine it now.
func (x *Examiner) Check(ctx context.Context, file *os.File, format string) (template.ImageInfo, error) {
	if ctx.Err() != nil {
		return template.ImageInfo{}, context.Cause(ctx)
	}
	stat, err := file.Stat()
	if err != nil {
		return template.ImageInfo{}, err
	}
	if !stat.Mode().IsRegular() {
		return template.ImageInfo{}, refuse("it is no regular file (%v)", stat.Mode().Type())
	}
	info, err := read(ctx, file, stat.Size(), format, x.maxVirtual)
	if err != nil {
		return template.ImageInfo{}, err
	}
	e := &export{image: file, size: stat.Size(), budget: x.limits.reads}
	if err := x.ask(ctx, e, info); err != nil {
		return template.ImageInfo{}, err
	}
	return info, nil
}
