package templates_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type anyImage struct{}

func (anyImage) Check(_ context.Context, _ *os.File, format string) (template.ImageInfo, error) {
	return template.ImageInfo{Format: format, VirtualSize: 1 << 20}, nil
}

// world is a host with one pool and a folder that may be fetched from.
type world struct {
	t           testing.TB
	pool, files string
	store       store.Store
	received    func()        // called as bytes come; may be nil
	downloads   int           // at once; 0: the default
	later       time.Duration // how far the clock is ahead
	tending     template.Tending
	engine      *operation.Engine
	*templates.Service
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, pool: t.TempDir(), files: t.TempDir(), store: store.Memory()}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	engine, err := operation.Open(operation.Options{Store: w.store})
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, engine.Close(context.WithoutCancel(w.t.Context()))) })
	download := source.NewDownload(source.Options{AllowAddress: func(netip.Addr) bool { return false }, Files: []string{w.files}})
	peers := &templates.Peers{Dial: func(string) (templates.Peer, error) { return nil, errors.New("nobody is dialled") }}
	registry, err := template.Open(template.Options{Store: w.store, Fetcher: download, Intake: anyImage{}, DefaultPool: "default", Downloads: w.downloads,
		Now: func() time.Time { return time.Now().Add(w.later) }, Tending: w.tending,
		Stopping: operation.ErrShutdown, Peers: peers.Origins, Received: func(string, int64) {
			if w.received != nil {
				w.received()
			}
		},
		Pools: func(context.Context) ([]template.Pool, error) {
			return []template.Pool{{Name: "default", Path: w.pool}}, nil
		}})
	must(w.t, err)
	w.engine = engine
	w.Service = templates.New(templates.Service{Registry: registry, Operations: engine, Log: slog.New(slog.DiscardHandler),
		Peers: peers})
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// request registers content that lies in the folder under the template's name.
func (w *world) request(id string, content []byte) api.TemplateRequest {
	path := filepath.Join(w.files, id)
	must(w.t, os.WriteFile(path, content, 0o600))
	return api.TemplateRequest{ID: id, URL: "file://" + path, Checksum: sum(content), Format: "raw", DirectDownload: true,
		Headers: map[string]string{"Authorization": "secret"}}
}

func (w *world) ended(op api.Operation, err error) api.Operation {
	w.t.Helper()
	must(w.t, err)
	op, err = w.engine.Wait(w.t.Context(), op.ID, 20*time.Second)
	must(w.t, err)
	if !op.Ended() {
		w.t.Fatalf("the download does not end: %+v", op)
	}
	return op
}

func (w *world) ready(id string, content []byte) api.Template {
	w.t.Helper()
	op := w.ended(w.Register(w.t.Context(), w.request(id, content), api.Idempotency{}))
	if op.Status != api.StatusSucceeded {
		w.t.Fatalf("operation %s: %v", op.Status, op.Error)
	}
	got, err := w.Get(w.t.Context(), id)
	must(w.t, err)
	return got
}

func TestRegister(t *testing.T) {
	w := newWorld(t)
	content := bytes.Repeat([]byte("w"), 4096)
	got := w.ready("rocky9", content)
	if got.Digest != sum(content) || !got.DirectDownload || len(got.Copies) != 1 || got.Copies[0].State != "ready" {
		t.Fatalf("template %+v", got)
	}
	path := got.Copies[0].Path
	show, at, err := w.Ready(t.Context(), "rocky9")
	if err != nil || at != path || show.ID != "rocky9" || strings.Contains(fmt.Sprintf("%+v", show), "secret") {
		t.Errorf("ready: %+v at %s, %v", show, at, err)
	}
	f, _, err := w.Open(t.Context(), "rocky9")
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	if !bytes.Equal(b, content) {
		t.Error("the content is another")
	}
	if list, err := w.List(t.Context()); err != nil || len(list.Templates) != 1 || w.Counts()["ready"] != 1 {
		t.Errorf("list %+v, %v, counts %v", list, err, w.Counts())
	}
}

