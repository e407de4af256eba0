package template

import (
	"errors"
	"maps"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/template/digest"
)

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// check gives the spec in normal form, or everything that is wrong with it.
// A template that is imported needs no URL of its own.
func (s Spec) check(imported bool) (Spec, FieldErrors) {
	var bad FieldErrors
	add := func(field, detail string) { bad = append(bad, FieldError{field, detail}) }
	if !validID.MatchString(s.ID) {
		add("id", "is 1 to 128 letters, digits, dots, dashes and underscores, and begins with a letter or digit")
	}
	s.Checksum = strings.ToLower(strings.TrimSpace(s.Checksum))
	if detail := checkChecksum(s.Checksum); detail != "" {
		add("checksum", detail)
	}
	if s.Digest != "" && (digest.Check(s.Digest) != nil || !strings.HasPrefix(s.Digest, "sha256:")) {
		add("digest", `is not "sha256:" and 64 hex digits`)
	}
	if s.Format != FormatQcow2 && s.Format != FormatRaw {
		add("format", `is "qcow2" or "raw"`)
	}
	switch {
	case s.URL == "" && !imported && s.SyncFrom == "":
		add("url", "is missing")
	case s.URL != "":
		if detail := checkURL(s.URL); detail != "" {
			add("url", detail)
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

func checkChecksum(sum string) string {
	if sum == "" {
		return "is missing: a template is never accepted unverified"
	}
	if err := digest.Check(sum); err != nil {
		return err.Error()
	}
	return ""
}

// checkURL refuses what is no URL. Where it leads is not judged here: a scheme
// or an address that is not fetched from makes a copy that says so.
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
	case u.Scheme == "":
		return "has no scheme, such as https://"
	case len(schemes) > 0 && !slices.Contains(schemes, u.Scheme):
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
