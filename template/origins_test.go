package template_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// Who is asked, in which order, for a copy that never was and for one that was
// lost.
func TestOrderOfOrigins(t *testing.T) {
	content := raw(1, 4096)
	gone := errors.New("not there")
	for name, tt := range map[string]struct {
		lost       bool // the copy was ready before
		other      bool // another pool has it
		syncFrom   string
		noURL      bool
		peersFail  bool
		urlFails   int // with this status
		wantPeers  int32
		wantURL    int32
		wantOrigin string
	}{
		"first, from the URL":         {wantURL: 1, wantOrigin: "url"},
		"first, from a peer as asked": {syncFrom: "https://b:8470", wantPeers: 1, wantOrigin: "peer b"},
		"first, no peer has it":       {syncFrom: "https://b:8470", peersFail: true, wantPeers: 2, wantURL: 1, wantOrigin: "url"},
		"first, from peers only":      {syncFrom: "https://b:8470", noURL: true, wantPeers: 1, wantOrigin: "peer b"},
		"first, the URL fails":        {urlFails: 404, wantPeers: 1, wantURL: 1, wantOrigin: "peer b"},
		"lost, from a peer":           {lost: true, wantPeers: 1, wantOrigin: "peer b"},
		"lost, from the URL":          {lost: true, peersFail: true, wantPeers: 2, wantURL: 1, wantOrigin: "url"},
		"from another pool":           {other: true, wantOrigin: `pool "other"`},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			site := serveBytes(t, content)
			if tt.urlFails > 0 {
				site = serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(tt.urlFails) })
			}
			var asked atomic.Int32
			s := spec("a", site.URL, content)
			s.SyncFrom = tt.syncFrom
			if tt.noURL {
				s.URL = ""
			}
			if tt.lost {
				_, c := h.ready(s)
				must(t, os.Remove(c.Path))
				h.reopen()
				site.requests.Store(0)
			}
			if tt.other {
				s.Pool = "other"
				h.ready(s)
				s.Pool = "default"
				site.requests.Store(0)
			}
			b, c := memory{name: "peer b", b: content, asked: &asked}, memory{name: "peer c", b: content, asked: &asked}
			if tt.peersFail {
				b.err, c.err = gone, gone
			}
			h.peers = []source.Origin{b, c}
			must(t, errOf(h.Register(t.Context(), s)))
			must(t, h.Fetch(t.Context(), "a", nil))
			got, err := h.Get("a")
			must(t, err)
			on, ready := got.Ready("default")
			if tt.wantOrigin == "url" {
				tt.wantOrigin = site.URL
			}
			if !ready || on.Origin != tt.wantOrigin || asked.Load() != tt.wantPeers || site.requests.Load() != tt.wantURL {
				t.Errorf("copy %+v; %d asked of peers, %d of the site", on, asked.Load(), site.requests.Load())
			}
		})
	}
}

// When all fail, the copy names each with its cause, and it is not the peers
// who decide whether another attempt makes sense.
func TestEveryOriginIsNamed(t *testing.T) {
	content := raw(1, 4096)
	h := newHost(t)
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	must(t, os.Remove(c.Path))
	wrong := serveBytes(t, raw(2, 4096))
	s := spec("a", wrong.URL, content)
	must(t, errOf(h.Register(t.Context(), s)))
	h.reopen()
	h.peers = []source.Origin{
		memory{name: "peer b", err: fault.New(fault.Peer, "has it not")},
		memory{name: "peer c", b: raw(3, 4096)},
	}
	err := h.Fetch(t.Context(), "a", nil)
	f := wantFault(t, err, fault.Checksum, fault.Source, "peer b: has it not", "peer c: ", wrong.URL+": ", sha(content))
	if !f.Permanent {
		t.Error("the URL was asked in full, and will give nothing else")
	}
	h.peers = nil
	s.URL = ""
	must(t, errOf(h.Register(t.Context(), template.Spec{ID: "b", Checksum: sha(content), Format: "raw", SyncFrom: "https://peer:8470"})))
	wantFault(t, h.Fetch(t.Context(), "b", nil), fault.NoSource, fault.Source)
}

// Where the URL fails the first time, the peers may have it; who they are and
// why they do not help must not hide what is wrong with the URL.
func TestPeersWhereTheURLFails(t *testing.T) {
	content := raw(1, 4096)
	gone := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) })
	var asked atomic.Int32
	absent := memory{name: "peer b", asked: &asked, err: fault.New(fault.Peer, "has it not")}
	wrong := memory{name: "peer c", asked: &asked, b: raw(2, 4096)}
	for name, tt := range map[string]struct {
		s     template.Spec
		peers []source.Origin
		asked int32
		code  string
		class fault.Class
		words []string
	}{
		"none has it": {spec("a", gone.URL, content), []source.Origin{absent, wrong}, 2, fault.HTTPStatus, fault.Source,
			[]string{"404", "peers: ", "peer b: has it not", "peer c: ", sha(content)}},
		"the only one has it not": {spec("a", gone.URL, content), []source.Origin{absent}, 1, fault.HTTPStatus, fault.Source,
			[]string{"404", "peer b: has it not"}},
		"there are none": {spec("a", gone.URL, content), nil, 0, fault.HTTPStatus, fault.Source, []string{"404"}},
		"packed": {spec("a", gone.URL+"/a.gz", packedWith(t, content)), []source.Origin{memory{name: "peer b", asked: &asked, b: content}}, 0,
			fault.HTTPStatus, fault.Source, []string{"404", "peers: not asked", "packed", "sync_from"}},
		"refused by a rule": {spec("a", "gopher://images.example/a", content), []source.Origin{wrong}, 0, fault.Scheme, fault.Policy, []string{"gopher"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			asked.Store(0)
			h.peers = tt.peers
			must(t, errOf(h.Register(t.Context(), tt.s)))
			f := wantFault(t, h.Fetch(t.Context(), "a", nil), tt.code, tt.class, tt.words...)
			if f.Permanent || asked.Load() != tt.asked {
				t.Errorf("permanent %t, %d peers asked; want %d", f.Permanent, asked.Load(), tt.asked)
			}
		})
	}
	// Wrong bytes from the URL need not be those of a peer.
	h := newHost(t)
	h.peers = []source.Origin{memory{name: "peer b", b: content}}
	h.ready(spec("a", serveBytes(t, raw(2, 4096)).URL, content))
	if _, c := h.copyOf("a"); c.Origin != "peer b" {
		t.Errorf("from %q", c.Origin)
	}
}

