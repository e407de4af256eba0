// Package fault says why a template copy failed: a code for programs, a class
// that tells whose fault it is, and the deepest cause in plain words.
package fault

// Class tells who has to do something about a fault.
type Class string

// Classes of faults.
const (
	Source Class = "source" // the place that the image comes from, or the way to it
	Policy Class = "policy" // this host's rules refuse it
	Local  Class = "local"  // this host: its disk, folder or memory
)

// Fault is an error of one attempt to bring a copy.
type Fault struct {
	// Code names the kind of fault on the wire, such as "unresolvable".
	Code string
	// Class tells whose fault it is.
	Class Class
	// Permanent: trying again cannot help before somebody asks for it.
	Permanent bool
	// Err is the cause, with the address, file or value concerned.
	Err error
}

func (f *Fault) Error() string { return f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }
