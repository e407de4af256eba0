package source_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

const content = "0123456789"

func TestHonestServerResumes(t *testing.T) {
	for name, known := range map[string]source.Validator{
		"by the ETag":             {ETag: `"v1"`, Total: 10},
		"by the date":             {LastModified: old.Format(http.TimeFormat), Total: 10},
		"by both, total unknown":  {ETag: `"v1"`, LastModified: old.Format(http.TimeFormat), Total: -1},
		"by the total":            {Total: 10},
		"by nothing but the sums": {},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "bytes=4-" || r.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("asked %v", r.Header)
				}
				want := known.ETag
				if want == "" {
					want = known.LastModified
				}
				if got := r.Header.Get("If-Range"); got != want {
					t.Errorf("If-Range %q, want %q", got, want)
				}
				w.Header().Set("ETag", `"v1"`)
				http.ServeContent(w, r, "", old, strings.NewReader(content))
			})
			got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil), source.At{Offset: 4, Validator: known})
			if err != nil || got != content[4:] || stream.Offset != 4 || stream.Total != 10 || stream.ETag != `"v1"` {
				t.Errorf("%q, %+v, %v", got, stream, err)
			}
			if n := s.requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestFirstRequestHasNoRange(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Range", "If-Range", "Referer", "Cookie", "Authorization"} {
			if v := r.Header.Get(h); v != "" {
				t.Errorf("%s: %s", h, v)
			}
		}
		if r.Method != http.MethodGet {
			t.Errorf("method %s", r.Method)
		}
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", old, strings.NewReader(content))
	})
	got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil), source.At{})
	want := source.Validator{ETag: `"v1"`, LastModified: old.Format(http.TimeFormat), Total: 10}
	if err != nil || got != content || stream.Validator != want {
		t.Errorf("%q, %+v, %v", got, stream, err)
	}
}

// What a server says to a range is believed only as far as it fits.
func TestServersThatLieAboutRanges(t *testing.T) {
	const total = "Content-Length: 6\r\n"
	for name, answer := range map[string]string{
		"another start":        header("206 Partial Content", total+"Content-Range: bytes 3-8/10\r\n", content[3:9]),
		"start 0":              header("206 Partial Content", "Content-Length: 10\r\nContent-Range: bytes 0-9/10\r\n", content),
		"another total":        header("206 Partial Content", total+"Content-Range: bytes 4-9/11\r\n", content[4:]),
		"unknown total":        header("206 Partial Content", total+"Content-Range: bytes 4-9/*\r\n", content[4:]),
		"no Content-Range":     header("206 Partial Content", total, content[4:]),
		"another unit":         header("206 Partial Content", total+"Content-Range: lines 4-9/10\r\n", content[4:]),
		"nonsense":             header("206 Partial Content", total+"Content-Range: bytes 9-4/10\r\n", content[4:]),
		"past the end":         header("206 Partial Content", total+"Content-Range: bytes 4-10/10\r\n", content[4:]),
		"overflow":             header("206 Partial Content", total+"Content-Range: bytes 4-99999999999999999999/10\r\n", content[4:]),
		"signs":                header("206 Partial Content", total+"Content-Range: bytes +4-9/10\r\n", content[4:]),
		"another length":       header("206 Partial Content", "Content-Length: 5\r\nContent-Range: bytes 4-9/10\r\n", content[4:9]),
		"several parts":        header("206 Partial Content", "Content-Type: multipart/byteranges; boundary=x\r\n", "--x\r\n\r\n456789\r\n--x--"),
		"another ETag":         header("206 Partial Content", total+"Content-Range: bytes 4-9/10\r\nETag: \"v2\"\r\n", content[4:]),
		"an ETag that is weak": header("206 Partial Content", total+"Content-Range: bytes 4-9/10\r\nETag: W/\"v1\"\r\n", content[4:]),
		"nothing left":         header("416 Range Not Satisfiable", "Content-Length: 0\r\nContent-Range: bytes */4\r\n", ""),
		"shorter":              header("416 Range Not Satisfiable", "Content-Length: 0\r\nContent-Range: bytes */3\r\n", ""),
		"416 without a length": header("416 Range Not Satisfiable", "Content-Length: 0\r\n", ""),
	} {
		t.Run(name, func(t *testing.T) {
			s := raw(t, func(_ int, r *http.Request) string {
				if r.Header.Get("Range") != "" {
					return answer
				}
				return header("200 OK", "Content-Length: 10\r\nETag: \"v2\"\r\n", "abcdefghij")
			})
			got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil),
				source.At{Offset: 4, Validator: source.Validator{ETag: `"v1"`, Total: 10}})
			if err != nil || got != "abcdefghij" || stream.Offset != 0 || stream.ETag != `"v2"` {
				t.Errorf("%q, %+v, %v", got, stream, err)
			}
			if n := s.requests.Load(); n != 2 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestContentThatChanged(t *testing.T) {
	// The server itself answers the whole when If-Range does not fit.
	s := serveContent(t, "abcdefghijkl")
	for name, known := range map[string]source.Validator{
		"ETag": {ETag: `"v0"`, Total: 10},
		"date": {LastModified: old.Add(-time.Hour).Format(http.TimeFormat), Total: 10},
	} {
		t.Run(name, func(t *testing.T) {
			got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil), source.At{Offset: 4, Validator: known})
			if err != nil || got != "abcdefghijkl" || stream.Offset != 0 || stream.Total != 12 {
				t.Errorf("%q, %+v, %v", got, stream, err)
			}
		})
	}
}

