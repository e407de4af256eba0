package template_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/template"
)

func TestImport(t *testing.T) {
	h := newHost(t)
	content := raw(1, 1<<20)
	s := template.Spec{ID: "rocky9", Checksum: sha(content), Format: "raw", Pool: "other", DirectDownload: true}
	_, err := h.Import(t.Context(), s, opener(raw(2, 1<<20)), nil)
	wantErr(t, err, template.ErrChecksum)
	got, err := h.Import(t.Context(), s, opener(content), nil)
	must(t, err)
	c, ok := got.Ready("other")
	if !ok || filepath.Dir(c.Path) != h.other || !got.DirectDownload {
		t.Errorf("imported as %+v", got)
	}
	fails := errors.New("peer gone")
	_, err = h.Import(t.Context(), template.Spec{ID: "b", Checksum: sha5(content), Format: "raw"},
		func(context.Context) (template.Content, error) { return template.Content{}, fails }, nil)
	wantErr(t, err, fails)
	s.Checksum = sha([]byte("x"))
	_, err = h.Import(t.Context(), s, opener([]byte("x")), nil)
	wantErr(t, err, template.ErrConflict)
	_, err = h.Import(t.Context(), template.Spec{ID: "../x"}, opener(nil), nil)
	if _, ok := errors.AsType[template.FieldErrors](err); !ok {
		t.Errorf("bad spec: %v", err)
	}
}

// A reader that ignores its context must not hold up a cancel.
func TestImportIsCancelled(t *testing.T) {
	h := newHost(t)
	ctx, stop := context.WithCancel(t.Context())
	from, to := io.Pipe()
	defer func() { _ = to.Close() }()
	go func() {
		_, _ = to.Write(make([]byte, 1000))
		stop()
	}()
	_, err := h.Import(ctx, template.Spec{ID: "a", Checksum: sha(nil), Format: "raw"},
		func(context.Context) (template.Content, error) {
			return template.Content{ReadCloser: from, Size: -1}, nil
		}, nil)
	wantErr(t, err, context.Canceled)
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("left in the pool: %v", left)
	}
}
