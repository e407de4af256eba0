// Package source opens images where they lie: at a URL, at one of several
// mirrors, in a folder of this host, or at a peer.
package source

import (
	"context"
	"io"
)

// Validator tells whether a content is still the one that was begun. The zero
// value knows nothing.
type Validator struct {
	ETag         string `json:"etag,omitempty"`          // as sent; weak ones are not kept
	LastModified string `json:"last_modified,omitempty"` // as sent; kept where it is a strong validator (RFC 9110, 8.8.2.2)
	Total        int64  `json:"total"`                   // bytes of the whole, -1 (or 0) where unknown
}

// At is where to begin. The zero value is the beginning of any content.
type At struct {
	Offset int64
	Validator
}

// Stream is content from Offset on. Offset is what was asked for, or 0 where
// the origin does not resume, or has other content by now. A stream that ends
// before Total bytes fails; its errors are, or wrap, a *fault.Fault.
type Stream struct {
	io.ReadCloser
	Offset int64
	Validator
	// Travelled gives how many bytes have come over the network so far, from an
	// origin that leaves holes out; nil: as many as were read.
	Travelled func() int64
	// Allocated is what the whole takes on disk where it lies, in bytes, which
	// is less than Total where it has holes; 0: not known.
	Allocated int64
	// Lie is an answer that broke the rules when it was asked for less than the
	// whole, which is why Offset is 0; nil where nothing was wrong.
	Lie error
	// MediaType is what the origin calls the content, such as "text/html". It
	// is a hint for people: many servers call images so.
	MediaType string
}

// Origin is one place that has an image.
type Origin interface {
	// Name is for people; it holds no secret.
	Name() string
	// Open begins to read. ctx covers the reading too. Errors are, or wrap, a
	// *fault.Fault.
	Open(ctx context.Context, at At) (Stream, error)
}
