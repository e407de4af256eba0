package http_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// sparse makes an image of size bytes: data at the beginning and in the
// middle, holes elsewhere, one of them at the end.
func sparse(t *testing.T, size int64) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	for _, at := range []int64{0, size / 2} {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	if content, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// onDisk gives the bytes that a file takes.
func onDisk(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func (a *agent) offers(path string) {
	a.templates.OpenFn = func(context.Context, string) (*os.File, api.Template, error) {
		f, err := os.Open(path)
		return f, aTemplate, err
	}
}

// get reads a content to its end.
func get(t *testing.T, c *client.Client, want client.ContentRequest) (*client.Content, []byte) {
	t.Helper()
	got, err := c.TemplateContent(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	b, err := io.ReadAll(got)
	if err != nil {
		t.Fatal(err)
	}
	return got, b
}

func TestTemplateContent(t *testing.T) {
	const size = 8 << 20
	a := newAgent(t)
	path, whole := sparse(t, size)
	taken := onDisk(t, path)
	if taken <= 0 || taken >= size {
		t.Fatalf("a sparse file of %d bytes takes %d", size, taken)
	}
	var asked string
	a.templates.OpenFn = func(_ context.Context, id string) (*os.File, api.Template, error) {
		asked = id
		f, err := os.Open(path)
		return f, aTemplate, err
	}
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	for _, row := range []struct {
		name   string
		want   client.ContentRequest
		begins int64
	}{
		{"whole", client.ContentRequest{ID: "rocky9"}, 0},
		{"by digest", client.ContentRequest{ID: aDigest}, 0},
		{"resumed", client.ContentRequest{ID: "rocky9", Offset: 4<<20 + 1, Digest: aDigest}, 4<<20 + 1},
		{"resumed in a hole", client.ContentRequest{ID: "rocky9", Offset: 5 << 20, Digest: aDigest}, 5 << 20},
		{"resumed at the end", client.ContentRequest{ID: "rocky9", Offset: size}, size},
		{"resumed, digest unknown", client.ContentRequest{ID: "rocky9", Offset: 5 << 20}, 5 << 20},
		{"resumed, another image by now", client.ContentRequest{ID: "rocky9", Offset: 5 << 20, Digest: "sha256:other"}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, b := get(t, c, row.want)
			info := client.ContentInfo{Digest: aDigest, Format: "qcow2", Checksum: aDigest, Size: size, Allocated: taken}
			if asked != row.want.ID || got.Offset != row.begins || got.ContentInfo != info {
				t.Errorf("of %q from %d: %+v", asked, got.Offset, got.ContentInfo)
			}
			if !bytes.Equal(b, whole[row.begins:]) {
				t.Error("other bytes")
			}
		})
	}
	if got, err := c.TemplateOffer(t.Context(), "rocky9"); err != nil || got != (client.ContentInfo{Digest: aDigest, Format: "qcow2", Checksum: aDigest, Size: size, Allocated: taken}) {
		t.Errorf("offered %+v, %v", got, err)
	}
}

// Plain bytes are for whoever is no agent.
func TestPlainContent(t *testing.T) {
	a := newAgent(t)
	path, whole := sparse(t, 1<<20)
	a.offers(path)
	a.serve(t, wherry.Listeners{})
	for _, row := range []struct {
		name, method string
		header       []string
		status       int
		want         []byte
	}{
		{"whole", "GET", nil, http.StatusOK, whole},
		{"head", "HEAD", nil, http.StatusOK, nil},
		{"range", "GET", []string{"Range", "bytes=1000-1999"}, http.StatusPartialContent, whole[1000:2000]},
		{"range of this content", "GET", []string{"Range", "bytes=1000-", "If-Range", `"` + aDigest + `"`}, http.StatusPartialContent, whole[1000:]},
		{"range of another content", "GET", []string{"Range", "bytes=1000-", "If-Range", `"sha256:other"`}, http.StatusOK, whole},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := a.raw(t, row.method, "/v1/templates/rocky9/content", "", row.header...)
			if got.StatusCode != row.status || !bytes.Equal(got.body, row.want) {
				t.Errorf("answered %s and %d bytes", got.Status, len(got.body))
			}
			if got.Header.Get("ETag") != `"`+aDigest+`"` || got.Header.Get("Wherry-Format") != "qcow2" || got.Header.Get("Wherry-Checksum") != aDigest {
				t.Errorf("headers %v", got.Header)
			}
			if row.method == "HEAD" && got.ContentLength != 1<<20 {
				t.Errorf("a length of %d", got.ContentLength)
			}
		})
	}
}

func TestRangeOutsideTheContent(t *testing.T) {
	a := newAgent(t)
	path, _ := sparse(t, 1<<20)
	a.offers(path)
	a.serve(t, wherry.Listeners{})
	for _, header := range [][]string{{"Range", "bytes=1048576-"}, {"Wherry-Extents", "2", "Wherry-Offset", "1048577"}} {
		got := a.raw(t, "GET", "/v1/templates/rocky9/content", "", header...)
		if p := got.problem(t); got.StatusCode != http.StatusRequestedRangeNotSatisfiable || p.Code != "bad-range" {
			t.Errorf("%v: %s, %+v", header, got.Status, p)
		}
	}
	_, err := a.client(t).TemplateContent(t.Context(), client.ContentRequest{ID: "rocky9", Offset: 1<<20 + 1})
	if api.CodeOf(err) != "bad-range" {
		t.Errorf("got %v", err)
	}
}

