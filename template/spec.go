package template

import (
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// check gives the spec in normal form, or everything that is wrong with it.
// A template that is imported needs no URL of its own.
func (s Spec) check(imported bool, fetchable func(Source) error) (Spec, FieldErrors) {
	var bad FieldErrors
	add := func(field, detail string) { bad = append(bad, FieldError{field, detail}) }
	if !validID.MatchString(s.ID) {
		add("id", "is 1 to 128 letters, digits, dots, dashes and underscores, and begins with a letter or digit")
	}
	s.Checksum = strings.ToLower(strings.TrimSpace(s.Checksum))
	if detail := checkChecksum(s.Checksum); detail != "" {
		add("checksum", detail)
	}
	if s.Format != FormatQcow2 && s.Format != FormatRaw {
		add("format", `is "qcow2" or "raw"`)
	}
	switch {
	case s.URL == "" && !imported && s.SyncFrom == "":
		add("url", "is missing")
	case s.URL != "":
		if detail := checkURL(s.URL, "http", "https", "file"); detail != "" {
			add("url", detail)
		} else if !imported {
			if err := fetchable(Source{URL: s.URL}); err != nil {
				add("url", err.Error())
			}
		}
	}
	if s.SyncFrom != "" {
		if detail := checkURL(s.SyncFrom, "https"); detail != "" {
			add("sync_from", detail)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		if detail := checkHeader(name, s.Headers[name]); detail != "" {
			add("headers."+name, detail)
		}
	}
	return s, bad
}

// checksumDigits is how many hex digits each algorithm has.
var checksumDigits = map[string]int{"sha256": 64, "sha512": 128}

func checkChecksum(sum string) string {
	if sum == "" {
		return "is missing: a template is never accepted unverified"
	}
	name, digits, _ := strings.Cut(sum, ":")
	want, ok := checksumDigits[name]
	if _, err := hex.DecodeString(digits); !ok || err != nil || len(digits) != want {
		return `is "sha256:" with 64 or "sha512:" with 128 hex digits`
	}
	return ""
}

func checkURL(raw string, schemes ...string) string {
	u, err := url.Parse(raw)
	if err != nil {
		// Without the address in front, which may hold what is not to be shown.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return "is not a URL: " + err.Error()
	}
	switch {
	case !slices.Contains(schemes, u.Scheme):
		return "must begin with " + strings.Join(schemes, ", ") + "://"
	case u.User != nil:
		return "holds a user or password, which would be shown to everybody: use headers"
	case u.Scheme == "file" && (u.Host != "" && u.Host != "localhost" || !strings.HasPrefix(u.Path, "/")):
		return "is file:///ABSOLUTE/PATH"
	case u.Scheme != "file" && u.Hostname() == "":
		return "names no host"
	}
	return ""
}

// Headers that decide how the transfer works are the fetcher's own.
var ownHeaders = []string{
	"Accept-Encoding", "Connection", "Content-Length", "Host", "If-Range", "Proxy-Authorization",
	"Range", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

var validHeader = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")

func checkHeader(name, value string) string {
	switch {
	case !validHeader.MatchString(name):
		return "is not a header name"
	case slices.Contains(ownHeaders, textproto.CanonicalMIMEHeaderKey(name)):
		return "is set by the download itself"
	case len(value) > 8192 || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
		return "is no header value: control characters, or over 8192 bytes"
	}
	return ""
}

func header(h map[string]string) http.Header {
	out := http.Header{}
	for name, value := range h {
		out.Set(name, value)
	}
	return out
}
