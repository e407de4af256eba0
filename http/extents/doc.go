// Package extents carries a sparse file, or the rest of one, over a stream
// without its holes. It is the media type application/vnd.wherry.extents,
// version 2:
//
//	magic    8 bytes "wherryX2"
//	size     uint64, the file's size in bytes
//	start    uint64, where in the file the stream begins
//	extent*  uint64 offset, uint64 length (1 to 1 MiB), then the bytes
//	end      uint64 offset = size, uint64 length = 0
//
// Numbers are big-endian. Extents ascend from start on and do not overlap;
// what lies between them reads as zeroes. The end tells a whole stream from
// one that was cut, which a second stream goes on with from where the first
// one stopped. The stream has no digest: the connection protects its bytes,
// and that the content is the right one is told by the template's own digest,
// over the parts of all streams together.
package extents

import "errors"

// MediaType is the content type of the stream.
const MediaType = "application/vnd.wherry.extents"

// Header asks for the stream instead of the plain bytes, in this version:
// "Wherry-Extents: 2".
const Header = "Wherry-Extents"

// Version is the value of [Header] that asks for what this package speaks.
const Version = "2"

// OffsetHeader says where in the file the stream is to begin, in bytes:
// "Wherry-Offset: 1048576". Without it, at the beginning.
const OffsetHeader = "Wherry-Offset"

// MaxExtent is the longest extent in a stream, in bytes. It bounds what an
// encoder holds in memory; longer runs of data are sent as several extents.
const MaxExtent = 1 << 20

const (
	magic    = "wherryX2"
	headSize = 16 // of an extent; the stream's own has magic, size and start
)

// ErrMalformed is the cause of every reading error that is the stream's fault.
var ErrMalformed = errors.New("malformed extents stream")

// ErrChanged says that the file was written to while it was being sent.
var ErrChanged = errors.New("the file changed while it was read")
