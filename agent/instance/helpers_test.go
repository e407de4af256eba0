package instance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/instance"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

var ref = api.Ref{Project: api.DefaultProject, Name: "vm"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// libvirt holds domains and their XML, writes down what it was told to do, and
// fails where a test says so.
type libvirt struct {
	mu      sync.Mutex
	domains map[string]hypervisor.Domain
	xml     map[string]string
	did     []string
	fail    map[string]error
	// hang names a call that ends with its context only, after it told hung.
	hang string
	hung chan struct{}
}

func (l *libvirt) act(ctx context.Context, what string) error {
	l.mu.Lock()
	l.did = append(l.did, what)
	err, hangs := l.fail[what], l.hang == what
	l.mu.Unlock()
	if hangs {
		close(l.hung)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return err
}

func (l *libvirt) set(d hypervisor.Domain) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.domains[d.Name] = d
}

func (l *libvirt) state(name string, s hypervisor.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.domains[name]
	d.State = s
	l.domains[name] = d
}

func (l *libvirt) Domains(context.Context) ([]hypervisor.Domain, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []hypervisor.Domain
	for _, d := range l.domains {
		out = append(out, d)
	}
	return out, l.fail["domains"]
}

func (l *libvirt) Domain(_ context.Context, name string) (hypervisor.Domain, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.domains[name]
	if !ok {
		return d, fmt.Errorf("look up %q: %w", name, hypervisor.ErrNoDomain)
	}
	return d, l.fail["domain"]
}

func (l *libvirt) XML(_ context.Context, name string, _ bool) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.xml[name], nil
}

func (l *libvirt) Snapshots(context.Context, string) ([]string, error) {
	return []string{"before"}, nil
}
func (l *libvirt) RefreshPool(ctx context.Context, name string) error {
	return l.act(ctx, "refresh "+name)
}
func (l *libvirt) Start(ctx context.Context, name string, _ bool) error {
	if err := l.act(ctx, "start"); err != nil {
		return err
	}
	l.state(name, hypervisor.Running)
	return nil
}

func (l *libvirt) Destroy(ctx context.Context, name string) error {
	l.state(name, hypervisor.Shutoff)
	return l.act(ctx, "destroy")
}

func (l *libvirt) Define(ctx context.Context, xml string) error {
	if err := l.act(ctx, "define"); err != nil {
		return err
	}
	d, err := domainxml.Parse(xml)
	if err != nil {
		return err
	}
	l.set(hypervisor.Domain{Name: d.Name, UUID: d.UUID, State: hypervisor.Shutoff, Persistent: true})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.xml[d.Name] = xml
	return nil
}

func (l *libvirt) Undefine(ctx context.Context, name string) error {
	l.mu.Lock()
	delete(l.domains, name)
	l.mu.Unlock()
	return l.act(ctx, "undefine")
}

// WaitState is for who waits for any state.
func (l *libvirt) WaitState(ctx context.Context, name string, _ ...hypervisor.State) (hypervisor.Domain, error) {
	return l.Domain(ctx, name)
}

// ladder brings an instance down as a test says, and keeps what it was told.
type ladder struct {
	*libvirt
	down func(ctx context.Context, o power.Options) (power.Result, error)
	told []power.Options
}

func (l *ladder) Down(ctx context.Context, name, _ string, o power.Options) (power.Result, error) {
	l.mu.Lock()
	l.told = append(l.told, o)
	l.mu.Unlock()
	if err := l.act(ctx, "down"); err != nil {
		return power.Result{}, err
	}
	d, err := l.Domain(ctx, name)
	if err == nil && !d.Active() {
		return power.Result{Rung: api.RungAlready}, nil
	}
	if l.down == nil {
		l.state(name, hypervisor.Shutoff)
		return power.Result{Rung: api.RungACPI}, nil
	}
	r, err := l.down(ctx, o)
	if err == nil {
		l.state(name, hypervisor.Shutoff)
	}
	return r, err
}

func (l *libvirt) deeds() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.did)
}

// registry has one template, ready.
type registry struct {
	template api.Template
	path     string
	err      error
	mu       sync.Mutex
	refs     map[string]string // volume to template
	ill      map[api.Ref][]string
	// collected: its copy was deleted as unused, until somebody brings it.
	collected bool
	bringErr  error
	lost      map[string]string // by path
}

func (r *registry) Lost(path string) (string, bool) {
	why, lost := r.lost[path]
	return why, lost
}

func (r *registry) Collected(string) (api.Template, bool) { return r.template, r.collected }

func (r *registry) Bring(context.Context, string, func(done, total int64)) error {
	if r.bringErr == nil {
		r.err, r.collected = nil, false
	}
	return r.bringErr
}

func (r *registry) Ready(context.Context, string) (api.Template, string, error) {
	return r.template, r.path, r.err
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

func (r *registry) Health() map[api.Ref][]string { return r.ill }

// chainsFn tells what the next start opens.
type chainsFn func(name string) (template.Chains, error)

func (f chainsFn) Next(_ context.Context, d hypervisor.Domain) (template.Chains, error) {
	return f(d.Name)
}

type hostFn func() api.Host

func (f hostFn) Host(context.Context) (api.Host, error) { return f(), nil }

type targetsFn func(context.Context, api.TargetsRequest) error

func (f targetsFn) Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	return api.TargetsResponse{}, f(ctx, r)
}

