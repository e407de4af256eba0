// Package extents carries a sparse file over a stream without its holes. It is
// the media type application/vnd.wherry.extents, version 1:
//
//	magic    8 bytes "wherryX1"
//	size     uint64, the file's size in bytes
//	extent*  uint64 offset, uint64 length (1 to 1 MiB), then the bytes
//	end      uint64 offset = size, uint64 length = 0
//	digest   SHA-256 of everything before it
//
// Numbers are big-endian. Extents ascend and do not overlap; what lies between
// them reads as zeroes. The end and the digest tell a whole stream from one
// that was cut; that the content is the right one is told by the template's
// own digest.
package extents

import "errors"

// MediaType is the content type of the stream.
const MediaType = "application/vnd.wherry.extents"

// Header asks for the stream instead of the plain bytes: "Wherry-Extents: 1".
const Header = "Wherry-Extents"

// MaxExtent is the longest extent in a stream, in bytes. It bounds what a
// decoder holds in memory; longer runs of data are sent as several extents.
const MaxExtent = 1 << 20

const (
	magic      = "wherryX1"
	headSize   = 16
	digestSize = 32
)

// ErrMalformed is the cause of every decoding error that is the stream's fault.
var ErrMalformed = errors.New("malformed extents stream")
