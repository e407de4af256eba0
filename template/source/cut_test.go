package source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestCutContent(t *testing.T) {
	for name, tt := range map[string]struct {
		answer, got, code, words string
	}{
		"shorter than announced": {header("200 OK", "Content-Length: 10\r\n", "0123"), "0123", fault.Truncated, "ended the content after 4 of 10 bytes"},
		"cut in a chunk":         {header("200 OK", "Transfer-Encoding: chunked\r\n", "a\r\n0123"), "0123", fault.Truncated, "ended the content early, after 4 bytes"},
		"cut between chunks":     {header("200 OK", "Transfer-Encoding: chunked\r\n", "4\r\n0123\r\n"), "0123", fault.Truncated, "after 4 bytes"},
		"nonsense for a chunk":   {header("200 OK", "Transfer-Encoding: chunked\r\n", "4\r\n0123\r\nzz\r\n"), "0123", fault.ConnectionLost, "lost after 4 bytes"},
		// Nobody can tell this from its proper end: the checksum must.
		"closed by an old server": {"HTTP/1.0 200 OK\r\n\r\n0123", "0123", "", ""},
		"empty":                   {header("200 OK", "Content-Length: 0\r\n", ""), "", "", ""},
		"no answer":               {"", "", fault.ConnectionLost, "closed the connection without an answer"},
		"not HTTP":                {"SSH-2.0-OpenSSH\r\n", "", fault.Protocol, "is not understood"},
		"half a header":           {"HTTP/1.1 200 OK\r\nContent-", "", fault.Protocol, "is not understood"},
		"two lengths":             {header("200 OK", "Content-Length: 4\r\nContent-Length: 5\r\n", "0123"), "", fault.Protocol, "is not understood"},
		"no end of the header":    {"HTTP/1.1 200 OK\r\nX: " + string(make([]byte, 1<<20)), "", fault.Protocol, "is not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			s := raw(t, func(int, *http.Request) string { return tt.answer })
			got, err := get(t, download(source.Options{}), s.URL+"/x?q=s3cret", nil)
			if got != tt.got {
				t.Errorf("read %q", got)
			}
			if tt.code == "" {
				must(t, err)
				return
			}
			wantFault(t, err, tt.code, tt.words)
		})
	}
}

// More than was announced is not read.
func TestLongerThanAnnounced(t *testing.T) {
	s := raw(t, func(int, *http.Request) string { return header("200 OK", "Content-Length: 4\r\n", content) })
	if got, err := get(t, download(source.Options{}), s.URL, nil); err != nil || got != "0123" {
		t.Errorf("%q, %v", got, err)
	}
}

// A part that is honest about being short is a cut as well.
func TestPartOfTheRange(t *testing.T) {
	s := raw(t, func(int, *http.Request) string {
		return header("206 Partial Content", "Content-Length: 2\r\nContent-Range: bytes 4-5/10\r\n", "45")
	})
	o := origin(t, download(source.Options{}), s.URL, nil)
	got, stream, err := read(t, o, source.At{Offset: 4, Validator: source.Validator{ETag: `"v1"`, Total: 10}})
	if got != "45" || stream.Offset != 4 {
		t.Errorf("%q at %d", got, stream.Offset)
	}
	wantFault(t, err, fault.Truncated, "after 6 of 10 bytes")
}

func TestDeadlines(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			fmt.Fprint(w, "some")
			w.(http.Flusher).Flush()
		}
		select {
		case <-r.Context().Done():
		case <-hang:
		}
	})
	// One of them at a time: this machine may be slow as well.
	short := source.Options{IdleTimeout: 30 * time.Millisecond, HeaderTimeout: time.Minute}
	got, err := get(t, download(short), s.URL+"/body", nil)
	wantFault(t, err, fault.Idle, "no data from "+s.Listener.Addr().String()+" for 30ms")
	if got != "some" {
		t.Errorf("read %q", got)
	}
	// Who sets one of them means a server that says nothing, however it does.
	for _, o := range []source.Options{{HeaderTimeout: 30 * time.Millisecond}, {IdleTimeout: 30 * time.Millisecond}} {
		_, err = get(t, download(o), s.URL+"/header?q=s3cret", nil)
		wantFault(t, err, fault.Idle, "no answer from "+s.Listener.Addr().String()+" in 30ms")
	}
}

// A server that takes connections and says nothing, not even TLS.
func TestMuteTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, l.Close()) }()
	d := download(source.Options{ConnectTimeout: 30 * time.Millisecond})
	_, err = get(t, d, "https://"+l.Addr().String(), nil)
	wantFault(t, err, fault.Unreachable, "no connection to "+l.Addr().String()+" in 30ms")
}

func TestRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	_, err = get(t, download(source.Options{}), "http://"+address+"/x?q=s3cret", nil)
	wantFault(t, err, fault.ConnectionRefused, "connection refused by "+address)
}

// A slow writer is not an idle server: the time that reading takes counts.
func TestSlowConsumer(t *testing.T) {
	s := serveContent(t, content)
	o := origin(t, download(source.Options{IdleTimeout: 100 * time.Millisecond, HeaderTimeout: time.Minute}), s.URL, nil)
	stream, err := o.Open(t.Context(), source.At{})
	must(t, err)
	defer stream.Close()
	for i := range content {
		if i == 0 || i == 5 {
			timer := time.NewTimer(150 * time.Millisecond)
			<-timer.C
		}
		b := make([]byte, 1)
		if n, err := stream.Read(b); n != 1 || b[0] != content[i] || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("read %d, %q, %v", n, b, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "some")
		w.(http.Flusher).Flush()
		<-hang
	})
	stop := errors.New("the agent stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	stream, err := origin(t, download(source.Options{}), s.URL, nil).Open(ctx, source.At{})
	must(t, err)
	defer stream.Close()
	b := make([]byte, 4)
	_, err = io.ReadFull(stream, b)
	must(t, err)
	cancel(fault.New(fault.Interrupted, "%w", stop))
	_, err = stream.Read(b)
	wantFault(t, err, fault.Interrupted, "the agent stops")
	if !errors.Is(err, stop) {
		t.Errorf("the cause is lost: %v", err)
	}
	_, err = origin(t, download(source.Options{}), s.URL, nil).Open(ctx, source.At{})
	wantFault(t, err, fault.Interrupted, "the agent stops")
}
