package incoming_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mib   = 1 << 20
	uuid  = "6e0f4b2c-0000-4000-8000-000000000001"
	opID  = "01JZZZZZZZZZZZZZZZZZABCDEF"
	lease = time.Minute
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// libvirt is the destination's.
type libvirt struct {
	mu        sync.Mutex
	domains   []hypervisor.Domain
	asked     int
	cpu       func() (bool, string, error)
	refreshed []string
	down      error
	// onDomain is called before each look at a domain.
	onDomain func(n int)
	// onDestroy is called before a domain is ended.
	onDestroy func()
	looks     int
	disks     map[string]string // a domain's disk, where a test cares
}

func (l *libvirt) set(ds ...hypervisor.Domain) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.domains = ds
}

func (l *libvirt) Domains(context.Context) ([]hypervisor.Domain, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.domains, l.down
}

func (l *libvirt) Domain(_ context.Context, name string) (hypervisor.Domain, error) {
	l.mu.Lock()
	l.looks++
	n, hook := l.looks, l.onDomain
	l.mu.Unlock()
	if hook != nil {
		hook(n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.domains {
		if d.Name == name {
			return d, l.down
		}
	}
	return hypervisor.Domain{}, errors.Join(l.down, fmt.Errorf("look up %q: %w", name, hypervisor.ErrNoDomain))
}

func (l *libvirt) XML(_ context.Context, name string, _ bool) (string, error) {
	if disk := l.disks[name]; disk != "" {
		return "<domain type='qemu'><name>" + name + "</name><devices>" + disk + "</devices></domain>", nil
	}
	return "<domain>of the destination</domain>", nil
}

func (l *libvirt) CompareCPU(context.Context, string) (bool, string, error) {
	if l.cpu != nil {
		return l.cpu()
	}
	return true, "fine", nil
}

func (l *libvirt) RefreshPool(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refreshed = append(l.refreshed, name)
	return nil
}

func (l *libvirt) CompletedJob(context.Context, string) (hypervisor.Job, error) {
	return hypervisor.Job{Downtime: 120 * time.Millisecond, MemDone: 7 * mib}, nil
}

// registry has template copies by digest and keeps refs.
type registry struct {
	mu     sync.Mutex
	copies map[string]string // digest to path
	refs   map[string]string // volume to template
	stage  func(ctx context.Context, l api.StageLayer) (string, error)
}

func (r *registry) ReadyByDigest(digest string) (path, id string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, ok = r.copies[digest]
	return path, "rocky9", ok
}

func (r *registry) Stage(ctx context.Context, l api.StageLayer, _ func(done, total int64)) (string, error) {
	return r.stage(ctx, l)
}

func (r *registry) PutRef(_ context.Context, template, _ string, ref api.TemplateRef) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refs[ref.Volume] = template
	return nil
}

func (r *registry) DropRef(_ context.Context, volume string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.refs, volume)
	return nil
}

type hostFn func() api.Host

func (f hostFn) Host(context.Context) (api.Host, error) { return f(), nil }

type targetsFn func(api.TargetsRequest) error

func (f targetsFn) Modify(_ context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	return api.TargetsResponse{}, f(r)
}

// runner lets a test act before each qemu-img.
type runner struct {
	volume.Exec
	mu     sync.Mutex
	before func(n int) error
	runs   int
}

func (r *runner) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	r.mu.Lock()
	r.runs++
	n, before := r.runs, r.before
	r.mu.Unlock()
	if before != nil {
		if err := before(n); err != nil {
			return nil, err
		}
	}
	return r.Exec.Run(ctx, name, args...)
}

// world is a destination host with two pools.
type world struct {
	t           testing.TB
	pool, other string
	libvirt     *libvirt
	reg         *registry
	runner      *runner
	store       store.Store
	targets     []api.TargetsRequest
	now         time.Time
	nowMu       sync.Mutex
	options     incoming.Options
	*incoming.Service
}

