package volume

import (
	"errors"
	"fmt"
)

// What reading an image or a chain can end in. They arrive wrapped in a
// *LayerError that names the file; use errors.Is.
var (
	// ErrNotQcow2 says that the bytes do not begin with the qcow2 magic.
	ErrNotQcow2 = errors.New("not a qcow2 image")
	// ErrHeader says that a qcow2 header contradicts the specification or
	// exceeds a bound that QEMU sets too.
	ErrHeader = errors.New("invalid qcow2 header")
	// ErrFormatUnsupported says that a format is known but not handled here.
	ErrFormatUnsupported = errors.New("unsupported image format")
	// ErrFormatUnknown says that nobody told the format and it may not be guessed.
	ErrFormatUnknown = errors.New("image format is not known")
	// ErrBackingFormatUnknown says that a header names a backing file without
	// recording its format. libvirt refuses such a chain for the same reason.
	ErrBackingFormatUnknown = errors.New("backing format is not recorded")
	// ErrBackingProtocol says that a header names its backing file by a
	// protocol or a json: description, which is never opened.
	ErrBackingProtocol = errors.New("backing file is not a plain path")
	// ErrOutsideRoots says that a backing file lies outside the allowed folders.
	ErrOutsideRoots = errors.New("backing file lies outside the allowed folders")
	// ErrLoop says that a chain comes back to one of its own layers.
	ErrLoop = errors.New("backing chain loops")
	// ErrTooDeep says that a chain has more than MaxDepth layers.
	ErrTooDeep = errors.New("backing chain is too deep")
	// ErrFileType says that a path is neither a regular file nor a block device.
	ErrFileType = errors.New("neither a regular file nor a block device")
)

// What making, filling and removing destination volumes can end in.
var (
	// ErrSpec says that a volume was asked for that cannot be made.
	ErrSpec = errors.New("invalid volume specification")
	// ErrNotOwned says that the file at a path is not the one that was reserved.
	ErrNotOwned = errors.New("file is not the one that was reserved")
	// ErrInUse says that somebody holds a file open.
	ErrInUse = errors.New("file is in use")
	// ErrUnsafe says that a chain has issues that forbid copying it.
	ErrUnsafe = errors.New("chain is not safe to copy")
	// ErrNotFresh says that a destination volume already holds something.
	ErrNotFresh = errors.New("destination volume is not fresh")
	// ErrTooSmall says that a destination volume is smaller than its source.
	ErrTooSmall = errors.New("destination volume is smaller than its source")
	// ErrStream says that an extent stream is malformed, cut short or altered.
	ErrStream = errors.New("invalid extent stream")
	// ErrChanged says that a file changed while it was being read.
	ErrChanged = errors.New("file changed while it was read")
)

// LayerError is a refusal to read or follow one layer of a chain.
type LayerError struct {
	// Path is the layer, as it was named.
	Path string
	// Via is the layer whose header named it; empty for the active layer.
	Via string
	// Err is the cause; errors.Is sees through to it.
	Err error
}

func (e *LayerError) Error() string {
	if e.Via == "" {
		return fmt.Sprintf("layer %q: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("layer %q (backing %q): %v", e.Path, e.Via, e.Err)
}

func (e *LayerError) Unwrap() error { return e.Err }
