package source_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestWhatAServerSaysOfItsRefusal(t *testing.T) {
	for name, tt := range map[string]struct {
		status            int
		mediaType, answer string
		want              string // behind the status and the URL
	}{
		"nothing":        {404, "", "", ""},
		"a line":         {404, "text/plain", "no such image\n", ": no such image"},
		"its own status": {404, "text/html", "<html><head><title>404 Not Found</title></head>\r\n<body><center><h1>404 Not Found</h1></center><hr><center>nginx/1.22.1</center></body></html>", ": nginx/1.22.1"},
		"only a title":   {503, "text/html", "<html><head><title>Down for maintenance</title></head><body></body></html>", ": Down for maintenance"},
		"a program":      {500, "text/html", "<script>alert(1)</script><style>b{}</style><!-- hidden --><p>It &amp; we are sorry</p>", ": It & we are sorry"},
		"XML":            {403, "application/xml", `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`, ": AccessDenied Request has expired"},
		"colours":        {500, "text/plain", "a\x1b[31mb\x00c\u202ed\r\ne\xff", ": a [31mb c d e"},
		"only blanks":    {500, "text/plain", " \r\n\t ", ""},
		"our secrets":    {403, "text/plain", "you said token=s3cr%65t+x, s3cret x and Bearer t0ken", ": you said [redacted], [redacted] and [redacted]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.mediaType)
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.answer)
			})
			_, err := get(t, download(source.Options{}), s.URL+"/a%20b?id=7&token=s3cr%65t+x", map[string]string{"Authorization": "Bearer t0ken"})
			wantFault(t, err, fault.HTTPStatus)
			want := fmt.Sprintf("%d %s from %s/a%%20b?...%s", tt.status, http.StatusText(tt.status), s.URL, tt.want)
			if got := fault.Message(err); got != want {
				t.Errorf("%q; want %q", got, want)
			}
		})
	}
}

func TestLongRefusalIsCut(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		for range 1 << 10 {
			if _, err := fmt.Fprint(w, strings.Repeat("é", 1<<10)); err != nil {
				return
			}
		}
	})
	_, err := get(t, download(source.Options{}), s.URL, nil)
	wantFault(t, err, fault.HTTPStatus, "502 Bad Gateway", "ééé...")
	if m := fault.Message(err); len(m) > 400 || !utf8.ValidString(m) {
		t.Errorf("%d bytes: %q", len(m), m)
	}
}

// A refusal that never ends must not hold the message back for long.
func TestRefusalWithoutEnd(t *testing.T) {
	s := raw(t, func(int, *http.Request) string {
		return header("404 Not Found", "Content-Length: 1000\r\n", "no such image")
	})
	_, err := get(t, download(source.Options{}), s.URL, nil)
	wantFault(t, err, fault.HTTPStatus, "404 Not Found", "no such image")
}

// The query is data: it goes out as it was written.
func TestQueryIsSentVerbatim(t *testing.T) {
	const query = "a=1&b=2==&c=%2F+%20;d&e&X-Sig=a/b:c"
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/a%2Fb/c?"+query {
			t.Errorf("asked for %s", r.RequestURI)
		}
		fmt.Fprint(w, content)
	})
	d := download(source.Options{})
	o := origin(t, d, s.URL+"/a%2Fb/c?"+query+"#fragment", nil)
	if got, _, err := read(t, o, source.At{}); err != nil || got != content {
		t.Errorf("%q, %v", got, err)
	}
	if got := o.Name(); got != s.URL+"/a%2Fb/c?..." {
		t.Errorf("name %s", got)
	}
}

func TestNoMessageTellsTheQuery(t *testing.T) {
	d := download(source.Options{})
	for _, url := range []string{
		"http://127.0.0.1:1/x?q=s3cret", "http://x.invalid/x?q=s3cret", "http://h:99999/x?q=s3cret", "http://h:port/x?q=s3cret",
		"ftp://h/x?q=s3cret", "file:///x?q=s3cret", "http:///x?q=s3cret", "http://h/%zz?q=s3cret", "http://user:s3cret@127.0.0.1:1/",
		"\x00http://h/?q=s3cret", "httpsinvalid://h/x?q=s3cret", "h/x?q=s3cret", "http://[::1/?q=s3cret",
	} {
		_, err := get(t, d, url, map[string]string{"X": "s3cret"})
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(fault.Message(err), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestCheck(t *testing.T) {
	d := download(source.Options{AllowAddress: source.Public, Files: []string{"/srv/images"}})
	for url, want := range map[string]string{
		"http://h/x":                 "",
		"https://h.example:8443/x?q": "",
		"HTTP://H/x":                 "",
		"http://93.184.216.34/x":     "",
		"file:///srv/images/a/b":     "",
		"file:///srv/images":         "",
		"file:///srv/images/../x":    fault.FileFolder,
		"file:///srv/imagesx":        fault.FileFolder,
		"file:///etc/passwd":         fault.FileFolder,
		"httpsinvalid://h/x.qcow2":   fault.Scheme,
		"ftp://h/x":                  fault.Scheme,
		"nbd://h/x":                  fault.Scheme,
		"json:{}":                    fault.Scheme,
		"x":                          fault.Scheme,
		"":                           fault.Scheme,
		"x\x00":                      fault.Scheme,
		"http://":                    fault.Scheme,
		"http://:80/":                fault.Scheme,
		"http://127.0.0.1/x":         fault.Address,
		"http://0x7f000001/x":        fault.Address,
		"http://localhost/x":         fault.Address,
	} {
		err := d.Check(source.Request{URL: url})
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", url, err)
			}
			continue
		}
		wantFault(t, err, want)
		if _, resolveErr := d.Resolve(t.Context(), source.Request{URL: url}); resolveErr == nil || resolveErr.Error() != err.Error() {
			t.Errorf("%q: checked %v, resolved %v", url, err, resolveErr)
		}
	}
	wantFault(t, d.Check(source.Request{URL: "httpsinvalid://h/x.qcow2"}), fault.Scheme, `scheme "httpsinvalid"`)
}