func newWorld(t testing.TB) *world {
	folder := func() string {
		dir, err := filepath.EvalSymlinks(t.TempDir())
		must(t, err)
		return dir
	}
	w := &world{t: t, pool: folder(), other: folder(), store: store.Memory(), runner: &runner{}, libvirt: &libvirt{},
		reg: &registry{copies: map[string]string{}, refs: map[string]string{}}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.options = incoming.Options{Hypervisor: w.libvirt, Templates: w.reg, Power: w.libvirt, Store: w.store, Records: record.Dir(t.TempDir()),
		Host: hostFn(func() api.Host {
			return api.Host{Pools: []api.Pool{{Name: "default", Path: w.pool, Active: true}, {Name: "other", Path: w.other, Active: true}, {Name: "off", Path: t.TempDir()}}}
		}),
		Targets:  targetsFn(func(r api.TargetsRequest) error { w.targets = append(w.targets, r); return nil }),
		Digester: volume.NewDigester(), Runner: w.runner, Log: slog.New(slog.DiscardHandler), Now: w.clock,
		LibvirtURI: "qemu+tls://b/system", Lease: lease}
	w.start()
	return w
}

func (w *world) clock() time.Time {
	w.nowMu.Lock()
	defer w.nowMu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.nowMu.Lock()
	defer w.nowMu.Unlock()
	w.now = w.now.Add(d)
}

// start is what a start of the agent does with the store as it is.
func (w *world) start() {
	w.t.Helper()
	s, err := incoming.New(w.t.Context(), w.options)
	must(w.t, err)
	w.t.Cleanup(s.Close)
	w.Service = s
}

// crashed gives the store as it is now, as a crash would leave it.
func (w *world) crashed() store.Store {
	out := store.Memory()
	must(w.t, w.store.List("incoming", func(key string, value []byte) error { return out.Put("incoming", key, value) }))
	return out
}

// request asks for one qcow2 volume in the default pool.
func (w *world) request() api.IncomingRequest {
	return api.IncomingRequest{Operation: opID, Source: "a", Project: api.DefaultProject, Name: "vm", UUID: uuid,
		Disks: []api.IncomingDisk{{Target: "vda", VirtualSize: 4 * mib, Place: api.DiskPlace{Pool: "default", Kind: "file", Path: filepath.Join(w.pool, "vm.qcow2"), Format: "qcow2"}}}}
}

// ready reserves and waits until the preparation has ended.
func (w *world) ready(r api.IncomingRequest) api.Incoming {
	w.t.Helper()
	in := w.settled(r)
	if in.State != "ready" {
		w.t.Fatalf("reservation %s: %v", in.State, in.Error)
	}
	return in
}

// settled waits for the end of a preparation, whatever it is.
func (w *world) settled(r api.IncomingRequest) api.Incoming {
	w.t.Helper()
	in, err := w.Reserve(w.t.Context(), r)
	if err != nil {
		in, err = w.Get(w.t.Context(), r.Operation)
	}
	must(w.t, err)
	deadline := time.Now().Add(20 * time.Second)
	for in.State == "preparing" {
		if time.Now().After(deadline) {
			w.t.Fatal("the preparation does not end")
		}
		in, err = w.Get(w.t.Context(), r.Operation)
		must(w.t, err)
	}
	return in
}

// arrive has libvirt know the instance in that state.
func (w *world) arrive(d hypervisor.Domain) {
	d.Name, d.UUID = "vm", uuid
	w.libvirt.set(d)
}

func (w *world) files() (names []string) {
	entries, err := os.ReadDir(w.pool)
	must(w.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (w *world) wantFiles(names ...string) {
	w.t.Helper()
	if got := w.files(); !slices.Equal(got, names) {
		w.t.Errorf("files %v; want %v", got, names)
	}
}

func (w *world) wantJournal(n int) {
	w.t.Helper()
	got := 0
	must(w.t, w.store.List("incoming", func(string, []byte) error { got++; return nil }))
	if got != n {
		w.t.Errorf("%d reservations in the journal; want %d", got, n)
	}
}

func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

// qcow2 makes an image with a guest's bytes in it, and gives it as a layer.
func qcow2(t testing.TB, path, backing, bytes string) api.Layer {
	t.Helper()
	args := []string{"create", "-q", "-f", "qcow2"}
	if backing != "" {
		args = append(args, "-b", backing, "-F", "qcow2")
	}
	qemuImg(t, append(args, path, "4M")...)
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "qcow2", "-c", "write -P "+bytes+" 1M 64k", path).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}
	return layerOf(t, path)
}

func layerOf(t testing.TB, path string) api.Layer {
	t.Helper()
	digest, err := volume.NewDigester().Digest(t.Context(), path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	return api.Layer{Path: path, Format: "qcow2", VirtualSize: 4 * mib, FileSize: info.Size(), Digest: digest}
}

func wantProblem(t testing.TB, err error, code string, parts ...string) *api.Problem {
	t.Helper()
	p := api.AsProblem(err)
	if p == nil || p.Code != code {
		t.Fatalf("error %v; want %s", err, code)
	}
	for _, part := range parts {
		if !strings.Contains(p.Detail, part) {
			t.Errorf("detail %q does not say %q", p.Detail, part)
		}
	}
	return p
}
