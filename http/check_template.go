package http

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
)

// maxHeaders bounds the headers that go with a template's download.
const maxHeaders = 32

var (
	checksumPattern = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
	// A token of RFC 9110, section 5.6.2.
	headerPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")
)

func checkTemplate(r api.TemplateRequest) (f faults) {
	f.id("id", r.ID)
	f.url("url", r.URL, "http", "https")
	f.match(checksumPattern, "checksum", r.Checksum, "must be sha256: or sha512: and the digest in lower-case hexadecimal")
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
