package source_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func anywhere(netip.Addr) bool { return true }

// quiet is for servers whose clients go away on purpose.
var quiet = log.New(io.Discard, "", 0)

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// download makes one that may go to this host, unless o says otherwise.
func download(o source.Options) *source.Download {
	if o.AllowAddress == nil {
		o.AllowAddress = anywhere
	}
	if o.Proxy == nil {
		o.Proxy = noProxy
	}
	return source.NewDownload(o)
}

// origin is the only one of a URL.
func origin(t testing.TB, d *source.Download, url string, headers map[string]string) source.Origin {
	t.Helper()
	found, err := d.Resolve(t.Context(), source.Request{URL: url, Headers: headers})
	must(t, err)
	if len(found.Origins) != 1 || found.Size != -1 || len(found.Checksums) != 0 {
		t.Fatalf("resolved %+v", found)
	}
	return found.Origins[0]
}

// read reads a stream to its end.
func read(t testing.TB, o source.Origin, at source.At) (string, source.Stream, error) {
	t.Helper()
	s, err := o.Open(t.Context(), at)
	if err != nil {
		return "", s, err
	}
	defer s.Close()
	b, err := io.ReadAll(s)
	return string(b), s, err
}

// get reads the content of a URL from its beginning.
func get(t testing.TB, d *source.Download, url string, headers map[string]string) (string, error) {
	t.Helper()
	found, err := d.Resolve(t.Context(), source.Request{URL: url, Headers: headers})
	if err != nil {
		return "", err
	}
	got, _, err := read(t, found.Origins[0], source.At{})
	return got, err
}

// wantFault insists on a fault of the code whose message has all the parts.
func wantFault(t testing.TB, err error, code string, parts ...string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != code || f.Class != fault.ClassOf(code) {
		t.Fatalf("%v (%T) is not %s", err, err, code)
	}
	for _, p := range parts {
		if m := fault.Message(err); !strings.Contains(m, p) {
			t.Errorf("%q lacks %q", m, p)
		}
	}
}

// site counts requests.
type site struct {
	*httptest.Server
	requests atomic.Int32
}

func serve(t testing.TB, handler http.HandlerFunc) *site {
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) port() string {
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		panic(err) // a listener of TCP has a port
	}
	return port
}

// resolver is a name service in which every name has the address, or none has
// any.
func resolver(t testing.TB, a netip.Addr) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = server.Close() })
		go answerNames(server, a)
		return client, nil
	}}
}

// answerNames speaks DNS over a stream (RFC 1035, 4.2.2), one question each.
func answerNames(c net.Conn, a netip.Addr) {
	defer func() { _ = c.Close() }() // the client sees it
	for {
		length := make([]byte, 2)
		if _, err := io.ReadFull(c, length); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		end := 12 + bytes.IndexByte(query[12:], 0) + 5 // the name, its type and class
		answer := slices.Clone(query[:end])
		answer[2], answer[3] = 0x81, 0x80 // an answer, recursion available
		clear(answer[6:12])
		switch isA := query[end-3] == 1; {
		case !a.IsValid():
			answer[3] |= 3 // no such name
		case isA:
			answer[7] = 1
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
			answer = append(answer, a.AsSlice()...)
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// old is when served content was last changed: long enough ago to count.
var old = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

// serveContent is an honest server of ranges, with a strong ETag.
func serveContent(t testing.TB, content string) *site {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", old, strings.NewReader(content))
	})
}

// raw is a server of one connection each: it reads the request's header and
// answers with what answer says, byte by byte, then closes the connection.
func raw(t testing.TB, answer func(n int, r *http.Request) string) *site {
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(s.requests.Add(1))
		c, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()     // the client sees it
		_, _ = buf.WriteString(answer(n, r)) // a client that went away says so itself
		_ = buf.Flush()
		// Half a close: the client is to see all that was sent, and its end.
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
			_, _ = io.Copy(io.Discard, bufio.NewReader(c))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// random makes n bytes that do not pack.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = src.Read(b) // never fails
	return b
}

// scripted is an origin that plays one stream after the other.
type scripted struct {
	asked []source.At
	next  []func(at source.At) (source.Stream, error)
}

func (s *scripted) Name() string { return "script" }

func (s *scripted) Open(_ context.Context, at source.At) (source.Stream, error) {
	s.asked = append(s.asked, at)
	if len(s.next) == 0 {
		return source.Stream{}, errors.New("the script is over")
	}
	play := s.next[0]
	s.next = s.next[1:]
	return play(at)
}

// failing gives bytes and then an error.
type failing struct {
	io.Reader
	err    error
	closed *int
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

func (f failing) Close() error { *f.closed++; return nil }

func header(status, fields, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\n%s\r\n%s", status, fields, body)
}
