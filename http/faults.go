package http

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/wherry-kvm/wherry/http/api"
)

// faults collects what is wrong with a request, all of it at once.
type faults []api.FieldError

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, api.FieldError{Field: field, Detail: fmt.Sprintf(format, args...)})
}

// problem gives "bad-request" with the fields, or nil where nothing is wrong.
func (f faults) problem() error {
	if len(f) == 0 {
		return nil
	}
	words := make([]string, len(f))
	for i, e := range f {
		words[i] = e.Field + " " + e.Detail
	}
	p := api.NewProblem("bad-request", "%s", strings.Join(words, "; "))
	p.Fields = f
	return p
}

// Patterns of what becomes part of a file's name or of a command line: nothing
// that starts with a dot or a dash, no slash, no white space.
var (
	projectPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	idPattern      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	contentPattern = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,127}|sha256:[0-9a-f]{64})$`)
	diskPattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	uuidPattern    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// maxName bounds a name, in bytes. The record's file name has 255, with a
// suffix of its own and a longer one while it is written.
const maxName = 200

// name checks the name of an existing instance. Libvirt refuses a slash; a
// name of dots would be a folder.
func (f *faults) name(field, v string) {
	switch {
	case v == "":
		f.add(field, "is missing")
	case len(v) > maxName:
		f.add(field, "is longer than %d bytes", maxName)
	case !utf8.ValidString(v):
		f.add(field, "is not UTF-8")
	case v == "." || v == "..":
		f.add(field, "may not be %q", v)
	case strings.Contains(v, "/"):
		f.add(field, "may not contain a slash")
	case strings.ContainsFunc(v, unicode.IsControl):
		f.add(field, "may not contain control characters")
	}
}

// newName checks a name that is about to be given. It is stricter than name:
// these are trouble in a shell, and nobody needs them.
func (f *faults) newName(field, v string) {
	before := len(*f)
	f.name(field, v)
	if len(*f) > before {
		return
	}
	if strings.HasPrefix(v, ".") || strings.HasPrefix(v, "-") {
		f.add(field, "may not begin with %q", v[:1])
	}
	if strings.ContainsFunc(v, unicode.IsSpace) {
		f.add(field, "may not contain white space")
	}
}

func (f *faults) match(p *regexp.Regexp, field, v, what string) {
	if !p.MatchString(v) {
		f.add(field, "%s", what)
	}
}

func (f *faults) project(field, v string) {
	f.match(projectPattern, field, v, "must be 1 to 63 letters, digits, dots, dashes or underscores, beginning with a letter or digit")
}

func (f *faults) id(field, v string) {
	f.match(idPattern, field, v, "must be 1 to 128 letters, digits, dots, dashes or underscores, beginning with a letter or digit")
}

func (f *faults) disk(field, v string) {
	f.match(diskPattern, field, v, "must be a disk's target name such as \"vda\"")
}

func (f *faults) uuid(field, v string) {
	f.match(uuidPattern, field, v, "must be a UUID in lower case")
}

// pool checks the name of a storage pool, where one is given.
func (f *faults) pool(field, v string) {
	if v != "" {
		f.name(field, v)
	}
}

// given finds a value that may not be left out.
func (f *faults) given(field, v string) {
	if v == "" {
		f.add(field, "is missing")
	}
}

// oneOf accepts one of the values, or none.
func (f *faults) oneOf(field, v string, values ...string) {
	if v == "" || slices.Contains(values, v) {
		return
	}
	f.add(field, "must be one of %s", strings.Join(values, ", "))
}

func (f *faults) notNegative(field string, v int64) {
	if v < 0 {
		f.add(field, "may not be negative")
	}
}

// file checks an absolute path without detours: paths are compared whole.
func (f *faults) file(field, v string) {
	switch {
	case v == "":
		f.add(field, "is missing")
	case !path.IsAbs(v) || path.Clean(v) != v:
		f.add(field, "must be an absolute path without \".\", \"..\" or doubled slashes")
	case strings.ContainsFunc(v, unicode.IsControl):
		f.add(field, "may not contain control characters")
	}
}

// url checks an absolute URL of one of the schemes.
func (f *faults) url(field, v string, schemes ...string) {
	u, err := url.Parse(v)
	switch {
	case v == "":
		f.add(field, "is missing")
	case err != nil:
		f.add(field, "is no URL: %v", err)
	case !slices.Contains(schemes, u.Scheme) || u.Hostname() == "":
		f.add(field, "must be a URL with a host and the scheme %s", strings.Join(schemes, " or "))
	}
}

// peer checks a peer's URL: https, a host, nothing behind it.
func (f *faults) peer(field, v string) {
	before := len(*f)
	f.url(field, v, "https")
	if len(*f) > before {
		return
	}
	if u, err := url.Parse(v); err == nil && (u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "") {
		f.add(field, "must be https://HOST:PORT and nothing more")
	}
}

// portal checks host or host:port, IPv6 in brackets where a port follows.
func (f *faults) portal(field, v string) {
	host := v
	if h, port, err := net.SplitHostPort(v); err == nil {
		host = h
		if n, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", port); err != nil || n == 0 {
			f.add(field, "has the port %q", port)
		}
	}
	switch {
	case host == "":
		f.add(field, "has no host")
	case strings.ContainsFunc(host, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("/@?#,", r)
	}):
		f.add(field, "must be host or host:port")
	}
}

// key checks an Idempotency-Key, where one is given.
func (f *faults) key(field, v string) {
	if len(v) > 255 {
		f.add(field, "is longer than 255 characters")
	}
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		f.add(field, "must be printable ASCII")
	}
}
