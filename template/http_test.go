package template_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/template"
)

func fetcher(t *testing.T, o template.HTTPOptions) *template.Download {
	if o.AllowAddress == nil {
		o.AllowAddress = func(net.IP) bool { return true }
	}
	d := template.NewDownload(o)
	t.Cleanup(d.Close)
	return d
}

func get(t *testing.T, d *template.Download, url string, headers map[string]string) (string, error) {
	c, err := d.Open(t.Context(), template.Source{URL: url, Headers: headers})
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestAddressesAreJudgedWhereConnected(t *testing.T) {
	site := serveBytes(t, []byte("secret"))
	_, port, _ := net.SplitHostPort(site.Listener.Addr().String())
	d := template.NewDownload(template.HTTPOptions{})
	defer d.Close()
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, site.URL, http.StatusFound) })
	judged := fetcher(t, template.HTTPOptions{AllowAddress: func(net.IP) bool { return false }})
	for _, url := range []string{site.URL, "http://localhost:" + port, "http://[::ffff:127.0.0.1]:" + port, "http://169.254.169.254/latest"} {
		if got, err := get(t, d, url, nil); !errors.Is(err, template.ErrForbidden) {
			t.Errorf("%s: %q, %v", url, got, err)
		}
	}
	if _, err := get(t, judged, elsewhere.URL, nil); !errors.Is(err, template.ErrForbidden) {
		t.Errorf("judged: %v", err)
	}
	if n := site.requests.Load(); n != 0 {
		t.Errorf("%d requests came through", n)
	}
}

// A redirect is judged like the first address: each connection of its own.
func TestRedirectToAForbiddenAddress(t *testing.T) {
	inner := serveBytes(t, []byte("secret"))
	outer := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL, http.StatusFound) })
	n := 0
	d := fetcher(t, template.HTTPOptions{AllowAddress: func(net.IP) bool { n++; return n == 1 }})
	if got, err := get(t, d, outer.URL, nil); !errors.Is(err, template.ErrForbidden) || inner.requests.Load() != 0 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAddressRules(t *testing.T) {
	for address, want := range map[string]struct{ public, private bool }{
		"93.184.216.34":      {true, true},
		"2606:2800:220:1::1": {true, true},
		"10.1.2.3":           {false, true},
		"192.168.1.1":        {false, true},
		"fd00::1":            {false, true},
		"127.0.0.1":          {},
		"::1":                {},
		"::ffff:127.0.0.1":   {},
		"169.254.169.254":    {},
		"fe80::1":            {},
		"224.0.0.1":          {},
		"255.255.255.255":    {},
		"0.0.0.0":            {},
		"::":                 {},
	} {
		ip := net.ParseIP(address)
		if got := template.PublicAddress(ip); got != want.public {
			t.Errorf("public %s: %t", address, got)
		}
		if got := template.PrivateAddress(ip); got != want.private {
			t.Errorf("private %s: %t", address, got)
		}
	}
}

func TestRedirects(t *testing.T) {
	d := fetcher(t, template.HTTPOptions{MaxRedirects: 2})
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		switch {
		case r.URL.Path == "/file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		case n > 0:
			http.Redirect(w, r, fmt.Sprintf("/%d", n-1), http.StatusFound)
		default:
			fmt.Fprint(w, "image "+r.Header.Get("X-Token"))
		}
	})
	token := map[string]string{"X-Token": "secret"}
	if got, err := get(t, d, site.URL+"/2", token); err != nil || got != "image secret" {
		t.Errorf("two redirects: %q, %v", got, err)
	}
	if _, err := get(t, d, site.URL+"/3", token); !errors.Is(err, template.ErrForbidden) || !strings.Contains(err.Error(), "2 redirects") {
		t.Errorf("three redirects: %v", err)
	}
	if _, err := get(t, d, site.URL+"/file", token); !errors.Is(err, template.ErrForbidden) {
		t.Errorf("redirect to a file: %v", err)
	}
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, site.URL+"/0", http.StatusFound) })
	if got, err := get(t, d, elsewhere.URL+"/?q=1", token); err != nil || got != "image " {
		t.Errorf("the token was given to another host: %q, %v", got, err)
	}
	none := fetcher(t, template.HTTPOptions{MaxRedirects: -1})
	if _, err := get(t, none, site.URL+"/1", nil); !errors.Is(err, template.ErrForbidden) {
		t.Errorf("no redirects: %v", err)
	}
}

func TestTLSIsNotGivenUpByARedirect(t *testing.T) {
	plain := serveBytes(t, []byte("image"))
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	d := fetcher(t, template.HTTPOptions{TLS: secure.Client().Transport.(*http.Transport).TLSClientConfig})
	if got, err := get(t, d, secure.URL, nil); !errors.Is(err, template.ErrForbidden) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := get(t, fetcher(t, template.HTTPOptions{}), secure.URL, nil); err == nil {
		t.Error("a certificate of nobody was accepted")
	}
}

func TestDeadlines(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			fmt.Fprint(w, "some")
			w.(http.Flusher).Flush()
		}
		select {
		case <-r.Context().Done():
		case <-hang:
		}
	})
	d := fetcher(t, template.HTTPOptions{IdleTimeout: 50 * time.Millisecond, HeaderTimeout: 50 * time.Millisecond})
	if got, err := get(t, d, site.URL+"/body", nil); !errors.Is(err, template.ErrIdle) || got != "some" {
		t.Errorf("idle body: %q, %v", got, err)
	}
	if _, err := get(t, d, site.URL+"/header?secret", nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no header: %v", err)
	}
}

func TestSchemes(t *testing.T) {
	d := fetcher(t, template.HTTPOptions{})
	for url, ok := range map[string]bool{"http://h/x": true, "https://h/x": true, "file:///x": false, "ftp://h/x": false, "x\x00": false} {
		if err := d.Check(template.Source{URL: url}); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := get(t, d, "file:///etc/passwd", nil); !errors.Is(err, template.ErrForbidden) {
		t.Errorf("file with no folders configured: %v", err)
	}
}
