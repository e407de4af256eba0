package templates_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
)

// stage is what a source asks for.
func stage(r *api.Template) api.StageLayer {
	return api.StageLayer{Template: "rocky9", Pool: "default", SyncFrom: "https://a:8470", Record: r,
		Layer: api.Layer{Path: "/at/a", Format: "raw", Digest: sum(image)}}
}

// A template that a linked clone needs is brought from the source, from
// another peer where that does not help, and from its URL where none does.
func TestStage(t *testing.T) {
	lies := func() *fakePeer { return &fakePeer{offer: theirs, served: []byte("the bytes of a virus!")} }
	short := func() *fakePeer { return &fakePeer{offer: theirs, served: image[:5]} }
	packed := &api.Template{URL: "https://images.example.org/rocky9.gz", Checksum: sum([]byte("packed")), DirectDownload: true}
	for _, row := range []struct {
		name   string
		source *fakePeer
		other  *fakePeer
		url    bool
		record *api.Template
		origin string
		words  []string // of the failure, where it fails
	}{
		{name: "from the source", source: has(), other: has(), origin: "peer https://a:8470"},
		{name: "packed at its URL", source: has(), record: packed, origin: "peer https://a:8470"},
		{name: "the source does not answer", source: has(refused), other: has(), origin: "peer https://b:8470"},
		{name: "the source lies", source: lies(), other: has(), origin: "peer https://b:8470"},
		{name: "the source has less", source: short(), other: has(), origin: "peer https://b:8470"},
		{name: "no peer has it", source: has(absent), other: has(absent), url: true, origin: "file:///"},
		{name: "nobody helps", source: lies(), other: has(absent), words: []string{
			"peer https://a:8470: ", sum(image), sum([]byte("the bytes of a virus!")), `peer https://b:8470: has no template "rocky9"`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			hosts := map[string]*fakePeer{"https://a:8470": row.source}
			if row.other != nil {
				hosts["https://b:8470"], w.Peers.Known = row.other, []string{"https://b:8470"}
			}
			w.Peers.Dial = fleet(hosts).Dial
			record := row.record
			if row.url {
				path := filepath.Join(w.files, "rocky9")
				must(t, os.WriteFile(path, image, 0o600))
				record = &api.Template{URL: "file://" + path, Checksum: sum(image)}
			}
			path, err := w.Stage(t.Context(), stage(record), nil)
			got, getErr := w.Get(t.Context(), "rocky9")
			must(t, getErr)
			c := got.Copies[0]
			if row.words != nil {
				for _, word := range append(row.words, "") {
					if err == nil || !strings.Contains(c.Message, word) {
						t.Errorf("%v, message %q; want %q in it", err, c.Message, word)
					}
				}
				if c.State != api.CopyFailed || c.Class != "source" || c.RetryAt == nil {
					t.Errorf("copy %+v", c)
				}
				if left, err := os.ReadDir(w.pool); err != nil || len(left) != 0 {
					t.Errorf("left in the pool: %v, %v", left, err)
				}
				return
			}
			must(t, err)
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, image) {
				t.Errorf("copy %q, %v", b, err)
			}
			if !strings.HasPrefix(c.Origin, row.origin) || c.State != api.CopyReady || got.Digest != sum(image) {
				t.Errorf("copy %+v", c)
			}
			if direct, known := w.Direct("rocky9"); direct != (record != nil && record.DirectDownload) || !known {
				t.Errorf("direct %v, known %v; the flag goes with the template", direct, known)
			}
		})
	}
}

// The same bytes are here already, under whatever name: nobody is asked.
func TestStageWhatIsHere(t *testing.T) {
	w := newWorld(t)
	path := w.ready("ours", image).Copies[0].Path
	w.Peers.Dial = func(url string) (templates.Peer, error) { t.Errorf("dialled %s", url); return nil, errors.New("no") }
	if at, err := w.Stage(t.Context(), stage(nil), nil); err != nil || at != path {
		t.Errorf("%s, %v", at, err)
	}
}

// The copy here was lost, and its template is known by another checksum than
// at the source: the digest is what counts.
func TestStageWhatWasHere(t *testing.T) {
	w := newWorld(t)
	path := w.ready("rocky9", image).Copies[0].Path
	must(t, os.Remove(path))
	must(t, os.Remove(filepath.Join(w.files, "rocky9")))
	w.Peers.Dial = func(string) (templates.Peer, error) { return has(), nil }
	l := stage(&api.Template{URL: "https://images.example.org/rocky9", Checksum: "sha512:" + strings.Repeat("ab", 64), DirectDownload: true})
	if at, err := w.Stage(t.Context(), l, nil); err != nil || at != path {
		t.Errorf("%s, %v", at, err)
	}
}

// Nothing is taken for the template that is not.
func TestStageAConflict(t *testing.T) {
	w := newWorld(t)
	w.ready("rocky9", []byte("another image of that name"))
	w.Peers.Dial = func(string) (templates.Peer, error) { return has(), nil }
	if _, err := w.Stage(t.Context(), stage(nil), nil); api.CodeOf(err) != "conflict" {
		t.Errorf("staged with %v", err)
	}
}
