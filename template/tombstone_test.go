package template_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// inUse has template rocky9 removed while a volume stands on it.
func (h *host) inUse(s template.Spec) template.Copy {
	h.t.Helper()
	_, c := h.ready(s)
	must(h.t, h.AddRef(h.t.Context(), "rocky9", ref("/pool/x")))
	must(h.t, errOf(h.Remove(h.t.Context(), "rocky9")))
	return c
}

// unusable wants that nobody gets the removed template for something new.
func (h *host) unusable() {
	h.t.Helper()
	t, err := h.Get("rocky9")
	must(h.t, err)
	if !t.Removed() {
		h.t.Error("the template is back")
	}
	_, _, err = h.Usable("rocky9")
	wantErr(h.t, err, template.ErrNotFound)
	_, _, err = h.OpenContent("rocky9")
	wantErr(h.t, err, template.ErrNotFound)
	wantErr(h.t, h.Fetch(h.t.Context(), "rocky9", nil), template.ErrNotFound)
}

// A removed template's copy that volumes stand on is brought again for them,
// also across a restart, and for nobody else.
func TestLostCopyOfATombstone(t *testing.T) {
	for name, restart := range map[string]bool{"at once": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, content := newTended(t), raw(1, 4096)
				_, c := h.serve(content)
				must(t, h.AddRef(t.Context(), "rocky9", ref("/pool/x")))
				must(t, errOf(h.Remove(t.Context(), "rocky9")))
				must(t, os.Remove(c.Path))
				if restart {
					h.reopen()
				}
				h.Check(t.Context())
				if _, lost := h.copyOf("rocky9"); lost.State != template.StateMissing || lost.RetryAt == nil || strings.Contains(lost.Message, "register") {
					t.Fatalf("copy %+v", lost)
				}
				h.unusable()
				running(t, h.host)
				synctest.Wait()
				_, now := h.copyOf("rocky9")
				if b, err := os.ReadFile(c.Path); err != nil || !bytes.Equal(b, content) || now.State != template.StateReady {
					t.Errorf("copy %+v, %v", now, err)
				}
				h.unusable()
				// With the last volume it goes, as it would have.
				must(t, h.RemoveRef(t.Context(), "/pool/x"))
				if got, err := h.Get("rocky9"); err != nil || len(got.Copies) != 0 || there(c.Path) {
					t.Errorf("tombstone %+v, %v", got, err)
				}
			})
		})
	}
}

// Of one that no recorded volume stands on nothing is brought, but who looks is
// to know.
func TestLostCopyOfAnUnusedTombstone(t *testing.T) {
	h, content := newCollected(t), raw(1, 4096)
	_, c := h.ready(spec("rocky9", serveBytes(t, content).URL, content))
	h.stands(c.Path) // a volume that the store does not know
	must(t, errOf(h.Remove(t.Context(), "rocky9")))
	must(t, os.Remove(c.Path))
	h.Check(t.Context())
	for range 2 {
		if _, lost := h.copyOf("rocky9"); lost.State != template.StateMissing || lost.RetryAt != nil || !strings.Contains(lost.Message, "register it anew") {
			t.Errorf("copy %+v", lost)
		}
		h.reopen()
	}
	must(t, errOf(h.Register(t.Context(), spec("rocky9", serveBytes(t, content).URL, content))))
	must(t, h.Fetch(t.Context(), "rocky9", nil))
}

// guarded is a fetcher that needs a header.
type guarded struct{ links }

func (g guarded) Resolve(ctx context.Context, r source.Request) (source.Resolved, error) {
	if r.Headers["Authorization"] == "" {
		return source.Resolved{}, fault.New(fault.HTTPStatus, "401 Unauthorized")
	}
	return g.links.Resolve(ctx, r)
}

// The headers went with the template: what needs them is not brought from its
// URL any more, which is said, but from whoever has the same bytes.
func TestLostCopyWithoutItsHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, content := newHost(t), raw(1, 4096)
		h.change = func(o *template.Options) {
			o.Fetcher = guarded{links{"https://images.example/rocky9": memory{name: "https://images.example/rocky9", b: content}}}
		}
		h.reopen()
		peer := newFlaky(content)
		h.peers = []source.Origin{peer}
		s := specOf("rocky9", content)
		s.Headers = map[string]string{"Authorization": "secret"}
		must(t, os.Remove(h.inUse(s).Path))
		running(t, h)
		h.Check(t.Context())
		synctest.Wait()
		_, failed := h.copyOf("rocky9")
		if failed.State != template.StateFailed || failed.RetryAt == nil || !strings.Contains(failed.Message, "401") || !strings.Contains(failed.Message, "register it anew") {
			t.Errorf("copy %+v", failed)
		}
		peer.well.Store(true)
		pass(time.Minute)
		if _, now := h.copyOf("rocky9"); now.State != template.StateReady || now.Message != "" || !there(now.Path) {
			t.Errorf("copy %+v", now)
		}
		h.unusable()
	})
}

// A template that is removed while its lost copy is on its way is brought all
// the same, for those that stand on it. Being removed again changes nothing.
func TestRemovedUnderway(t *testing.T) {
	h, content := newHost(t), raw(1, 1<<20)
	s := newHalves(t, content, 0)
	_, c := h.ready(spec("rocky9", s.URL, content))
	must(t, h.AddRef(t.Context(), "rocky9", ref("/pool/x")))
	must(t, os.Remove(c.Path))
	u := newUntil(t)
	h.change = func(o *template.Options) { o.Notify = u.notify }
	s.become(func() {})
	s.part = 1 << 10
	h.reopen()
	running(t, h)
	<-s.sent
	s.become(func() {})
	must(t, errOf(h.Remove(t.Context(), "rocky9")))
	must(t, errOf(h.Remove(t.Context(), "rocky9")))
	if now := u.state(template.StateReady); !there(now.Path) {
		t.Errorf("copy %+v", now)
	}
	h.unusable()
	if diff := cmp.Diff([]string{published(content, "raw")}, h.inPool()); diff != "" {
		t.Error(diff)
	}
}

// The last volume goes while the copy is on its way: nothing of it stays.
func TestUnusedUnderway(t *testing.T) {
	h, content := newHost(t), raw(1, 1<<20)
	s := newHalves(t, content, 0)
	c := h.inUse(spec("rocky9", s.URL, content))
	must(t, os.Remove(c.Path))
	s.become(func() {})
	s.part = 1 << 10
	h.reopen()
	ran := running(t, h)
	<-s.sent
	must(t, h.RemoveRef(t.Context(), "/pool/x"))
	ran()
	must(t, h.Collect(t.Context()))
	if got, err := h.Get("rocky9"); err != nil || len(got.Copies) != 0 || len(h.inPool()) != 0 {
		t.Errorf("tombstone %+v, %v, left %v", got, err, h.inPool())
	}
}