// What the look-ups say of a path, an id and a digest, before and after the
// template was removed: the tombstone keeps the flag.
func TestLookups(t *testing.T) {
	w := newWorld(t)
	got := w.ready("rocky9", []byte("content"))
	path := got.Copies[0].Path
	ref := api.TemplateRef{Project: "default", Instance: "vm", Disk: "vda", Volume: "/images/vm.qcow2"}
	must(t, w.PutRef(t.Context(), "rocky9", path, ref))
	must(t, w.PutRef(t.Context(), "rocky9", path, ref))
	if shown, _ := w.Get(t.Context(), "rocky9"); len(shown.Refs) != 1 || shown.Refs[0].Pool != "default" {
		t.Errorf("refs %+v; want one, with the copy's pool", shown.Refs)
	}
	check := func(when string) {
		t.Helper()
		id, direct, ok := w.ByPath(path)
		if id != "rocky9" || !direct || !ok {
			t.Errorf("%s: by path: %q, %v, %v", when, id, direct, ok)
		}
		if direct, known := w.Direct("rocky9"); !direct || !known {
			t.Errorf("%s: by id: %v, %v", when, direct, known)
		}
		if !w.HasRef("rocky9", ref.Volume) {
			t.Errorf("%s: no ref", when)
		}
	}
	check("registered")
	if at, id, ok := w.ReadyByDigest(got.Digest); at != path || id != "rocky9" || !ok {
		t.Errorf("by digest: %q, %q, %v", at, id, ok)
	}
	if r, ok := w.Record("rocky9"); !ok || r.URL != got.URL {
		t.Errorf("record %+v, %v", r, ok)
	}
	removed, err := w.Remove(t.Context(), "rocky9")
	must(t, err)
	if removed.RemovedAt == nil {
		t.Errorf("removed %+v", removed)
	}
	check("removed")
	if _, _, err := w.Ready(t.Context(), "rocky9"); api.CodeOf(err) != "not-found" {
		t.Errorf("ready after its removal: %v", err)
	}
	if _, err := w.Retry(t.Context(), "rocky9", api.Idempotency{}); api.CodeOf(err) != "not-found" {
		t.Errorf("retry after its removal: %v", err)
	}
	if w.Counts()["ready"] != 0 {
		t.Errorf("counts %v", w.Counts())
	}
	must(t, w.DropRef(t.Context(), ref.Volume))
	must(t, w.DropRef(t.Context(), ref.Volume))
	if w.HasRef("rocky9", ref.Volume) {
		t.Error("the ref remains")
	}
	if _, known := w.Direct("never"); known {
		t.Error("a template that never was is known")
	}
	if _, _, ok := w.ByPath("/images/vm.qcow2"); ok {
		t.Error("a volume is taken for a template")
	}
}

// A copy that was deleted behind the registry's back is none.
func TestReadyByDigestOfAMissingFile(t *testing.T) {
	w := newWorld(t)
	got := w.ready("rocky9", []byte("content"))
	must(t, os.Remove(got.Copies[0].Path))
	if _, _, ok := w.ReadyByDigest(got.Digest); ok {
		t.Error("the file is gone")
	}
	if _, _, ok := w.ReadyByDigest(""); ok {
		t.Error("no digest names no copy")
	}
}

func TestRegisterFails(t *testing.T) {
	w := newWorld(t)
	r := w.request("rocky9", []byte("content"))
	bad := r
	bad.Checksum, bad.Format = "md5:1", "vmdk"
	_, err := w.Register(t.Context(), bad, api.Idempotency{})
	if p := api.AsProblem(err); p == nil || p.Code != "bad-request" || len(p.Fields) != 2 {
		t.Errorf("problem %+v; want both fields", p)
	}
	wrong := r
	wrong.Checksum = sum([]byte("other"))
	op := w.ended(w.Register(t.Context(), wrong, api.Idempotency{}))
	if op.Status != api.StatusFailed || op.Error.Code != "template-failed" || op.Error.Phase != "download" || op.Error.Hint == "" {
		t.Errorf("operation %s, %+v", op.Status, op.Error)
	}
	if _, _, err := w.Ready(t.Context(), "rocky9"); api.CodeOf(err) != "precondition" {
		t.Errorf("ready: %v", err)
	}
	if _, _, err := w.Open(t.Context(), "rocky9"); api.CodeOf(err) != "not-ready" {
		t.Errorf("open: %v", err)
	}
	if _, err := w.Register(t.Context(), r, api.Idempotency{}); api.CodeOf(err) != "conflict" {
		t.Errorf("another checksum under the same id: %v", err)
	}
	for _, err := range []error{
		func() error { _, err := w.Get(t.Context(), "none"); return err }(),
		func() error { _, err := w.Remove(t.Context(), "none"); return err }(),
		func() error { _, err := w.Retry(t.Context(), "none", api.Idempotency{}); return err }(),
		func() error { _, _, err := w.Ready(t.Context(), "none"); return err }(),
	} {
		if api.CodeOf(err) != "not-found" {
			t.Errorf("error %v; want not-found", err)
		}
	}
}

