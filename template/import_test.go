package template_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestImport(t *testing.T) {
	h := newHost(t)
	content := raw(1, 1<<20)
	s := template.Spec{ID: "rocky9", Checksum: sha(content), Format: "raw", Pool: "other", DirectDownload: true}
	h.peers = []source.Origin{memory{name: "peer b", b: raw(2, 1<<20)}}
	_, err := h.Import(t.Context(), s, nil)
	wantFault(t, err, fault.Checksum, fault.Source)
	h.peers = []source.Origin{memory{name: "peer b", b: content}}
	got, err := h.Import(t.Context(), s, nil)
	must(t, err)
	c, ok := got.Ready("other")
	if !ok || filepath.Dir(c.Path) != h.other || !got.DirectDownload || c.Origin != "peer b" {
		t.Errorf("imported as %+v", got)
	}
	fails := errors.New("peer gone")
	h.peers = []source.Origin{memory{name: "peer b", err: fails}}
	_, err = h.Import(t.Context(), template.Spec{ID: "b", Checksum: sha5(content), Format: "raw"}, nil)
	wantErr(t, err, fails)
	s.Checksum = sha([]byte("x"))
	_, err = h.Import(t.Context(), s, nil)
	wantErr(t, err, template.ErrConflict)
	_, err = h.Import(t.Context(), template.Spec{ID: "../x", Digest: "md5:1"}, nil)
	if bad, ok := errors.AsType[template.FieldErrors](err); !ok || len(bad) != 4 {
		t.Errorf("bad spec: %v", err)
	}
}

// pipe is an origin that gives what is written to it.
type pipe struct{ *io.PipeReader }

func (pipe) Name() string { return "pipe" }

func (p pipe) Open(ctx context.Context, _ source.At) (source.Stream, error) {
	context.AfterFunc(ctx, func() { _ = p.CloseWithError(context.Cause(ctx)) })
	return source.Stream{ReadCloser: p.PipeReader, Validator: source.Validator{Total: -1}}, nil
}

// A peer that brings nothing more does not hold up a cancel.
func TestImportIsCancelled(t *testing.T) {
	h := newHost(t)
	ctx, stop := context.WithCancel(t.Context())
	from, to := io.Pipe()
	defer func() { _ = to.Close() }()
	go func() {
		_, _ = to.Write(make([]byte, 1000))
		stop()
	}()
	h.peers = []source.Origin{pipe{from}}
	_, err := h.Import(ctx, template.Spec{ID: "a", Checksum: sha(nil), Format: "raw"}, nil)
	wantErr(t, err, context.Canceled)
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("left in the pool: %v", left)
	}
}

// cancelled imports s until its first bytes are here, and calls that off.
// meanwhile is done in between.
func (h *host) cancelled(s template.Spec, meanwhile func()) {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.t.Context())
	from, to := io.Pipe()
	defer func() { _ = to.Close() }()
	go func() {
		_, _ = to.Write(make([]byte, 1000))
		meanwhile()
		stop()
	}()
	h.peers = []source.Origin{pipe{from}}
	_, err := h.Import(ctx, s, nil)
	wantErr(h.t, err, context.Canceled)
}

// Whoever asks for bytes and takes that back leaves this host as it was.
func TestCancelledImportIsForgotten(t *testing.T) {
	content := raw(1, 1<<20)
	s := template.Spec{ID: "a", Checksum: sha(content), Format: "raw"}
	registered := s
	registered.URL = "https://images.example.org/a"
	for name, c := range map[string]struct {
		before, meanwhile func(h *host)
		known             bool // after it
		removed           bool
	}{
		"nobody knew it": {},
		"it was registered": {known: true, before: func(h *host) {
			_, err := h.Register(h.t.Context(), registered)
			must(h.t, err)
		}},
		"somebody registers it meanwhile": {known: true, meanwhile: func(h *host) {
			if _, err := h.Register(h.t.Context(), registered); err != nil {
				h.t.Error(err)
			}
		}},
		"it was removed": {known: true, removed: true, before: func(h *host) {
			_, err := h.Register(h.t.Context(), registered)
			must(h.t, err)
			_, err = h.Remove(h.t.Context(), "a")
			must(h.t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if c.before != nil {
				c.before(h)
			}
			h.cancelled(s, func() {
				if c.meanwhile != nil {
					c.meanwhile(h)
				}
			})
			for range 2 {
				got, known := h.Lookup("a")
				if known != c.known || got.Removed() != c.removed {
					t.Errorf("after it: known %v, removed %v; want %v, %v", known, got.Removed(), c.known, c.removed)
				}
				h.reopen()
			}
			h.peers = []source.Origin{memory{name: "peer b", b: content}}
			_, err := h.Import(t.Context(), s, nil)
			must(t, err)
		})
	}
}

// What failed by itself stays, to be tried again.
func TestFailedImportStays(t *testing.T) {
	h := newHost(t)
	h.peers = []source.Origin{memory{name: "peer b", err: errors.New("peer gone")}}
	_, err := h.Import(t.Context(), template.Spec{ID: "a", Checksum: sha(nil), Format: "raw"}, nil)
	if _, known := h.Lookup("a"); err == nil || !known {
		t.Errorf("%v, known %v; want a failure that is shown", err, known)
	}
}
