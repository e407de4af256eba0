package template

import (
	"errors"
	"io/fs"
	"os"

	"github.com/wherry-kvm/wherry/template/fault"
)

// change is what became of a copy's file since its stamp was taken.
type change int

const (
	// unchanged: nothing need be read.
	unchanged change = iota
	// touched: only the time of the last change of status differs. Somebody
	// gave the file another owner or mode, as libvirt does when the first
	// instance on it starts (its DAC driver hands every layer to QEMU's user),
	// or wrote and then set the other time back. It is read again, and may be
	// used meanwhile.
	touched
	// altered: it has another time of modification. It may not be used before
	// it was read.
	altered
	// resized: it has another size, so that it need not be read.
	resized
	// replaced: another file lies there, or something that is none.
	replaced
)

// compare tells what became of a copy's file, without opening it. The device
// is left out: numbers of devices change when they are attached anew. A copy
// without a stamp is from before there were any: size and inode must do.
func compare(c Copy, size int64, info fs.FileInfo) change {
	is := StampOf(info)
	if !info.Mode().IsRegular() || is.Inode != c.Inode {
		return replaced
	}
	was := c.Stamp
	if was.IsZero() {
		was = Stamp{Size: size, MTime: is.MTime}
	}
	switch {
	case was.Size != is.Size:
		return resized
	case was.MTime != is.MTime:
		return altered
	case was.CTime != is.CTime:
		return touched
	}
	return unchanged
}

// look is compare with what lies at the copy's path. The error is that of the
// look, such as fs.ErrNotExist.
func look(c Copy, size int64) (change, fs.FileInfo, error) {
	info, err := os.Lstat(c.Path)
	if err != nil {
		return replaced, nil, err
	}
	return compare(c, size, info), info, nil
}

// verdict says what a copy is of which a look told enough, without reading it;
// nil where it did not. err is that of the look.
func verdict(c Copy, became change, err error) (state string, why *fault.Fault) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return StateMissing, fault.New(fault.Changed, "the file %q is gone", c.Path)
	case err != nil:
		return StateFailed, fault.Of(err)
	case became == replaced:
		return StateMissing, fault.New(fault.Changed, "another file lies at %q", c.Path)
	case became == resized:
		return StateFailed, fault.New(fault.Changed, "the file %q was changed: it has another size", c.Path)
	}
	return "", nil
}
