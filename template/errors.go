package template

import (
	"errors"
	"strings"
)

// Errors of the registry, wrapped with the template, path or address concerned.
// What went wrong with a copy is a *fault.Fault.
var (
	// ErrNotFound: no such template, or it was removed.
	ErrNotFound = errors.New("no such template")
	// ErrConflict: the id is registered for other content.
	ErrConflict = errors.New("the id is registered with other content")
	// ErrBusy: a fetch of the template does not end.
	ErrBusy = errors.New("the template is being fetched")
	// ErrNotReady: no copy of the template is ready.
	ErrNotReady = errors.New("no copy is ready")
	// ErrPool: the pool does not exist or is not usable.
	ErrPool = errors.New("no such pool")
	// ErrOccupied: another file lies where the copy belongs, and comes again.
	ErrOccupied = errors.New("another file lies at the template's place")
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
