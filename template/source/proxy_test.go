package source_test

import (
	"bufio"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// proxy forwards everything to one address, whatever name is asked for, and
// notes what it was asked.
func proxy(t testing.TB, to string, asked chan<- string) *site {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		if r.Method != http.MethodConnect {
			http.ServeContent(w, r, "", old, strings.NewReader("by proxy"))
			return
		}
		c, buf, err := w.(http.Hijacker).Hijack()
		must(t, err)
		defer func() { _ = c.Close() }() // both ends see it
		up, err := net.Dial("tcp", to)
		must(t, err)
		defer func() { _ = up.Close() }() // as above
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, buf) }() // ends with the connections
		_, _ = io.Copy(c, bufio.NewReader(up))
	})
}

func through(t testing.TB, proxyURL string) source.Options {
	u, err := url.Parse(proxyURL)
	must(t, err)
	// Public: the address of the proxy is the operator's choice.
	return source.Options{AllowAddress: source.Public, Proxy: http.ProxyURL(u)}
}

func TestProxy(t *testing.T) {
	ours := newAuthority(t, "ours")
	secure := ours.serve(t, func(*x509.Certificate) {})
	asked := make(chan string, 1)
	p := proxy(t, secure.Listener.Addr().String(), asked)
	o := through(t, p.URL)
	o.Authorities = ours.pool()
	d := download(o)
	for scheme, want := range map[string]string{"http": "GET a.example", "https": "CONNECT a.example:443"} {
		got, err := get(t, d, scheme+"://a.example/x", nil)
		if want == "GET a.example" && got != "by proxy" || scheme == "https" && got != content || err != nil {
			t.Errorf("%s: %q, %v", scheme, got, err)
		}
		if line := <-asked; line != want {
			t.Errorf("%s: the proxy was asked %q", scheme, line)
		}
	}
	_, err := get(t, d, "https://b.example/x", nil)
	wantFault(t, err, fault.TLS, "certificate is for a.example, not for b.example")
}

func TestProxyThatRefuses(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) })
	host := p.Listener.Addr().String()
	d := download(through(t, "http://user:s3cret@"+host))
	_, err := get(t, d, "https://a.example/x", nil)
	wantFault(t, err, fault.HTTPStatus, "the proxy "+host+" answered 407 Proxy Authentication Required")
	_, err = get(t, d, "http://a.example/x", nil)
	wantFault(t, err, fault.HTTPStatus, "407 Proxy Authentication Required")
	p.Close()
	_, err = get(t, d, "https://a.example/x", nil)
	wantFault(t, err, fault.ConnectionRefused, "connection refused by the proxy "+host)
	if strings.Contains(fault.Message(err), "s3cret") {
		t.Errorf("a secret is told: %v", err)
	}
}

func TestMalformedProxy(t *testing.T) {
	d := download(source.Options{Proxy: func(*http.Request) (*url.URL, error) {
		return nil, &url.Error{Op: "parse", URL: "http://user:s3cret@h:port", Err: errors.New("invalid port")}
	}})
	_, err := get(t, d, "http://a.example/x", nil)
	wantFault(t, err, fault.Internal, "the proxy of the environment is malformed")
	if strings.Contains(fault.Message(err), "s3cret") {
		t.Errorf("a secret is told: %v", err)
	}
}

// The environment is read once in a process's life: each case needs its own.
func TestProxyOfTheEnvironment(t *testing.T) {
	asked := make(chan string, 1)
	p := proxy(t, "", asked)
	for name, tt := range map[string]struct {
		env  []string
		want string
	}{
		"proxy":        {[]string{"HTTP_PROXY=" + p.URL}, "by proxy"},
		"lower case":   {[]string{"http_proxy=" + p.URL}, "by proxy"},
		"not for this": {[]string{"HTTP_PROXY=" + p.URL, "NO_PROXY=other.example,.images.example"}, "direct"},
		"for none":     {[]string{"HTTP_PROXY=" + p.URL, "no_proxy=*"}, "direct"},
		"only for TLS": {[]string{"HTTPS_PROXY=" + p.URL}, "direct"},
		"none":         {nil, "direct"},
	} {
		t.Run(name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildWithProxy$", "-test.v")
			child.Env = append(tt.env, "WHERRY_TEST_CHILD=1")
			out, err := child.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "read: "+tt.want+"\n") {
				t.Errorf("%v: %s", err, out)
			}
			if tt.want == "by proxy" {
				if line := <-asked; line != "GET a.images.example" {
					t.Errorf("the proxy was asked %q", line)
				}
			}
		})
	}
}

// TestChildWithProxy is what TestProxyOfTheEnvironment runs on its own.
func TestChildWithProxy(t *testing.T) {
	if os.Getenv("WHERRY_TEST_CHILD") == "" {
		return // in the parent it has nothing to say
	}
	// A name that only a proxy or this resolver knows; the server refuses.
	d := source.NewDownload(source.Options{
		AllowAddress: source.Public, Resolver: resolver(t, netip.MustParseAddr("127.0.0.1")),
	})
	got, err := get(t, d, "http://a.images.example/x", nil)
	if f := fault.Of(err); f != nil && f.Code == fault.Address {
		got, err = "direct", nil // it would have gone to this host itself
	}
	must(t, err)
	fmt.Printf("read: %s\n", got)
}
