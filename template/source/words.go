package source

import (
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/template/fault"
)

// redacted gives a URL for people: without user, query and fragment, any of
// which may be a secret.
func redacted(u *url.URL) string {
	short := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	s := short.String()
	if u.RawQuery != "" || u.ForceQuery {
		s += "?..."
	}
	return fault.Clean(s, 300)
}

// secrets are what a request tells a server and a message must not repeat: the
// values of the query and of the headers.
func secrets(u *url.URL, headers map[string]string) []string {
	var out []string
	for _, pair := range strings.FieldsFunc(u.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		_, value, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(value)
		if err != nil {
			plain = value
		}
		out = append(out, pair, value, plain)
	}
	for _, value := range headers {
		// Of "Bearer abc", abc is the secret.
		out = append(append(out, value), strings.Fields(value)...)
	}
	return out
}

var (
	unseen = regexp.MustCompile(`(?is)<(script|style|head)\b.*?</(script|style|head)\s*>|<!--.*?-->`)
	title  = regexp.MustCompile(`(?is)<title\b[^>]*>(.*?)</title`)
	tag    = regexp.MustCompile(`(?s)<[^<>]*>`)
)

// excerpt makes a short line of what a server wrote beside its status, which
// may be a page: without tags, without what the status says already, and
// without our secrets, which some servers repeat.
func excerpt(text, status string, secret []string) string {
	head := ""
	if m := title.FindStringSubmatch(text); m != nil {
		head = m[1]
	}
	text = unseen.ReplaceAllString(text, " ")
	text = tag.ReplaceAllString(text, " ")
	if strings.TrimSpace(text) == "" {
		text = head
	}
	text = html.UnescapeString(text)
	for _, s := range slices.SortedFunc(slices.Values(secret), func(a, b string) int { return len(b) - len(a) }) {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	text = fault.Clean(text, 4096)
	for strings.HasPrefix(text, status) {
		text = strings.TrimSpace(strings.TrimPrefix(text, status))
	}
	return fault.Clean(text, 200)
}
