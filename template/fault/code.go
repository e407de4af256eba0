package fault

import "slices"

// Codes whose class is Source.
const (
	Unresolvable      = "unresolvable"       // the name service knows no address
	ConnectionRefused = "connection-refused" // nobody listens there
	Unreachable       = "unreachable"        // no route, or no connection in time
	ConnectionLost    = "connection-lost"    // reset or closed underway
	TLS               = "tls"                // name, authority or date of the certificate, or no TLS at all
	HTTPStatus        = "http-status"        // an answer that is no image: 404, 403, 500
	NotAnImage        = "not-an-image"       // HTML, an archive, not of the declared format
	Checksum          = "checksum"           // other bytes than were asked for
	Size              = "size"               // another length than was announced
	Truncated         = "truncated"          // the content ended early
	Idle              = "idle"               // no byte for too long
	Protocol          = "protocol"           // an answer against the rules of HTTP, or of Metalink
	Packed            = "packed"             // a broken gzip, xz or zstd stream
	Peer              = "peer"               // what another agent answered
	NoSource          = "no-source"          // there is nowhere to fetch from
)

// Codes whose class is Policy.
const (
	Scheme     = "scheme"      // no scheme of ours, or no URL at all
	Address    = "address"     // loopback, private and the like
	Redirect   = "redirect"    // too many, or to where none may lead
	FileFolder = "file-folder" // file:// outside of the configured folders
	TooLarge   = "too-large"   // over a configured size
	Image      = "image"       // refused by intake; permanent
)

// Codes whose class is Local.
const (
	NoSpace      = "no-space"
	ReadOnly     = "read-only"     // an immutable folder, a read-only file system
	NotPermitted = "not-permitted" // EACCES, EPERM
	Rename       = "rename"        // the finished file could not be named
	IO           = "io"            // the disk itself
	Occupied     = "occupied"      // a foreign file lies at the place
	Pool         = "pool"          // no such pool, or it is not usable
	Interrupted  = "interrupted"   // the agent stopped, or somebody cancelled
	Changed      = "changed"       // the copy was changed underneath
	Internal     = "internal"      // nothing known: a bug, or out of memory or descriptors
)

var codes = map[Class][]string{
	Source: {
		Unresolvable, ConnectionRefused, Unreachable, ConnectionLost, TLS, HTTPStatus, NotAnImage, Checksum,
		Size, Truncated, Idle, Protocol, Packed, Peer, NoSource,
	},
	Policy: {Scheme, Address, Redirect, FileFolder, TooLarge, Image},
	Local:  {NoSpace, ReadOnly, NotPermitted, Rename, IO, Occupied, Pool, Interrupted, Changed, Internal},
}

// ClassOf gives the usual class of a code; Local for an unknown one, which is
// a mistake of this program. (Intake refuses what is not an image by Policy.)
func ClassOf(code string) Class {
	for _, class := range []Class{Source, Policy} {
		if slices.Contains(codes[class], code) {
			return class
		}
	}
	return Local
}

// Codes lists all codes, for documents and metrics.
func Codes() []string {
	out := slices.Concat(codes[Source], codes[Policy], codes[Local])
	slices.Sort(out)
	return out
}