type inspectFn func(pools []api.Pool) (inspect.Instance, error)

func (f inspectFn) Inspect(_ context.Context, _ api.Ref, pools []api.Pool) (inspect.Instance, error) {
	return f(pools)
}

// world is a host with a template and a pool.
type world struct {
	t       testing.TB
	state   string
	pool    string
	libvirt *libvirt
	ladder  *ladder
	reg     *registry
	engine  *operation.Engine
	store   store.Store
	clock   sync.Mutex
	now     time.Time
	options instance.Options
	// next is what the next start opens.
	next func(name string) (template.Chains, error)
	*instance.Service
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, state: t.TempDir(), pool: t.TempDir(), store: store.Memory(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		libvirt: &libvirt{domains: map[string]hypervisor.Domain{}, xml: map[string]string{}, fail: map[string]error{}}}
	w.next = func(string) (template.Chains, error) { return template.Chains{}, nil }
	base := filepath.Join(w.pool, "base.qcow2")
	out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", base, "4M").CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	w.reg = &registry{path: base, refs: map[string]string{}, template: api.Template{ID: "rocky9", Format: "qcow2", VirtualSize: 4 * mib, DirectDownload: true}}
	w.engine, err = operation.Open(operation.Options{Store: w.store})
	must(t, err)
	t.Cleanup(w.closeEngine)
	w.ladder = &ladder{libvirt: w.libvirt}
	records := record.Dir(filepath.Join(w.state, "records"))
	targets := targetsFn(func(ctx context.Context, r api.TargetsRequest) error {
		return w.libvirt.act(ctx, fmt.Sprintf("targets %v", r.Add))
	})
	// Each look at the clock takes a second.
	now := func() time.Time {
		w.clock.Lock()
		defer w.clock.Unlock()
		w.now = w.now.Add(time.Second)
		return w.now
	}
	w.options = instance.Options{Hypervisor: w.libvirt, Power: w.libvirt, Ladder: w.ladder, Templates: w.reg, Records: records,
		Cleaner: cleanup.Cleaner{Dir: filepath.Join(w.state, "cleanup"), Records: records, Targets: targets, Runs: w.runs,
			Log: slog.New(slog.DiscardHandler), Now: now},
		Host:       hostFn(func() api.Host { return api.Host{Pools: []api.Pool{{Name: "default", Path: w.pool, Active: true}}} }),
		Inspector:  inspectFn(func([]api.Pool) (inspect.Instance, error) { return inspect.Instance{}, nil }),
		Chains:     chainsFn(func(name string) (template.Chains, error) { return w.next(name) }),
		Targets:    targets,
		Operations: w.engine, Runner: volume.Exec{}, Log: slog.New(slog.DiscardHandler), DefaultPool: "default", Now: now}
	w.Service = instance.New(w.options)
	return w
}

// runs tells whether the instance of the name has a process.
func (w *world) runs(name, _ string) (bool, error) {
	d, err := w.libvirt.Domain(w.t.Context(), name)
	return err == nil && d.Active(), nil
}

// owed wants that there is a note of a clean-up, or none.
func (w *world) owed(want bool) cleanup.Note {
	w.t.Helper()
	n, got, err := w.options.Cleaner.Owed(ref)
	if err != nil || got != want {
		w.t.Errorf("owed %v, note %+v, error %v; want %v", got, n, err, want)
	}
	return n
}

func (w *world) closeEngine() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), 20*time.Second)
	defer cancel()
	must(w.t, w.engine.Close(ctx))
}

// ended waits for the operation's end.
func (w *world) ended(op api.Operation, err error) api.Operation {
	w.t.Helper()
	must(w.t, err)
	op, err = w.engine.Wait(w.t.Context(), op.ID, 20*time.Second)
	must(w.t, err)
	if !op.Ended() {
		w.t.Fatalf("operation %+v did not end", op)
	}
	return op
}

func (w *world) succeeded(op api.Operation, err error) api.Operation {
	w.t.Helper()
	op = w.ended(op, err)
	if op.Status != api.StatusSucceeded {
		w.t.Fatalf("operation %s: %v", op.Status, op.Error)
	}
	return op
}

func (w *world) failed(op api.Operation, err error) func(code string) *api.Problem {
	w.t.Helper()
	op = w.ended(op, err)
	return func(code string) *api.Problem {
		w.t.Helper()
		if op.Status != api.StatusFailed || op.Error == nil || op.Error.Code != code {
			w.t.Fatalf("operation %s, error %v; want %s", op.Status, op.Error, code)
		}
		return op.Error
	}
}

func (w *world) create(r api.CreateRequest) (api.Operation, error) {
	return w.Create(w.t.Context(), "", r, api.Idempotency{})
}

func (w *world) record() (api.Record, bool) {
	w.t.Helper()
	r, err := w.Records.Read(ref)
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		w.t.Fatal(err)
	}
	return r, err == nil
}

// files lists the pool.
func (w *world) files() (names []string) {
	entries, err := os.ReadDir(w.pool)
	must(w.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func result[T any](t testing.TB, op api.Operation) (out T) {
	t.Helper()
	b, err := json.Marshal(op.Result)
	must(t, err)
	must(t, json.Unmarshal(b, &out))
	return out
}
