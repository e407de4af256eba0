package templates

import (
	"context"
	"io"
)

// Peer is another agent that may have a template.
//
// Its errors carry *api.Problem: "not-found" and "not-ready" from a peer that
// has not got it, "overloaded" with RetryAfter from one that sends enough
// already, "peer-unreachable" around the cause where none answered, and
// whatever else the peer says.
type Peer interface {
	// Offer tells what Content would bring. id is a template's, or the digest
	// of the bytes.
	Offer(ctx context.Context, id string) (Offer, error)
	// Content brings the bytes from an offset on, or from 0 where the peer has
	// other content by now than that of the digest. ctx covers the reading.
	Content(ctx context.Context, id string, offset int64, digest string) (Content, error)
}

// Offer is what a peer says of a template of its own.
type Offer struct {
	Digest   string // "sha256:...", of the whole content
	Format   string // as the peer has registered it
	Checksum string // as the peer has registered it
	Size     int64  // bytes of the whole content
	// Allocated is what the peer's file takes on disk, in bytes; 0: not known.
	Allocated int64
}

// Content is a template's bytes from Offset on.
type Content struct {
	io.ReadCloser
	Offer
	Offset int64
	// Travelled gives how many bytes have come over the network so far; nil: as
	// many as were read.
	Travelled func() int64
}
