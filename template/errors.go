package template

import (
	"errors"
	"strings"
)

// Errors of the registry, wrapped with the template, path or address concerned.
var (
	// ErrNotFound: no such template, or it was removed.
	ErrNotFound = errors.New("no such template")
	// ErrConflict: the id is registered for other content.
	ErrConflict = errors.New("the id is registered with other content")
	// ErrBusy: the template is being downloaded or copied.
	ErrBusy = errors.New("the template is being fetched")
	// ErrNotReady: no copy of the template is ready.
	ErrNotReady = errors.New("no copy is ready")
	// ErrPool: the pool does not exist or is not usable.
	ErrPool = errors.New("no such pool")
	// ErrOccupied: another file lies where the copy belongs.
	ErrOccupied = errors.New("another file lies at the template's place")
	// ErrChecksum: the bytes are not those of the checksum.
	ErrChecksum = errors.New("checksum differs")
	// ErrImage: the image may not be a template.
	ErrImage = errors.New("image refused")
	// ErrTooLarge: more bytes than are allowed.
	ErrTooLarge = errors.New("too large")
	// ErrNoSpace: the pool's file system has not enough room.
	ErrNoSpace = errors.New("not enough space")
	// ErrForbidden: the address, redirect or path may not be fetched.
	ErrForbidden = errors.New("not allowed")
	// ErrServer: the server answered with something other than the image.
	ErrServer = errors.New("the server did not send the image")
	// ErrIdle: no byte arrived for too long.
	ErrIdle = errors.New("no data from the server")
)

// FieldError names one field of a Spec, as it is called on the wire, and what
// is wrong with it.
type FieldError struct{ Field, Detail string }

// FieldErrors is all that is wrong with a Spec.
type FieldErrors []FieldError

func (f FieldErrors) Error() string {
	all := make([]string, len(f))
	for i, e := range f {
		all[i] = e.Field + ": " + e.Detail
	}
	return strings.Join(all, "; ")
}
