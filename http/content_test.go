package http_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/http/extents"
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

func (a *agent) offers(path string) {
	a.templates.OpenFn = func(context.Context, string) (*os.File, api.Template, error) {
		f, err := os.Open(path)
		return f, aTemplate, err
	}
}

func TestTemplateContent(t *testing.T) {
	a := newAgent(t)
	path, want := sparse(t, 8<<20)
	a.offers(path)
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	for _, row := range []struct {
		name           string
		offset         int64
		digest         string
		begins, length int64
	}{
		{"whole", 0, "", 0, 8 << 20},
		{"resumed", 5 << 20, aDigest, 5 << 20, 3 << 20},
		{"resumed, digest unknown", 5 << 20, "", 5 << 20, 3 << 20},
		{"resumed, another image by now", 5 << 20, "sha256:other", 0, 8 << 20},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := c.TemplateContent(t.Context(), "rocky9", row.offset, row.digest)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = got.Body.Close() }()
			b, err := io.ReadAll(got.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got.Offset != row.begins || got.Length != row.length || got.Digest != aDigest {
				t.Errorf("from %d, %d bytes, digest %q", got.Offset, got.Length, got.Digest)
			}
			if !bytes.Equal(b, want[row.begins:]) {
				t.Error("other bytes")
			}
		})
	}
}

func TestRangeOutsideTheContent(t *testing.T) {
	a := newAgent(t)
	path, _ := sparse(t, 1<<20)
	a.offers(path)
	a.serve(t, wherry.Listeners{})
	_, err := a.client(t).TemplateContent(t.Context(), "rocky9", 1<<20, "")
	p, ok := errors.AsType[*api.Problem](err)
	if !ok || p.Code != "bad-range" || p.Status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("got %v", err)
	}
}

// TestTemplateExtents copies an image that is nearly all hole: its bytes
// arrive, its holes too, and the wire carries the data alone.
func TestTemplateExtents(t *testing.T) {
	a := newAgent(t)
	const size = 1 << 30
	path := filepath.Join(t.TempDir(), "image")
	small, want := sparse(t, 1<<20)
	if err := os.Rename(small, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	a.offers(path)
	a.serve(t, wherry.Listeners{})
	copied, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = copied.Close() }()
	counted := &counter{w: copied}
	n, digest, err := a.client(t).TemplateExtents(t.Context(), "rocky9", counted, size)
	if err != nil || n != size || digest != aDigest {
		t.Fatalf("size %d, digest %q, %v", n, digest, err)
	}
	if err := copied.Truncate(n); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, len(want))
	if _, err := copied.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(head, want) {
		t.Error("other bytes")
	}
	if counted.n > 2<<20 {
		t.Errorf("%d bytes crossed for 200 kB of data", counted.n)
	}
}

type counter struct {
	w io.WriterAt
	n int64
}

func (c *counter) WriteAt(p []byte, at int64) (int, error) {
	c.n += int64(len(p))
	return c.w.WriteAt(p, at)
}

func TestExtentsOverTheLimit(t *testing.T) {
	a := newAgent(t)
	path, _ := sparse(t, 2<<20)
	a.offers(path)
	a.serve(t, wherry.Listeners{})
	nothing := &counter{}
	if _, _, err := a.client(t).TemplateExtents(t.Context(), "rocky9", nothing, 2<<20-1); !errors.Is(err, extents.ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownExtentsVersion(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	if got := a.raw(t, "GET", "/v1/templates/rocky9/content", "", extents.Header, "2"); got.StatusCode != http.StatusBadRequest {
		t.Errorf("answered %s", got.Status)
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
			if form == "extents" {
				_, _, err = c.TemplateExtents(t.Context(), "rocky9", stopper{t, a}, 64<<20)
			} else {
				content, err2 := c.TemplateContent(t.Context(), "rocky9", 0, "")
				if err2 != nil {
					t.Fatal(err2)
				}
				defer func() { _ = content.Body.Close() }()
				_, err = io.Copy(io.NewOffsetWriter(stopper{t, a}, 0), content.Body)
			}
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

func TestContentOfAnUnknownTemplate(t *testing.T) {
	a := newAgent(t)
	a.templates.OpenFn = func(context.Context, string) (*os.File, api.Template, error) {
		return nil, api.Template{}, api.NewProblem("not-found", "no template %q", "rocky9")
	}
	a.serve(t, wherry.Listeners{})
	if _, err := a.client(t).TemplateContent(t.Context(), "rocky9", 0, ""); api.CodeOf(err) != "not-found" {
		t.Errorf("got %v", err)
	}
}
