package http_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/certs"
	"github.com/wherry-kvm/wherry/http/client"
)

// sending is an agent that sends one template at a time, one that is too large
// for what a connection buffers.
func sending(t *testing.T, pace time.Duration, set ...func(*wherry.Options)) (url string, files client.TLS) {
	t.Helper()
	a := newAgent(t)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	a.offers(path)
	a.options.Senders = 1
	a.pace = pace
	for _, f := range set {
		f(&a.options)
	}
	ca := newAuthority(t, "ca")
	url = a.serveTLS(t, ca.issue("a", soon(), "wherry-peer"))
	return url, ca.issue("b", soon(), "wherry-peer")
}

// share counts what it was asked for, and lets it go.
type share struct {
	waited atomic.Int64
	closed chan struct{}
}

func (s *share) Wait(_ context.Context, n int) error { s.waited.Add(int64(n)); return nil }
func (s *share) Close()                              { close(s.closed) }

// What another host fetches waits for its share, and leaves it at the end.
func TestContentHasAShareOfTheBandwidth(t *testing.T) {
	given := &share{closed: make(chan struct{})}
	var of string
	url, files := sending(t, time.Minute, func(o *wherry.Options) {
		o.Share = func(content string) wherry.Share { of = content; return given }
	})
	var travelled atomic.Int64
	body, err := connect(t, url, files).TemplateContent(t.Context(), client.ContentRequest{ID: "rocky9", Received: func(n int64) { travelled.Add(n) }})
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, body)
	if err := errors.Join(err, body.Close()); err != nil {
		t.Fatal(err)
	}
	<-given.closed
	if of != "rocky9" || n != 32<<20 || given.waited.Load() != travelled.Load() {
		t.Errorf("%d bytes of %q, %d of them travelled, %d were waited for", n, of, travelled.Load(), given.waited.Load())
	}
}

func TestSendersAreBounded(t *testing.T) {
	url, files := sending(t, time.Minute)
	c := connect(t, url, files)
	first, err := c.TemplateContent(t.Context(), client.ContentRequest{ID: "rocky9"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.TemplateContent(t.Context(), client.ContentRequest{ID: "rocky9"})
	p := api.AsProblem(err)
	if p == nil || p.Code != "overloaded" || p.Status != http.StatusServiceUnavailable || p.RetryAfter != 5*time.Second || !strings.Contains(p.Detail, "1 templates") {
		t.Errorf("the second got %+v", p)
	}
	if _, err := c.TemplateOffer(t.Context(), "rocky9"); api.CodeOf(err) != "overloaded" {
		t.Errorf("offered with %v", err)
	}
	if n, err := io.Copy(io.Discard, first); n != 32<<20 || err != nil {
		t.Errorf("the first got %d bytes, %v", n, err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	placed(t, c)
}

// placed waits until there is a place for a sender. What was cut off had one: a
// machine under load may be too slow for the pace.
func placed(t *testing.T, c *client.Client) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		got, err := c.TemplateContent(t.Context(), client.ContentRequest{ID: "rocky9"})
		if err == nil {
			_ = got.Close()
			return
		}
		if cutOff(err) {
			return
		}
		if api.CodeOf(err) != "overloaded" || time.Now().After(end) {
			t.Fatalf("no place: %v", err)
		}
	}
}

// cutOff tells the error of a connection that ended without a word.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// ask sends a request for the template over a connection of its own.
func ask(t *testing.T, url string, files client.TLS, headers string) net.Conn {
	t.Helper()
	store, err := certs.Open(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	dialer := tls.Dialer{Config: store.Client("127.0.0.1")}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET /v1/templates/rocky9/content HTTP/1.1\r\nHost: a\r\n%s\r\n", headers); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Whoever takes nothing, or leaves without a word, gives its place up.
func TestADeadReceiverLosesItsPlace(t *testing.T) {
	for _, extents := range []string{"", "Wherry-Extents: 2\r\n"} {
		url, files := sending(t, 50*time.Millisecond)
		conn := ask(t, url, files, extents)
		// On a machine under load not even this may come in time.
		if _, err := io.ReadFull(conn, make([]byte, 64)); err != nil && !cutOff(err) {
			t.Fatal(err)
		}
		placed(t, connect(t, url, files))
		// What the connection holds is all that comes.
		if n, _ := io.Copy(io.Discard, conn); n >= 32<<20 {
			t.Errorf("%d bytes came all the same", n)
		}
		_ = conn.Close()
	}
}

// Whoever was too slow sees the connection end, and not a message that seems to
// be forged.
func TestAReceiverIsCutOffInPlainWords(t *testing.T) {
	url, files := sending(t, time.Nanosecond) // over before the first byte
	conn := ask(t, url, files, "")
	if n, err := io.ReadFull(conn, make([]byte, 64)); !cutOff(err) {
		t.Errorf("%d bytes, and then %v; want the connection cut", n, err)
	}
	_ = conn.Close()
}
