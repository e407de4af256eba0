// Package fault says why a template copy failed: a code for programs, a class
// that tells whose fault it is, and the deepest cause in plain words.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

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
	// Code names the kind of fault on the wire: one of the constants.
	Code string
	// Class tells whose fault it is.
	Class Class
	// Permanent: trying again cannot help before somebody asks for it.
	Permanent bool
	// Err is the cause, with the address, file or value concerned.
	Err error
}

func (f *Fault) Error() string {
	if f.Err == nil {
		return f.Code
	}
	return f.Err.Error()
}

func (f *Fault) Unwrap() error { return f.Err }

// New makes a fault of the code's usual class. format is as for [fmt.Errorf].
func New(code, format string, args ...any) *Fault {
	return &Fault{Code: code, Class: ClassOf(code), Permanent: code == Image, Err: fmt.Errorf(format, args...)}
}

// Of gives the fault in err's chain, or makes one of what the standard library
// tells. It is nil for nil only. A wrapped fault keeps its own words: what is
// wrapped around it is known to whoever shows a copy.
func Of(err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok && f != nil {
		return f
	}
	return classify(err)
}

// Message gives the deepest cause in plain words: one line of at most
// [MaxMessage] bytes without control characters, and never empty.
func Message(err error) string {
	f := Of(err)
	if f == nil {
		return "no error"
	}
	if s := Clean(f.Error(), MaxMessage); s != "" {
		return s
	}
	return "failed without a word: " + f.Code
}

// Named is an error with the origin that it came from.
type Named struct {
	Name string // for people, without secrets
	Err  error
}

// Join makes one fault of the failures of several origins, whose words name
// each. A local fault decides over the others, because it is to be mended
// first and must not be blamed on a source; else the last one does, which is
// the origin of last resort. It is permanent when all are. Entries without an
// error do not count; nil when none is left.
func Join(all ...Named) *Fault {
	var out *Fault
	var words []string
	var errs []error
	permanent := true
	for _, n := range all {
		f := Of(n.Err)
		if f == nil {
			continue
		}
		permanent = permanent && f.Permanent
		if out == nil || out.Class != Local || f.Class == Local {
			out = f
		}
		words, errs = append(words, n.Name+": "+Message(f)), append(errs, n.Err)
	}
	if len(errs) < 2 {
		return out
	}
	// Each in full as far as it fits: a long one must not hide the others.
	for i, w := range words {
		words[i] = Clean(w, max(MaxMessage/len(words)-len("; "), 16))
	}
	return &Fault{
		Code: out.Code, Class: out.Class, Permanent: permanent,
		Err: &worded{strings.Join(words, "; "), errors.Join(errs...)},
	}
}

// worded is an error in plain words that keeps its cause for errors.Is.
type worded struct {
	text  string
	cause error
}

func (w *worded) Error() string { return w.text }
func (w *worded) Unwrap() error { return w.cause }

// because makes a fault in plain words out of a cause.
func because(code string, cause error, format string, args ...any) *Fault {
	return &Fault{Code: code, Class: ClassOf(code), Err: &worded{fmt.Sprintf(format, args...), cause}}
}
