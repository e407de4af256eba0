package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

var errDeadline = errors.New("deadline")

// verdict judges how qemu-img ended. Only what the image did is a refusal; what
// the host did is to be tried again.
func verdict(o outcome, l limits, deadline time.Duration) error {
	exit, exited := errors.AsType[*exec.ExitError](o.wait)
	switch {
	case errors.Is(o.served, errUnreadable):
		return o.served
	case errors.Is(o.served, errGreedy):
		return refuse("qemu-img wants to read more than %d bytes of it to open it", l.reads)
	case errors.Is(o.served, errProtocol):
		return fault.New(fault.Internal, "qemu-img did not ask for the image as it should: %v", o.served)
	case errors.Is(o.ended, errDeadline):
		// A busy host looks the same: not for good.
		f := fault.New(fault.Image, "image refused: qemu-img does not come to an end with it within %v", deadline)
		f.Permanent = false
		return f
	case o.ended != nil:
		return o.ended
	case !o.opened:
		return fault.New(fault.Internal, "qemu-img did not look at the image: %s", complaint(o))
	case o.overflow:
		return refuse("qemu-img says more than %d bytes about it", l.output)
	case o.wait == nil:
		return nil
	case exited && signalled(exit) == syscall.SIGKILL && o.cpu >= time.Duration(l.cpu)*time.Second/2:
		// It was the kernel that killed it. Its clock of the limit counts
		// ticks, that of the bill time: they differ, most of all on a busy host.
		return refuse("qemu-img takes more than %d s of processor time to open it", l.cpu)
	case exited && signalled(exit) == syscall.SIGKILL:
		return fault.New(fault.Internal, "qemu-img was killed while it looked at the image")
	case exited && signalled(exit) != 0:
		return refuse("qemu-img crashes on it (%v)", signalled(exit))
	case exited:
		return refuse("qemu-img cannot open it: %s", complaint(o))
	}
	return fault.New(fault.Internal, "qemu-img: %v", o.wait)
}

func signalled(e *exec.ExitError) syscall.Signal {
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return s.Signal()
	}
	return 0
}

// complaint is what qemu-img wrote to its standard error, without the name that
// we gave to the image, or how it ended.
func complaint(o outcome) string {
	text := fault.Clean(string(o.stderr), 300)
	text = strings.TrimPrefix(text, "qemu-img: ")
	if _, after, found := strings.Cut(text, "': "); found && strings.HasPrefix(text, "Could not open '") {
		text = after
	}
	switch {
	case text != "":
		return text
	case o.wait != nil:
		return o.wait.Error()
	}
	return "it ended without a word"
}

// report is what `qemu-img info --output=json` says, as far as it matters
// (qapi/block-core.json, ImageInfo).
type report struct {
	Format              string            `json:"format"`
	VirtualSize         int64             `json:"virtual-size"`
	BackingFilename     string            `json:"backing-filename"`
	FullBackingFilename string            `json:"full-backing-filename"`
	BackingFormat       string            `json:"backing-filename-format"`
	BackingImage        json.RawMessage   `json:"backing-image"`
	Encrypted           bool              `json:"encrypted"`
	Dirty               bool              `json:"dirty-flag"`
	Snapshots           []json.RawMessage `json:"snapshots"`
	FormatSpecific      struct {
		Data struct {
			DataFile string            `json:"data-file"`
			Corrupt  bool              `json:"corrupt"`
			Encrypt  json.RawMessage   `json:"encrypt"`
			Bitmaps  []json.RawMessage `json:"bitmaps"`
		} `json:"data"`
	} `json:"format-specific"`
}

// compare holds what QEMU reads against what we read.
func compare(out []byte, info template.ImageInfo) error {
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		return fault.New(fault.Internal, "qemu-img gave no report about the image: %v", err)
	}
	d := r.FormatSpecific.Data
	switch backing := r.BackingFilename + r.FullBackingFilename + r.BackingFormat; {
	case r.Format != info.Format:
		return refuse("it is %s, but qemu-img reads it as %q", info.Format, fault.Clean(r.Format, 40))
	case r.VirtualSize != info.VirtualSize:
		return refuse("its virtual size is %d bytes, but qemu-img reads %d", info.VirtualSize, r.VirtualSize)
	case backing != "" || len(r.BackingImage) > 0:
		return refuse("qemu-img finds a backing file, %s", name(backing))
	case d.DataFile != "":
		return refuse("qemu-img finds its data in another file, %s", name(d.DataFile))
	case r.Encrypted || len(d.Encrypt) > 0:
		return refuse("qemu-img finds it encrypted")
	case len(r.Snapshots) > 0:
		return refuse("qemu-img finds %d internal snapshots", len(r.Snapshots))
	case d.Corrupt:
		return refuse("qemu-img finds it marked corrupt")
	case r.Dirty:
		return refuse("qemu-img finds it marked dirty")
	case len(d.Bitmaps) > 0:
		return refuse("qemu-img finds persistent bitmaps")
	}
	return nil
}

// ask shows an image to qemu-img, which our own reader let through as info.
func (x *Examiner) ask(ctx context.Context, e *export, info template.ImageInfo) error {
	program, err := exec.LookPath(x.program)
	if err != nil {
		return fault.New(fault.Internal, "no qemu-img to examine the image with: %v", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, x.deadline, errDeadline)
	defer cancel()
	// The driver is given, so nothing is guessed. Nothing of the image or of
	// its name is part of the command line.
	opts := fmt.Sprintf("driver=%s,file.driver=nbd,file.server.type=fd,file.server.str=%d", info.Format, socketFD)
	out, err := run(ctx, x.limits, e, program, "info", "--output=json", "--image-opts", opts)
	if err != nil {
		return fault.New(fault.Internal, "cannot examine the image: %v", err)
	}
	if err := verdict(out, x.limits, x.deadline); err != nil {
		return err
	}
	return compare(out.stdout, info)
}
