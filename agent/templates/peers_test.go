package templates_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// fakePeer offers one content, under its digest and under any id.
type fakePeer struct {
	offer  templates.Offer
	served []byte
	// What it answers with in place of the content; each call takes one, the
	// last one stays.
	errs []error
	// noDigest: it knows its content by id alone.
	noDigest bool

	mu    sync.Mutex
	asked []string
}

func (p *fakePeer) answer(what, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, what+" "+id)
	if strings.HasPrefix(id, "sha256:") && (p.noDigest || id != p.offer.Digest) {
		return api.NewProblem("not-found", "no template here has the digest %s", id)
	}
	if len(p.errs) == 0 {
		return nil
	}
	err := p.errs[0]
	if len(p.errs) > 1 {
		p.errs = p.errs[1:]
	}
	return err
}

func (p *fakePeer) Offer(_ context.Context, id string) (templates.Offer, error) {
	return p.offer, p.answer("offer", id)
}

func (p *fakePeer) Content(_ context.Context, id string, offset int64, digest string) (templates.Content, error) {
	if err := p.answer(fmt.Sprintf("content from %d of", offset), id); err != nil {
		return templates.Content{}, err
	}
	if digest != "" && digest != p.offer.Digest {
		offset = 0
	}
	return templates.Content{ReadCloser: io.NopCloser(bytes.NewReader(p.served[offset:])), Offer: p.offer, Offset: offset}, nil
}

