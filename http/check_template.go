package http

import (
	"errors"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
)

// maxHeaders bounds the headers that go with a template's download.
const maxHeaders = 32

// maxURL bounds the address of an image, in bytes.
const maxURL = 8192

var (
	// MD5 and SHA-1 because registries still carry them.
	checksumPattern = regexp.MustCompile(`^(md5:[0-9A-Fa-f]{32}|sha1:[0-9A-Fa-f]{40}|sha256:[0-9A-Fa-f]{64}|sha512:[0-9A-Fa-f]{128})$`)
	// A token of RFC 9110, section 5.6.2.
	headerPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")
)

// image checks the address of an image: an absolute URL, of whatever scheme.
// One that this host cannot or may not fetch from is the copy's failure, with
// a code, and not the request's: what decides it is this host's
// configuration, which may change.
func (f *faults) image(field, v string) {
	u, err := url.Parse(v)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the address in front, which may hold a password
	}
	switch {
	case v == "":
		f.add(field, "is missing")
	case len(v) > maxURL:
		f.add(field, "is longer than %d bytes", maxURL)
	case err != nil:
		f.add(field, "is no URL: %v", err)
	case u.Scheme == "" || u.Opaque != "" || !strings.Contains(v, "://"):
		f.add(field, "is no absolute URL such as https://HOST/PATH")
	case u.User != nil:
		f.add(field, "holds a user or a password, which everybody would be shown: send a header instead")
	case u.Scheme == "file" && (u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path)):
		f.add(field, "must be file:///ABSOLUTE/PATH")
	case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() == "":
		f.add(field, "names no host")
	}
}

func checkTemplate(r api.TemplateRequest) (f faults) {
	f.id("id", r.ID)
	// A peer may be the only one to ask.
	if r.URL != "" || r.SyncFrom == "" {
		f.image("url", r.URL)
	}
	f.match(checksumPattern, "checksum", r.Checksum, "must be md5:, sha1:, sha256: or sha512: and the digest in hexadecimal; an image is never taken on trust")
	f.given("format", r.Format)
	f.oneOf("format", r.Format, "qcow2", "raw")
	f.pool("pool", r.Pool)
	if r.SyncFrom != "" {
		f.peer("sync_from", r.SyncFrom)
	}
	if len(r.Headers) > maxHeaders {
		f.add("headers", "has %d entries, at most %d are taken", len(r.Headers), maxHeaders)
		return f
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		f.match(headerPattern, "headers."+name, name, "is no header name")
		if strings.ContainsAny(r.Headers[name], "\r\n\x00") {
			f.add("headers."+name, "may not contain line breaks")
		}
	}
	return f
}
