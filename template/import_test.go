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