// A server without ranges gives the whole again.
func TestServerWithoutRanges(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, content) })
	got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil),
		source.At{Offset: 4, Validator: source.Validator{ETag: `"v1"`, Total: 10}})
	if err != nil || got != content || stream.Offset != 0 {
		t.Errorf("%q, %+v, %v", got, stream, err)
	}
}

func TestAllWasReadAlready(t *testing.T) {
	s := serveContent(t, content)
	for _, total := range []int64{10, -1} {
		got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil),
			source.At{Offset: 10, Validator: source.Validator{ETag: `"v1"`, Total: total}})
		if err != nil || got != "" || stream.Offset != 10 || stream.Total != 10 || stream.ETag != `"v1"` {
			t.Errorf("%q, %+v, %v", got, stream, err)
		}
	}
}

// Without a Range in the request none may be answered.
func TestUnaskedRanges(t *testing.T) {
	for _, status := range []string{"206 Partial Content", "416 Range Not Satisfiable"} {
		s := raw(t, func(int, *http.Request) string {
			return header(status, "Content-Length: 6\r\nContent-Range: bytes 4-9/10\r\n", content[4:])
		})
		_, err := get(t, download(source.Options{}), s.URL, nil)
		wantFault(t, err, fault.HTTPStatus, status)
	}
}

func TestValidatorsThatProveNothing(t *testing.T) {
	now := time.Now().UTC().Format(http.TimeFormat)
	for name, fields := range map[string]string{
		"weak":             "ETag: W/\"v1\"\r\n",
		"without quotes":   "ETag: v1\r\n",
		"long":             "ETag: \"" + strings.Repeat("x", 2000) + "\"\r\n",
		"changed just now": "Last-Modified: " + now + "\r\nDate: " + now + "\r\n",
		"without a clock":  "Last-Modified: " + old.Format(http.TimeFormat) + "\r\n",
		"no date":          "Last-Modified: yesterday\r\nDate: " + now + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := raw(t, func(int, *http.Request) string { return header("200 OK", "Content-Length: 10\r\n"+fields, content) })
			got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil), source.At{})
			if err != nil || got != content || stream.Validator != (source.Validator{Total: 10}) {
				t.Errorf("%q, %+v, %v", got, stream, err)
			}
		})
	}
}

func TestContentEncoding(t *testing.T) {
	for name, tt := range map[string]struct {
		path, encoding string
		ok             bool
	}{
		"none":                  {"/x", "", true},
		"identity":              {"/x", "identity", true},
		"packed though unasked": {"/x", "gzip", false},
		"brotli":                {"/x.gz", "br", false},
		// The file is packed, and sent as it is.
		"a packed file": {"/x.GZ", "x-gzip", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if tt.encoding != "" {
					w.Header().Set("Content-Encoding", tt.encoding)
				}
				fmt.Fprint(w, "as it is")
			})
			got, err := get(t, download(source.Options{}), s.URL+tt.path, nil)
			if !tt.ok {
				wantFault(t, err, fault.Protocol, tt.encoding)
			} else if err != nil || got != "as it is" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// Many servers call images text: it is for the message of a later failure.
func TestHTMLIsOnlyAHint(t *testing.T) {
	const page = "<!doctype html><html><body>Please log in</body></html>"
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, page)
	})
	got, stream, err := read(t, origin(t, download(source.Options{}), s.URL, nil), source.At{})
	if err != nil || got != page || stream.MediaType != "text/html" {
		t.Errorf("%q, %+v, %v", got, stream, err)
	}
}

// Signed URLs allow GET alone.
func TestServerThatForbidsHead(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "", old, strings.NewReader(content))
	})
	if got, err := get(t, download(source.Options{}), s.URL+"/x?X-Amz-Signature=abc", nil); err != nil || got != content {
		t.Errorf("%q, %v", got, err)
	}
}
