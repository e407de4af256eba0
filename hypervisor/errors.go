package hypervisor

import (
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"
)

// Sentinels for errors.Is. An error that carries one also carries libvirt's
// own text, whole.
var (
	// ErrDown: there is no connection to libvirt, or it broke during the call.
	ErrDown = errors.New("libvirt is not connected")
	// ErrNoDomain: libvirt has no domain of that name or UUID.
	ErrNoDomain = errors.New("no such domain")
	// ErrNoPool: libvirt has no storage pool of that name.
	ErrNoPool = errors.New("no such pool")
	// ErrAborted: the migration was stopped on request; the domain runs on here.
	ErrAborted = errors.New("migration aborted")
	// ErrUnknownOutcome: the call that migrates did not return although it was
	// aborted and its connections were cut. Ask both hosts where the domain runs.
	ErrUnknownOutcome = errors.New("outcome of the migration is unknown")
	// ErrNotPersisted: the domain moved and runs, but the destination could not
	// save its definition (VIR_ERR_MIGRATE_PERSIST_FAILED).
	ErrNotPersisted = errors.New("domain moved but its definition was not saved")
	// ErrInvalidState: libvirt refuses this in the domain's present state, most
	// often because it does not run.
	ErrInvalidState = errors.New("not possible in the domain's present state")
	// ErrBusy: another job holds the domain (VIR_ERR_OPERATION_TIMEOUT).
	ErrBusy = errors.New("domain is busy with another job")
	// ErrUnsupported: this libvirt, QEMU or driver cannot do it.
	ErrUnsupported = errors.New("not supported here")
	// ErrAgent: the guest agent is absent or does not answer.
	ErrAgent = errors.New("guest agent does not answer")
)

// sentinels maps libvirt's numbers to what callers may ask for with errors.Is.
var sentinels = map[libvirt.ErrorNumber]error{
	libvirt.ERR_NO_DOMAIN:              ErrNoDomain,
	libvirt.ERR_NO_STORAGE_POOL:        ErrNoPool,
	libvirt.ERR_OPERATION_ABORTED:      ErrAborted,
	libvirt.ERR_MIGRATE_PERSIST_FAILED: ErrNotPersisted,
	libvirt.ERR_OPERATION_INVALID:      ErrInvalidState,
	libvirt.ERR_OPERATION_TIMEOUT:      ErrBusy,
	libvirt.ERR_NO_SUPPORT:             ErrUnsupported,
	libvirt.ERR_OPERATION_UNSUPPORTED:  ErrUnsupported,
	libvirt.ERR_CONFIG_UNSUPPORTED:     ErrUnsupported,
	libvirt.ERR_ARGUMENT_UNSUPPORTED:   ErrUnsupported,
	libvirt.ERR_AGENT_UNRESPONSIVE:     ErrAgent,
	libvirt.ERR_AGENT_UNSYNCED:         ErrAgent,
}

// opError is what every method returns for a failed libvirt call: what was
// tried on what, with libvirt's own words.
type opError struct {
	op, name string
	sentinel error // may be nil
	err      error
}

func (e *opError) Error() string {
	what := e.op
	if e.name != "" {
		what = fmt.Sprintf("%s %q", e.op, e.name)
	}
	return what + ": " + text(e.err)
}

func (e *opError) Unwrap() []error {
	if e.sentinel == nil {
		return []error{e.err}
	}
	return []error{e.sentinel, e.err}
}

// wrap says what was tried; nil stays nil, and what is wrapped stays as it is.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if oe, ok := errors.AsType[*opError](err); ok && oe.op == op && oe.name == name {
		return err
	}
	e := &opError{op: op, name: name, err: err}
	//nolint:errorlint // as in text
	if le, ok := err.(libvirt.Error); ok {
		e.sentinel = sentinels[le.Code]
	}
	return e
}

// isCode reports whether err is libvirt's error of that number.
func isCode(err error, codes ...libvirt.ErrorNumber) bool {
	for _, c := range codes {
		if errors.Is(err, c) {
			return true
		}
	}
	return false
}

func isDown(err error) bool { return errors.Is(err, ErrDown) }

// brokenError is a call's error together with its cause: the connection broke.
type brokenError struct{ err error }

func (e brokenError) Error() string   { return ErrDown.Error() + ": " + text(e.err) }
func (e brokenError) Unwrap() []error { return []error{ErrDown, e.err} }

// text is libvirt's message without the numbers that libvirt.Error prints
// around it.
func text(err error) string {
	//nolint:errorlint // only the error itself: an error around it has words of its own
	if le, ok := err.(libvirt.Error); ok {
		return le.Message
	}
	return err.Error()
}
