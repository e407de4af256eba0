package templates_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

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

// A copy that was deleted as unused says so, is none that anything may be put
// on, and is brought within another operation.
func TestCollectedCopyIsBrought(t *testing.T) {
	w := newWorld(t)
	w.tending.Keep.UnusedAge = time.Hour
	w.start()
	path := w.ready("rocky9", []byte("content")).Copies[0].Path
	if _, ok := w.Collected("rocky9"); ok {
		t.Error("it is ready")
	}
	w.later = 48 * time.Hour
	must(t, w.Registry.Collect(t.Context()))
	got, err := w.Get(t.Context(), "rocky9")
	must(t, err)
	if c := got.Copies[0]; c.State != template.StatePending || c.Path != "" || c.RetryAt != nil || !strings.Contains(c.Message, "fetched again") {
		t.Errorf("copy %+v", c)
	}
	if _, _, err := w.Ready(t.Context(), "rocky9"); api.CodeOf(err) != "precondition" {
		t.Errorf("ready: %v", err)
	}
	ref := api.TemplateRef{Project: "default", Instance: "vm", Disk: "vda", Volume: "/images/vm.qcow2"}
	if err := w.PutRef(t.Context(), "rocky9", path, ref); api.CodeOf(err) != "not-ready" {
		t.Errorf("a ref to a file that is gone: %v", err)
	}
	if shown, ok := w.Collected("rocky9"); !ok || shown.Size == 0 {
		t.Errorf("collected: %+v, %t", shown, ok)
	}
	must(t, w.Bring(t.Context(), "rocky9", nil))
	if _, at, err := w.Ready(t.Context(), "rocky9"); err != nil || at != path {
		t.Errorf("ready: %s, %v", at, err)
	}
	must(t, w.PutRef(t.Context(), "rocky9", path, ref))
}
