package template_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/wherry-kvm/wherry/template"
)

// Who knows the bytes gets them from whatever copy has them, also one that a
// tombstone keeps for a volume; who knows the id gets no tombstone's.
func TestOpenDigest(t *testing.T) {
	content := raw(1, 4096)
	h := newHost(t)
	open := func(by func(string) (*os.File, template.Template, error), what string) (string, error) {
		file, got, err := by(what)
		if err != nil {
			return "", err
		}
		defer file.Close()
		b, err := io.ReadAll(file)
		must(t, err)
		if !bytes.Equal(b, content) {
			t.Errorf("%s: other bytes", what)
		}
		return got.ID, nil
	}
	if _, err := open(h.OpenDigest, sha(content)); !errors.Is(err, template.ErrNotFound) {
		t.Errorf("nothing is here: %v", err)
	}
	_, err := h.Register(t.Context(), spec("a", serveBytes(t, content).URL, content))
	must(t, err)
	if _, err := open(h.OpenDigest, sha(content)); !errors.Is(err, template.ErrNotReady) {
		t.Errorf("it is not ready: %v", err)
	}
	if _, err := open(h.OpenDigest, ""); !errors.Is(err, template.ErrNotFound) {
		t.Errorf("no digest: %v", err)
	}
	must(t, h.Fetch(t.Context(), "a", nil))
	_, c := h.copyOf("a")
	must(t, h.AddRef(t.Context(), "a", template.Ref{Instance: "vm", Volume: "/images/vm"}))
	for _, removed := range []bool{false, true} {
		if removed {
			_, err := h.Remove(t.Context(), "a")
			must(t, err)
			if _, err := open(h.OpenContent, "a"); !errors.Is(err, template.ErrNotFound) {
				t.Errorf("a tombstone by its id: %v", err)
			}
		}
		if id, err := open(h.OpenDigest, sha(content)); id != "a" || err != nil {
			t.Errorf("removed %v: %q, %v", removed, id, err)
		}
	}
	replace(t, c.Path, raw(2, 4096))
	if _, err := open(h.OpenDigest, sha(content)); err == nil {
		t.Error("opened what is not the template")
	}
}
