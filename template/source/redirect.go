package source

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/wherry-kvm/wherry/template/fault"
)

// redirect gives where an answer leads, or nil where it does not.
func redirect(r *http.Response, from *url.URL) (*url.URL, error) {
	switch r.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil //nolint:nilnil // no redirect is not an error
	}
	to, err := r.Location()
	if err != nil {
		return nil, fault.New(fault.Protocol, "%s answered %s without saying where to: %w", redacted(from), r.Status, withoutURL(err))
	}
	to.User = nil
	switch {
	case to.Scheme != "http" && to.Scheme != "https":
		return nil, fault.New(fault.Redirect, "%s redirects to scheme %q", redacted(from), to.Scheme)
	case to.Scheme == "http" && from.Scheme == "https":
		return nil, fault.New(fault.Redirect, "%s redirects from https to http: %s", redacted(from), redacted(to))
	}
	return to, nil
}

// sameOrigin compares scheme, host and port (RFC 6454).
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// port gives the URL's port, also where it is left out.
func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}