func packedWith(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	must(t, errors.Join(err, z.Close()))
	return out.Bytes()
}

// The checksum is over what is served, the digest over the file.
func TestPacked(t *testing.T) {
	content := raw(1, 3<<20)
	zipped := packedWith(t, content)
	for _, name := range []string{"/image.raw.gz", "/image"} {
		h := newHost(t)
		var last [2]int64
		site := serveBytes(t, zipped)
		s := spec("a", site.URL+name, zipped)
		must(t, errOf(h.Register(t.Context(), s)))
		must(t, h.Fetch(t.Context(), "a", func(done, total int64) { last = [2]int64{done, total} }))
		got, c := h.copyOf("a")
		if got.Digest != sha(content) || got.Checksum != sha(zipped) || got.Size != 3<<20 || last != [2]int64{int64(len(zipped)), int64(len(zipped))} {
			t.Errorf("%s: %+v, progress %v", name, got, last)
		}
		back, err := os.ReadFile(c.Path)
		must(t, err)
		if !bytes.Equal(back, content) {
			t.Errorf("%s: content differs", name)
		}
		// A peer has the file, and no archive.
		must(t, os.Remove(c.Path))
		h.reopen()
		h.peers = []source.Origin{memory{name: "peer b", b: content}}
		must(t, h.Fetch(t.Context(), "a", nil))
		if _, c := h.copyOf("a"); c.Origin != "peer b" {
			t.Errorf("%s: repaired from %q", name, c.Origin)
		}
	}
}

// Of a packed image that was never unpacked here, a peer vouches for the
// digest; one that does not is no use.
func TestPackedFromAPeerFirst(t *testing.T) {
	content := raw(1, 4096)
	zipped := packedWith(t, content)
	h := newHost(t)
	s := spec("a", serve(t, func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) }).URL+"/a.gz", zipped)
	s.SyncFrom = "https://peer:8470"
	must(t, errOf(h.Register(t.Context(), s)))
	h.peers = []source.Origin{silent{memory{name: "peer b", b: content}}}
	wantFault(t, h.Fetch(t.Context(), "a", nil), fault.HTTPStatus, fault.Source, "peer b: does not say which digest")
	h.peers = []source.Origin{memory{name: "peer b", b: content}}
	must(t, h.Fetch(t.Context(), "a", nil))
	if got, _ := h.copyOf("a"); got.Digest != sha(content) {
		t.Errorf("%+v", got)
	}
}

// Mirrors are tried one after the other, and the strongest hash counts too.
func TestMirrors(t *testing.T) {
	content := raw(1, 4096)
	down := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	up := serveBytes(t, content)
	for name, tt := range map[string]struct{ hash, code string }{
		"right hash": {hash: sha5(content)},
		"wrong hash": {hash: sha5(nil), code: fault.Checksum},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			meta := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, `<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="image.raw"><size>4096</size>`+
					`<hash type="sha-512">%s</hash><url priority="1">%s</url><url priority="2">%s</url></file></metalink>`,
					strings.TrimPrefix(tt.hash, "sha512:"), down.URL, up.URL)
			})
			must(t, errOf(h.Register(t.Context(), spec("a", meta.URL+"/image.raw.meta4", content))))
			err := h.Fetch(t.Context(), "a", nil)
			if tt.code != "" {
				wantFault(t, err, tt.code, fault.Source, down.URL, up.URL)
				return
			}
			must(t, err)
			if _, c := h.copyOf("a"); c.Origin != up.URL {
				t.Errorf("from %q", c.Origin)
			}
		})
	}
}

// silent says nothing of what its content is.
type silent struct{ memory }

func (s silent) Open(ctx context.Context, at source.At) (source.Stream, error) {
	st, err := s.memory.Open(ctx, at)
	st.Validator = source.Validator{Total: -1}
	return st, err
}

// All downloads together keep to the bandwidth; what comes from this host's
// own pools does not count.
func TestBandwidthIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := raw(1, 3<<20)
		h := newHost(t)
		h.change = func(o *template.Options) { o.Bandwidth = 1 << 20 }
		h.peers = []source.Origin{memory{name: "peer b", b: content}}
		h.reopen()
		began := time.Now()
		s := template.Spec{ID: "a", Checksum: sha(content), Format: "raw", SyncFrom: "https://peer:8470"}
		h.ready(s)
		// The first second's bytes are the limiter's burst.
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("3 MiB at 1 MiB/s in %s", took)
		}
		s.Pool = "other"
		must(t, errOf(h.Register(t.Context(), s)))
		must(t, h.Fetch(t.Context(), "a", nil))
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("with a copy of this host's in %s", took)
		}
	})
}