// An image that is nearly all hole arrives whole, over the peers' own TLS, and
// what travels is its data alone. Both sides count it.
func TestHolesDoNotTravel(t *testing.T) {
	const size = 1 << 30
	a := newAgent(t)
	path, want := sparse(t, 1<<20)
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	a.offers(path)
	var sent, received atomic.Int64
	a.options.Sent = func(n int64) { sent.Add(n) }
	ca := newAuthority(t, "ca")
	url := a.serveTLS(t, ca.issue("a", soon(), "wherry-peer"))
	got, err := connect(t, url, ca.issue("b", soon(), "wherry-peer")).TemplateContent(t.Context(), client.ContentRequest{
		ID: aDigest, Received: func(n int64) { received.Add(n) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	head := make([]byte, len(want))
	if _, err := io.ReadFull(got, head); err != nil || !bytes.Equal(head, want) {
		t.Errorf("other bytes, %v", err)
	}
	zeros := 0
	rest, err := io.Copy(writerFn(func(p []byte) (int, error) { zeros += bytes.Count(p, []byte{0}); return len(p), nil }), got)
	if err != nil || rest != size-1<<20 || int64(zeros) != rest {
		t.Errorf("%d bytes follow, %d of them zero, %v", rest, zeros, err)
	}
	// Two runs of 100 kB, rounded up to what the file system allocates.
	if n := received.Load(); n < 200_000 || n > 400_000 || n != sent.Load() {
		t.Errorf("%d bytes sent and %d received for 200 kB of data", sent.Load(), n)
	}
}

type writerFn func([]byte) (int, error)

func (f writerFn) Write(p []byte) (int, error) { return f(p) }

func TestMalformedContentRequests(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	for _, row := range []struct {
		name, id string
		header   []string
		field    string
	}{
		{"another version", "rocky9", []string{"Wherry-Extents", "1"}, "Wherry-Extents"},
		{"offset into plain bytes", "rocky9", []string{"Wherry-Offset", "1"}, "Wherry-Offset"},
		{"negative offset", "rocky9", []string{"Wherry-Extents", "2", "Wherry-Offset", "-1"}, "Wherry-Offset"},
		{"no number", "rocky9", []string{"Wherry-Extents", "2", "Wherry-Offset", "1k"}, "Wherry-Offset"},
		{"half a digest", "sha256:abcd", nil, "id"},
		{"digest of another kind", "sha512:" + strings.Repeat("ab", 64), nil, "id"},
		{"folder", "..", nil, "id"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := a.raw(t, "GET", "/v1/templates/"+url.PathEscape(row.id)+"/content", "", row.header...)
			if p := got.problem(t); got.StatusCode != http.StatusBadRequest || len(p.Fields) != 1 || p.Fields[0].Field != row.field {
				t.Errorf("answered %s: %+v", got.Status, p)
			}
		})
	}
}

// TestShutdownCutsContent ends the server under a stream: the reader learns
// that it has not got everything.
func TestShutdownCutsContent(t *testing.T) {
	for _, form := range []string{"plain", "extents"} {
		t.Run(form, func(t *testing.T) {
			a := newAgent(t)
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 64<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			a.offers(path)
			a.serve(t, wherry.Listeners{})
			// Not held against the contract: that would read it all.
			c, err := client.New("unix:"+a.socket, client.TLS{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			var body io.ReadCloser
			if form == "extents" {
				content, err := c.TemplateContent(t.Context(), client.ContentRequest{ID: "rocky9"})
				if err != nil {
					t.Fatal(err)
				}
				body = content
			} else {
				body = a.plain(t)
			}
			defer func() { _ = body.Close() }()
			_, err = io.Copy(io.NewOffsetWriter(stopper{t, a}, 0), body)
			if err == nil {
				t.Error("a cut stream looks whole")
			}
		})
	}
}

// stopper begins to stop the agent at the first byte.
type stopper struct {
	t *testing.T
	a *agent
}

func (s stopper) WriteAt(p []byte, at int64) (int, error) {
	if at == 0 {
		go s.a.stop(s.t)
		// The socket is gone once the shutdown has begun.
		for {
			conn, err := net.Dial("unix", s.a.socket)
			if err != nil {
				break
			}
			_ = conn.Close()
		}
	}
	return len(p), nil
}

// plain begins to read a content as any HTTP client would.
func (a *agent) plain(t *testing.T) io.ReadCloser {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", a.socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://localhost/v1/templates/rocky9/content", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Body
}

// Why there is no content, in the words of the agent; and by its code alone,
// where only an offer was asked for.
func TestNoContent(t *testing.T) {
	a := newAgent(t)
	var why error
	a.templates.OpenFn = func(context.Context, string) (*os.File, api.Template, error) { return nil, api.Template{}, why }
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	for _, code := range []string{"not-found", "not-ready", "overloaded"} {
		p := api.NewProblem(code, "because of rocky9")
		if code == "overloaded" {
			p.RetryAfter = 7 * time.Second
		}
		why = p
		_, err := c.TemplateContent(t.Context(), client.ContentRequest{ID: "rocky9"})
		if got := api.AsProblem(err); got.Code != code || got.Detail != p.Detail || got.RetryAfter != p.RetryAfter {
			t.Errorf("content: %+v, not %+v", got, p)
		}
		_, err = c.TemplateOffer(t.Context(), "rocky9")
		if got := api.AsProblem(err); got.Code != code || got.RetryAfter != p.RetryAfter {
			t.Errorf("offer: %+v, not %+v", got, p)
		}
	}
}