func TestRetry(t *testing.T) {
	w := newWorld(t)
	r := w.request("rocky9", []byte("content"))
	path := filepath.Join(w.files, "rocky9")
	must(t, os.Remove(path))
	if op := w.ended(w.Register(t.Context(), r, api.Idempotency{})); op.Status != api.StatusFailed {
		t.Fatalf("operation %s", op.Status)
	}
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	if op := w.ended(w.Retry(t.Context(), "rocky9", api.Idempotency{})); op.Status != api.StatusSucceeded {
		t.Errorf("operation %s: %v", op.Status, op.Error)
	}
}

// The download of an agent that was killed is done by the next start.
func TestRecover(t *testing.T) {
	w := newWorld(t)
	killed := store.Memory()
	w.received = func() {
		for _, bucket := range []string{"operations", "operation-data", "operation-keys", "templates", "template-refs"} {
			must(t, w.store.List(bucket, func(key string, value []byte) error { return killed.Put(bucket, key, value) }))
		}
	}
	op := w.ended(w.Register(t.Context(), w.request("rocky9", []byte("content")), api.Idempotency{}))
	w.store = killed
	w.start()
	if _, _, err := w.Ready(t.Context(), "rocky9"); api.CodeOf(err) != "precondition" {
		t.Errorf("before the recovery: %v", err)
	}
	must(t, w.engine.Resume(t.Context()))
	if op := w.ended(op, nil); op.Status != api.StatusSucceeded {
		t.Errorf("operation %s: %v", op.Status, op.Error)
	}
	if _, _, err := w.Ready(t.Context(), "rocky9"); err != nil {
		t.Error(err)
	}
}

// Whoever is about to stand on a copy hears what has become of it, and the
// question is what has it noticed.
func TestLost(t *testing.T) {
	w := newWorld(t)
	path := w.ready("rocky9", []byte("content")).Copies[0].Path
	for _, sound := range []string{path, "/images/vm.qcow2"} {
		if why, lost := w.Lost(sound); lost {
			t.Errorf("%s: %s", sound, why)
		}
	}
	must(t, os.Remove(path))
	why, lost := w.Lost(path)
	for _, part := range []string{`template "rocky9", whose copy on pool "default" is lost: the file "` + path + `" is gone`, "(state missing)", "the next attempt is at "} {
		if !lost || !strings.Contains(why, part) {
			t.Errorf("%q lacks %q", why, part)
		}
	}
	_, _, err := w.Ready(t.Context(), "rocky9")
	if p := api.AsProblem(err); p.Code != "precondition" || !strings.HasPrefix(p.Detail, `template "rocky9" is lost: the file "`) || !strings.Contains(p.Detail, "the next attempt is at ") || !strings.Contains(p.Hint, "template retry rocky9") {
		t.Errorf("ready: %+v", p)
	}
	must(t, w.Bring(t.Context(), "rocky9", nil))
	if why, lost := w.Lost(path); lost {
		t.Error(why)
	}
}

// Whoever follows a download that waits for its turn is told so, and which
// template the operation is about.
func TestWaitingForItsTurn(t *testing.T) {
	w := newWorld(t)
	begun, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.received = func() { once.Do(func() { close(begun) }); <-proceed }
	w.downloads = 1
	w.start()
	release := sync.OnceFunc(func() { close(proceed) })
	t.Cleanup(release)
	first, err := w.Register(t.Context(), w.request("first", []byte("first")), api.Idempotency{})
	must(t, err)
	<-begun
	events, err := w.engine.Events(t.Context(), operation.LiveOnly)
	must(t, err)
	second, err := w.Register(t.Context(), w.request("second", []byte("second")), api.Idempotency{})
	must(t, err)
	if first.Template != "first" || second.Template != "second" || second.Instance != "" {
		t.Errorf("operations %+v, %+v", first, second)
	}
	for e := range events {
		if op := e.Operation; op != nil && op.ID == second.ID && op.Progress.Detail != "" {
			if op.Progress.Detail != "waiting: 1 downloads at once" || op.Template != "second" {
				t.Errorf("operation %+v", op)
			}
			break
		}
	}
	release()
	w.ended(first, nil)
	if op := w.ended(second, nil); op.Progress.Detail != "" || op.Status != api.StatusSucceeded {
		t.Errorf("operation %+v", op)
	}
	if op := w.ended(w.Scrub(t.Context(), "second", api.Idempotency{})); op.Template != "second" {
		t.Errorf("operation %+v", op)
	}
}
