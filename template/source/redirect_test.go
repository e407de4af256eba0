package source_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

var token = map[string]string{"X-Token": "s3cret", "Authorization": "Bearer s3cret", "Cookie": "s3cret=1", "User-Agent": "operator"}

// told lists which of the caller's headers a request has.
func told(r *http.Request) string {
	var out []string
	for _, name := range []string{"X-Token", "Authorization", "Cookie"} {
		if r.Header.Get(name) != "" {
			out = append(out, name)
		}
	}
	if r.Header.Get("Referer") != "" {
		out = append(out, "Referer")
	}
	return r.Header.Get("User-Agent") + strings.Join(out, ",")
}

func TestRedirects(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n, _ := strconv.Atoi(r.URL.Path[1:]); n > 0 {
			http.Redirect(w, r, fmt.Sprintf("%d", n-1), 301+n%2) // relative, and of two kinds
			return
		}
		fmt.Fprint(w, told(r))
	})
	d := download(source.Options{MaxRedirects: 2})
	for n, want := range map[int]string{0: "", 2: ""} {
		if got, err := get(t, d, fmt.Sprintf("%s/%d", s.URL, n), token); err != nil || got != "operatorX-Token,Authorization,Cookie" {
			t.Errorf("%d redirects: %q%s, %v", n, got, want, err)
		}
	}
	_, err := get(t, d, s.URL+"/3?q=s3cret", token)
	wantFault(t, err, fault.Redirect, "redirects more than 2 times", s.URL+"/3?...")
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a secret is told: %v", err)
	}
	_, err = get(t, download(source.Options{MaxRedirects: -1}), s.URL+"/1", nil)
	wantFault(t, err, fault.Redirect, "more than 0 times")
	// The usual bound.
	must(t, second(get(t, download(source.Options{}), s.URL+"/5", nil)))
	wantFault(t, second(get(t, download(source.Options{}), s.URL+"/6", nil)), fault.Redirect)
}

func second(_ string, err error) error { return err }

func TestRedirectLoop(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
	})
	_, err := get(t, download(source.Options{}), s.URL+"/x", nil)
	wantFault(t, err, fault.Redirect, "more than 5 times")
	if n := s.requests.Load(); n != 6 {
		t.Errorf("%d requests", n)
	}
}

func TestWhereNoRedirectMayLead(t *testing.T) {
	for to, code := range map[string]string{
		"file:///etc/passwd":    fault.Redirect,
		"ftp://192.0.2.1/x":     fault.Redirect,
		"":                      fault.Protocol,
		"http://[::1":           fault.Protocol,
		"http://:80/x?q=s3cret": fault.Scheme,
	} {
		t.Run(to, func(t *testing.T) {
			s := raw(t, func(int, *http.Request) string {
				location := ""
				if to != "" {
					location = "Location: " + to + "\r\n"
				}
				return header("302 Found", "Content-Length: 0\r\n"+location, "")
			})
			_, err := get(t, download(source.Options{}), s.URL, nil)
			wantFault(t, err, code)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("a secret is told: %v", err)
			}
		})
	}
}

// Other answers of the three hundreds are no redirect.
func TestAnswersThatLeadNowhere(t *testing.T) {
	for _, status := range []int{http.StatusMultipleChoices, http.StatusNotModified} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		_, err := get(t, download(source.Options{}), s.URL, nil)
		wantFault(t, err, fault.HTTPStatus, http.StatusText(status))
	}
}

// Credentials stay with scheme, host and port, also on the way back.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	var first *site
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			http.Redirect(w, r, first.URL+"/image", http.StatusFound)
			return
		}
		fmt.Fprint(w, told(r))
	})
	first = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/image":
			fmt.Fprint(w, told(r))
		case "/name":
			http.Redirect(w, r, "http://localhost:"+r.Host[strings.LastIndex(r.Host, ":")+1:]+"/image", http.StatusFound)
		case "/user":
			http.Redirect(w, r, "http://user:pass@"+r.Host+"/image", http.StatusFound)
		default:
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
		}
	})
	d := download(source.Options{})
	for path, want := range map[string]string{
		"/image": "operatorX-Token,Authorization,Cookie",
		"/user":  "operatorX-Token,Authorization,Cookie", // the server's own user is not taken
		"/port":  "wherry",
		"/name":  "wherry",
		"/back":  "wherry",
	} {
		if got, err := get(t, d, first.URL+path, token); err != nil || got != want {
			t.Errorf("%s: told %q, %v", path, got, err)
		}
	}
}

// A user in the URL itself is not sent either: it would be shown to everybody,
// so that it is refused where templates are registered.
func TestUserOfTheURLIsNotSent(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, told(r)) })
	o := origin(t, download(source.Options{}), strings.Replace(s.URL, "http://", "http://user:s3cret@", 1), nil)
	if got, _, err := read(t, o, source.At{}); err != nil || got != "wherry" || strings.Contains(o.Name(), "s3cret") {
		t.Errorf("told %q, name %s, %v", got, o.Name(), err)
	}
}

func TestTLSIsNotGivenUpByARedirect(t *testing.T) {
	plain := serveContent(t, content)
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/x?q=s3cret", http.StatusFound))
	defer secure.Close()
	_, err := get(t, download(source.Options{Authorities: authorities(secure)}), secure.URL, nil)
	wantFault(t, err, fault.Redirect, "from https to http", plain.URL+"/x?...")
	if n := plain.requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestTLSMayBeGainedByARedirect(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, told(r)) }))
	defer secure.Close()
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secure.URL, http.StatusFound) })
	if got, err := get(t, download(source.Options{Authorities: authorities(secure)}), plain.URL, token); err != nil || got != "wherry" {
		t.Errorf("told %q, %v", got, err)
	}
}

// A range and its condition go with every hop: it is the same content.
func TestRangeFollowsARedirect(t *testing.T) {
	inner := serveContent(t, content)
	outer := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL, http.StatusFound) })
	got, stream, err := read(t, origin(t, download(source.Options{}), outer.URL, nil),
		source.At{Offset: 4, Validator: source.Validator{ETag: `"v1"`, Total: 10}})
	if err != nil || got != content[4:] || stream.Offset != 4 {
		t.Errorf("%q, %+v, %v", got, stream, err)
	}
}

func TestEachHopIsJudged(t *testing.T) {
	inner := serveContent(t, content)
	outer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(inner.URL, "127.0.0.1", "127.0.0.2", 1), http.StatusFound)
	})
	d := download(source.Options{AllowAddress: source.Allow(netip.MustParsePrefix("127.0.0.1/32"))})
	_, err := get(t, d, outer.URL, nil)
	wantFault(t, err, fault.Address, "127.0.0.2:"+inner.port()+" is not allowed")
}
