package templates_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

// A scrub ends well where the bytes are what they were, and otherwise names
// the file and leaves the copy to be brought again.
func TestScrub(t *testing.T) {
	w := newWorld(t)
	path := w.ready("rocky9", []byte("content")).Copies[0].Path
	op := w.ended(w.Scrub(t.Context(), "rocky9", api.Idempotency{}))
	if op.Kind != "template-scrub" || op.Status != api.StatusSucceeded || op.Progress.BytesDone != 7 {
		t.Errorf("operation %+v", op)
	}
	must(t, os.Chmod(path, 0o644))
	must(t, os.WriteFile(path, []byte("CONTENT"), 0o600))
	op = w.ended(w.Scrub(t.Context(), "rocky9", api.Idempotency{}))
	if op.Status != api.StatusFailed || op.Error.Code != "template-failed" || op.Error.Phase != "scrub" || !strings.Contains(op.Error.Detail, path) {
		t.Errorf("operation %s, %+v", op.Status, op.Error)
	}
	got, err := w.Get(t.Context(), "rocky9")
	must(t, err)
	if c := got.Copies[0]; c.State != template.StateFailed || c.Code != "changed" || c.Class != "local" || c.RetryAt == nil || c.FailedSince == nil || !strings.Contains(c.Message, path) {
		t.Errorf("copy %+v", c)
	}
	if op = w.ended(w.Scrub(t.Context(), "rocky9", api.Idempotency{})); op.Error == nil || op.Error.Code != "not-ready" {
		t.Errorf("of a copy that is not ready: %+v", op.Error)
	}
	if _, err := w.Scrub(t.Context(), "none", api.Idempotency{}); api.CodeOf(err) != "not-found" {
		t.Errorf("error %v", err)
	}
}

// What may become of files in a pool is shown with the templates.
func TestUnownedFilesAreListed(t *testing.T) {
	w := newWorld(t)
	w.ready("rocky9", []byte("content"))
	stray := w.pool + "/.wherry-template-X.partial"
	must(t, os.Mkdir(stray, 0o700))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Registry.Tend(ctx) // looks once
	list, err := w.List(t.Context())
	must(t, err)
	if len(list.Unowned) != 1 || list.Unowned[0].Path != stray || list.Unowned[0].Kind != "partial" || list.Unowned[0].Pool != "default" {
		t.Errorf("unowned %+v", list.Unowned)
	}
	if list.Templates[0].Copies[0].Allocated == 0 {
		t.Errorf("copy %+v", list.Templates[0].Copies[0])
	}
}
