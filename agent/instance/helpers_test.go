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

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/instance"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
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
	// press is what a press of the power button does.
	press func(presses int) (gone bool)
	count int
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

func (l *libvirt) Shutdown(ctx context.Context, name string, _ hypervisor.ShutdownMode) error {
	l.mu.Lock()
	l.count++
	gone := l.press != nil && l.press(l.count)
	l.mu.Unlock()
	if gone {
		l.state(name, hypervisor.Shutoff)
	}
	return l.act(ctx, "press")
}

func (l *libvirt) WaitState(_ context.Context, name string, states ...hypervisor.State) (hypervisor.Domain, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.domains[name]
	if slices.Contains(states, d.State) {
		return d, nil
	}
	return d, context.DeadlineExceeded
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
	pool    string
	libvirt *libvirt
	reg     *registry
	engine  *operation.Engine
	store   store.Store
	now     time.Time
	options instance.Options
	*instance.Service
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, pool: t.TempDir(), store: store.Memory(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		libvirt: &libvirt{domains: map[string]hypervisor.Domain{}, xml: map[string]string{}, fail: map[string]error{}}}
	base := filepath.Join(w.pool, "base.qcow2")
	out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", base, "4M").CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	w.reg = &registry{path: base, refs: map[string]string{}, template: api.Template{ID: "rocky9", Format: "qcow2", VirtualSize: 4 * mib, DirectDownload: true}}
	w.engine, err = operation.Open(operation.Options{Store: w.store})
	must(t, err)
	t.Cleanup(w.closeEngine)
	w.options = instance.Options{Hypervisor: w.libvirt, Power: w.libvirt, Templates: w.reg, Records: record.Dir(t.TempDir()),
		Host:      hostFn(func() api.Host { return api.Host{Pools: []api.Pool{{Name: "default", Path: w.pool, Active: true}}} }),
		Inspector: inspectFn(func([]api.Pool) (inspect.Instance, error) { return inspect.Instance{}, nil }),
		Targets: targetsFn(func(ctx context.Context, r api.TargetsRequest) error {
			return w.libvirt.act(ctx, fmt.Sprintf("targets %v", r.Add))
		}),
		Operations: w.engine, Runner: volume.Exec{}, Log: slog.New(slog.DiscardHandler), DefaultPool: "default",
		// Each look at the clock takes a second.
		Now: func() time.Time { w.now = w.now.Add(time.Second); return w.now }}
	w.Service = instance.New(w.options)
	return w
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
