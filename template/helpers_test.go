package template_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/intake"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a registry with its surroundings, which outlive it.
type host struct {
	t        testing.TB
	store    template.Store
	pool     string // folder of pool "default"
	other    string // folder of pool "other"
	files    string // folder that file:// may read
	download *source.Download
	peers    []source.Origin
	change   func(*template.Options)
	*template.Registry
}

func newHost(t testing.TB) *host {
	h := &host{t: t, store: newStore(t), pool: t.TempDir(), other: t.TempDir(), files: t.TempDir()}
	h.download = source.NewDownload(source.Options{
		AllowAddress: func(netip.Addr) bool { return true },
		IdleTimeout:  10 * time.Second,
		Files:        []string{h.files},
	})
	h.change = func(*template.Options) {}
	h.reopen()
	return h
}

func (h *host) options() template.Options {
	o := template.Options{
		Stopping: errStop, Peers: func(context.Context, template.Template) []source.Origin { return h.peers },
		Store: h.store, Fetcher: h.download, Intake: intake.New(intake.Options{}), DefaultPool: "default",
		Pools: func(context.Context) ([]template.Pool, error) {
			return []template.Pool{{Name: "other", Path: h.other}, {Name: "default", Path: h.pool}}, nil
		},
	}
	h.change(&o)
	return o
}

// reopen is what a restart of the agent does.
func (h *host) reopen() {
	h.t.Helper()
	r, err := template.Open(h.options())
	must(h.t, err)
	h.Registry = r
}

// inPool lists the default pool's folder.
func (h *host) inPool() (names []string) {
	entries, err := os.ReadDir(h.pool)
	must(h.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// ready registers and fetches a template.
func (h *host) ready(s template.Spec) (template.Template, template.Copy) {
	h.t.Helper()
	_, err := h.Register(context.Background(), s)
	must(h.t, err)
	must(h.t, h.Fetch(context.Background(), s.ID, nil))
	return h.copyOf(s.ID)
}

func (h *host) copyOf(id string) (template.Template, template.Copy) {
	h.t.Helper()
	t, err := h.Get(id)
	must(h.t, err)
	if len(t.Copies) != 1 {
		h.t.Fatalf("template %q has copies %+v", id, t.Copies)
	}
	return t, t.Copies[0]
}

// raw makes an image of n bytes, with a hole in the middle.
func raw(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = src.Read(b[:n/4]) // never fails
	_, _ = src.Read(b[n-n/4:])
	return b
}

func sha(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// sums takes all that there are.
func sums(b []byte) *digest.Sums {
	s := digest.New("md5", "sha1", "sha256", "sha512")
	_, _ = s.Write(b) // never fails
	return s
}

func sha5(b []byte) string {
	s := sha512.Sum512(b)
	return "sha512:" + hex.EncodeToString(s[:])
}

func spec(id, url string, content []byte) template.Spec {
	return template.Spec{ID: id, URL: url, Checksum: sha(content), Format: "raw", DirectDownload: true}
}

func published(content []byte, format string) string {
	return "wherry-template-" + strings.TrimPrefix(sha(content), "sha256:") + "." + format
}

// site serves bytes by path and counts requests.
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

func serveBytes(t testing.TB, b []byte) *site {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
}

// send answers with bytes. That the client went away is for the client to say.
func send(w http.ResponseWriter, b []byte) { _, _ = w.Write(b) }

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// errStop is the cause of contexts that end because the agent stops.
var errStop = errors.New("the agent stops")

// memory is an origin with these bytes, or with an error.
type memory struct {
	name  string
	b     []byte
	err   error
	asked *atomic.Int32
}

func (m memory) Name() string { return m.name }

func (m memory) Open(_ context.Context, at source.At) (source.Stream, error) {
	if m.asked != nil {
		m.asked.Add(1)
	}
	if m.err != nil {
		return source.Stream{}, m.err
	}
	return source.Stream{
		ReadCloser: io.NopCloser(bytes.NewReader(m.b[at.Offset:])), Offset: at.Offset,
		Validator: source.Validator{ETag: strconv.Quote(sha(m.b)), Total: int64(len(m.b))},
	}, nil
}

// wantFault looks for a fault in an error, and gives it.
func wantFault(t testing.TB, err error, code string, class fault.Class, parts ...string) fault.Fault {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != code || f.Class != class {
		t.Fatalf("error %v is %+v, not %s (%s)", err, f, code, class)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
	return *f
}

// qemuImg runs qemu-img, which is needed: an image made by our own hand would
// prove little.
func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// qcow2 makes an image of 8 MiB with the given creation arguments.
func qcow2(t testing.TB, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.qcow2")
	qemuImg(t, slices.Concat([]string{"create", "-q", "-f", "qcow2"}, args, []string{path, "8M"})...)
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func wantErr(t testing.TB, err, want error, parts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v is not %q", err, want)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}