var (
	image   = []byte("the bytes of an image")
	ours    = template.Template{ID: "rocky9", Format: "raw", Checksum: sum(image), Digest: sum(image), Size: int64(len(image))}
	theirs  = templates.Offer{Digest: sum(image), Format: "raw", Checksum: sum(image), Size: int64(len(image))}
	busy    = api.NewProblem("overloaded", "this host sends 3 templates already")
	absent  = api.NewProblem("not-found", `no template "rocky9"`)
	refused = api.NewProblem("peer-unreachable", "%w", &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
)

// sameList takes no list and an empty one for the same.
var sameList = cmpopts.EquateEmpty()

func init() { busy.RetryAfter = 5 * time.Second }

func has(errs ...error) *fakePeer { return &fakePeer{offer: theirs, served: image, errs: errs} }

// fleet dials fakes by their names.
func fleet(hosts map[string]*fakePeer, known ...string) *templates.Peers {
	return &templates.Peers{Self: "https://self:8470", Known: known, Dial: func(url string) (templates.Peer, error) {
		if p := hosts[url]; p != nil {
			return p, nil
		}
		return nil, fmt.Errorf("this agent has no certificate for peers")
	}}
}

func names(origins []source.Origin) []string {
	out := []string{}
	for _, o := range origins {
		out = append(out, strings.TrimPrefix(o.Name(), "peer "))
	}
	return out
}

// In which order the others are asked, and who is not.
func TestOrderOfPeers(t *testing.T) {
	other := has()
	other.offer.Size++
	all := map[string]*fakePeer{
		"https://b": has(), "https://c": has(), "https://busy": has(busy), "https://absent": has(absent),
		"https://down": has(refused), "https://other": other, "https://self": has(), "https://SELF:8470/": has(),
	}
	for _, row := range []struct {
		name     string
		syncFrom string
		known    []string
		want     []string
	}{
		{"nobody", "", nil, []string{}},
		{"the configuration's order", "", []string{"https://b", "https://c"}, []string{"https://b", "https://c"}},
		{"sync_from first", "https://c", []string{"https://b", "https://c"}, []string{"https://c", "https://b"}},
		{"twice the same", "https://c:8470", []string{"https://C", "https://b"}, []string{"https://c:8470", "https://b"}},
		{"not this host", "https://self", []string{"https://SELF:8470/", "https://b"}, []string{"https://b"}},
		{"those that can first", "https://busy", []string{"https://absent", "https://b", "https://down", "https://other", "https://c"},
			[]string{"https://b", "https://c", "https://busy", "https://absent", "https://down", "https://other"}},
		{"nobody to speak to", "https://nowhere", []string{"https://b"}, []string{"https://b", "https://nowhere"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			all["https://c:8470"] = all["https://c"]
			o := ours
			o.SyncFrom = row.syncFrom
			if d := cmp.Diff(row.want, names(fleet(all, row.known...).Origins(t.Context(), o))); d != "" {
				t.Error(d)
			}
		})
	}
}

// What a peer says, and what becomes of it.
func TestOpenAPeer(t *testing.T) {
	packed := sum([]byte("packed"))
	unknown := template.Template{ID: "rocky9", Format: "raw", Checksum: packed, Digest: packed} // as registered: packed or not
	byID := templates.Offer{Digest: sum(image), Format: "raw", Checksum: packed, Size: int64(len(image))}
	for _, row := range []struct {
		name  string
		url   string
		ours  template.Template
		peer  *fakePeer
		asked string // last
		code  string // "" for success
		words string
	}{
		{"by digest", "https://b", ours, has(), "content from 0 of " + sum(image), "", ""},
		{"by id, where the digest is not known yet", "https://b", unknown, &fakePeer{offer: byID, served: image}, "content from 0 of rocky9", "", ""},
		{"by digest, over plain http", "http://b", ours, has(), "content from 0 of " + sum(image), "", ""},
		{"a word that nobody proves", "http://b", unknown, &fakePeer{offer: byID, served: image}, "content from 0 of " + packed, "peer", "no template here"},
		{"another checksum under the id", "https://b", unknown, &fakePeer{offer: theirs, served: image}, "content from 0 of rocky9", "peer", packed},
		{"another format", "https://b", unknown, &fakePeer{offer: templates.Offer{Digest: sum(image), Format: "qcow2", Checksum: packed}, served: image},
			"content from 0 of rocky9", "peer", `"qcow2", here it is "raw"`},
		{"other bytes than we had", "https://b", ours, &fakePeer{offer: templates.Offer{Digest: packed, Format: "raw", Checksum: sum(image), Size: 21}, served: image},
			"content from 0 of rocky9", "peer", packed + " under this id, here it is " + sum(image)},
		{"another size", "https://b", ours, &fakePeer{offer: templates.Offer{Digest: sum(image), Format: "raw", Size: 5}, served: image},
			"content from 0 of " + sum(image), "peer", "offers 5 bytes, the template has 21"},
		{"no digest", "https://b", ours, &fakePeer{offer: templates.Offer{Size: 21}, served: image}, "content from 0 of rocky9", "peer", "without the digest"},
		{"has not got it", "https://b", ours, has(absent), "content from 0 of rocky9", "peer", `no template "rocky9"`},
		{"is not ready", "https://b", ours, has(api.NewProblem("not-ready", "template %q: copy is failed", "rocky9")), "content from 0 of " + sum(image), "peer", "copy is failed"},
		{"refuses", "https://b", ours, has(refused), "content from 0 of " + sum(image), "connection-refused", "refused"},
		{"nobody to speak to", "https://nowhere", ours, nil, "", "internal", "no certificate"},
	} {
		t.Run(row.name, func(t *testing.T) {
			all := fleet(map[string]*fakePeer{row.url: row.peer}, row.url).Origins(t.Context(), row.ours)
			if len(all) != 1 {
				t.Fatalf("origins %v", names(all))
			}
			got, err := all[0].Open(t.Context(), source.At{})
			if row.peer != nil {
				if last := row.peer.asked[len(row.peer.asked)-1]; last != row.asked {
					t.Errorf("asked for %q, not %q", last, row.asked)
				}
			}
			if row.code != "" {
				f, ok := errors.AsType[*fault.Fault](err)
				if !ok || f.Code != row.code || f.Permanent || !strings.Contains(fault.Message(err), row.words) {
					t.Fatalf("got %+v, not %s with %q", err, row.code, row.words)
				}
				return
			}
			must(t, err)
			b, err := io.ReadAll(got)
			must(t, errors.Join(err, got.Close()))
			want := source.Validator{ETag: `"` + sum(image) + `"`, Total: int64(len(image))}
			if !bytes.Equal(b, image) || got.Validator != want || got.Offset != 0 {
				t.Errorf("%q from %d, %+v", b, got.Offset, got.Validator)
			}
		})
	}
}

// What a peer was found to be a moment ago is not asked again; the next time it
// is asked anew.
func TestWhatAPeerWasFoundToBe(t *testing.T) {
	for _, row := range []struct {
		err         error
		code, words string
		asks        int
	}{
		{refused, fault.ConnectionRefused, "refused", 1},
		{absent, fault.Peer, `has no template "rocky9"`, 2}, // by the digest and by the id
	} {
		p := has(row.err)
		all := fleet(map[string]*fakePeer{"https://b": has(), "https://c": p}, "https://b", "https://c").Origins(t.Context(), ours)
		if all[1].Name() != "peer https://c" {
			t.Fatalf("order %v", names(all))
		}
		_, err := all[1].Open(t.Context(), source.At{})
		if f := fault.Of(err); f == nil || f.Code != row.code || !strings.Contains(fault.Message(err), row.words) {
			t.Errorf("got %v", err)
		}
		if len(p.asked) != row.asks {
			t.Errorf("asked %q", p.asked)
		}
		p.errs = nil
		got, err := all[1].Open(t.Context(), source.At{})
		must(t, err)
		must(t, got.Close())
	}
}

// waits counts what an origin waits for, without waiting.
func waits(p *templates.Peers) *[]time.Duration {
	all := &[]time.Duration{}
	p.After = func(d time.Duration) <-chan time.Time {
		*all = append(*all, d)
		ch := make(chan time.Time, 1)
		ch <- time.Time{}
		return ch
	}
	return all
}

// A peer that sends enough already is passed over for one that is free, waited
// for where none is, and not for ever.
func TestBusyPeers(t *testing.T) {
	now := time.Second
	for _, row := range []struct {
		name  string
		peers []*fakePeer // the first is opened
		at    source.At
		want  []time.Duration
		ok    bool
	}{
		{"alone", []*fakePeer{has(busy, busy, nil)}, source.At{}, []time.Duration{5 * now, 5 * now}, true},
		{"a free one follows", []*fakePeer{has(nil, busy), has()}, source.At{}, nil, false},
		{"a free one follows, but it was begun", []*fakePeer{has(nil, busy, nil), has()}, source.At{Offset: 3}, []time.Duration{5 * now}, true},
		{"no free one follows", []*fakePeer{has(nil, busy, nil), has(absent)}, source.At{}, []time.Duration{5 * now}, true},
		{"for ever", []*fakePeer{has(busy)}, source.At{}, slices.Repeat([]time.Duration{5 * now}, 12), false},
		{"does not say when", []*fakePeer{has(api.NewProblem("overloaded", "enough"), nil)}, source.At{}, []time.Duration{5 * now}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			hosts, known := map[string]*fakePeer{}, []string{}
			for i, p := range row.peers {
				url := fmt.Sprintf("https://%d", i)
				hosts[url], known = p, append(known, url)
			}
			p := fleet(hosts, known...)
			waited := waits(p)
			all := p.Origins(t.Context(), ours)
			if all[0].Name() != "peer https://0" {
				t.Fatalf("order %v", names(all))
			}
			got, err := all[0].Open(t.Context(), row.at)
			if d := cmp.Diff(row.want, *waited, sameList); d != "" {
				t.Errorf("waited: %s", d)
			}
			if row.ok {
				must(t, err)
				must(t, got.Close())
			} else if f := fault.Of(err); f == nil || f.Code != fault.Peer || !strings.Contains(f.Error(), "3 templates already") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Waiting for a peer ends with whoever waits.
func TestWaitingForAPeerIsCancelled(t *testing.T) {
	p := fleet(map[string]*fakePeer{"https://b": has(busy)}, "https://b")
	ctx, cancel := context.WithCancel(t.Context())
	p.After = func(time.Duration) <-chan time.Time { cancel(); return nil }
	if _, err := p.Origins(ctx, ours)[0].Open(ctx, source.At{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A stream goes on where it stopped, and starts over where the peer has other
// content by now.
func TestResumeFromAPeer(t *testing.T) {
	for _, row := range []struct {
		etag string
		want int64
	}{{`"` + sum(image) + `"`, 4}, {`"sha256:other"`, 0}, {"", 4}} {
		all := fleet(map[string]*fakePeer{"https://b": has()}, "https://b").Origins(t.Context(), ours)
		got, err := all[0].Open(t.Context(), source.At{Offset: 4, Validator: source.Validator{ETag: row.etag}})
		must(t, err)
		b, err := io.ReadAll(got)
		must(t, errors.Join(err, got.Close()))
		if got.Offset != row.want || !bytes.Equal(b, image[row.want:]) {
			t.Errorf("%s: %q from %d", row.etag, b, got.Offset)
		}
	}
}
