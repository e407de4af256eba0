package migrate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/guard"
	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	uuid     = "6e0f4b2c-0000-4000-8000-000000000001"
	deadline = 20 * time.Second
)

var vm = api.Ref{Project: api.DefaultProject, Name: "vm"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// libvirt is the source's. A domain that is not in xml has no disks.
type libvirt struct {
	mu        sync.Mutex
	domains   map[string]hypervisor.Domain
	xml       map[string]string
	next      map[string]string // of the next start, where it differs
	refreshed []string
	unread    map[string]error // whose XML libvirt does not give
	sent      bool             // the guest was handed over whole
	mark      string           // of the handover; "" = a new one
	unsure    error            // QEMU does not say whether it was
	handed    chan error       // told when it is
	resumes   func()
	down      bool
	noList    int // so many calls for a list find libvirt not connected
}

func (l *libvirt) set(d hypervisor.Domain) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.domains[d.Name] = d
}

func (l *libvirt) gone(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.domains, name)
}

func (l *libvirt) Domain(_ context.Context, name string) (hypervisor.Domain, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.domains[name]
	if l.down {
		return d, fmt.Errorf("look up %q: %w", name, hypervisor.ErrDown)
	}
	if !ok {
		return d, fmt.Errorf("look up %q: %w", name, hypervisor.ErrNoDomain)
	}
	return d, nil
}

func (l *libvirt) Domains(context.Context) (out []hypervisor.Domain, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.noList > 0 {
		l.noList--
		return nil, fmt.Errorf("list domains: %w", hypervisor.ErrDown)
	}
	for _, d := range l.domains {
		out = append(out, d)
	}
	return out, nil
}

func (l *libvirt) XML(_ context.Context, name string, inactive bool) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.unread[name]; err != nil {
		return "", err
	}
	if x, ok := l.next[name]; ok && inactive {
		return x, nil
	}
	if x, ok := l.xml[name]; ok {
		return x, nil
	}
	return domainXML(name, ""), nil
}

func (l *libvirt) XMLMigratable(ctx context.Context, name string) (string, error) {
	return l.XML(ctx, name, false)
}

func (l *libvirt) Snapshots(context.Context, string) ([]string, error) {
	return []string{"before"}, nil
}

func (l *libvirt) RefreshPool(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refreshed = append(l.refreshed, name)
	return nil
}

func domainXML(name, disks string) string {
	return "<domain type='kvm'><name>" + name + "</name><uuid>" + uuid + "</uuid><memory>1024</memory><devices>" + disks + "</devices></domain>"
}

// fileDisk is a disk's XML; below are its backing layers.
func fileDisk(target, path string, below ...string) string {
	chain := "<backingStore/>"
	for _, b := range below {
		chain = "<backingStore type='file'><format type='qcow2'/><source file='" + b + "'/>" + chain + "</backingStore>"
	}
	return "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='" + path + "'/>" + chain + "<target dev='" + target + "' bus='virtio'/></disk>"
}

// mover migrates as a test says; by default it just does.
type mover struct {
	migrate func(ctx context.Context, p hypervisor.MigrateParams) error
	job     func() hypervisor.Job
	jobErr  func() error
	mu      sync.Mutex
	params  []hypervisor.MigrateParams
	stopped int
	downs   []time.Duration
	post    func() error // starts post-copy
	blocks  func() []hypervisor.BlockJob
	limits  []string
}

func (m *mover) Migrate(ctx context.Context, _ string, p hypervisor.MigrateParams) error {
	m.mu.Lock()
	m.params = append(m.params, p)
	m.mu.Unlock()
	return m.migrate(ctx, p)
}

func (m *mover) Job(context.Context, string) (hypervisor.Job, error) {
	m.mu.Lock()
	fails, job := m.jobErr, m.job
	m.mu.Unlock()
	if fails != nil {
		if err := fails(); err != nil {
			return hypervisor.Job{}, err
		}
	}
	if job == nil {
		return hypervisor.Job{Kind: hypervisor.JobNone}, nil
	}
	return job(), nil
}

func (m *mover) BlockJobs(context.Context, string) ([]hypervisor.BlockJob, error) {
	if m.blocks == nil {
		return nil, nil
	}
	return m.blocks(), nil
}

func (m *mover) SetBandwidth(_ context.Context, _ string, mib uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits = append(m.limits, fmt.Sprintf("memory %d MiB/s", mib))
	return nil
}

func (m *mover) SetPostCopyBandwidth(_ context.Context, _ string, mib uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits = append(m.limits, fmt.Sprintf("post-copy %d MiB/s", mib))
	return nil
}

func (m *mover) SetCopySpeed(_ context.Context, _, id string, bytes int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits = append(m.limits, fmt.Sprintf("%s %d", id, bytes))
	return nil
}

func (m *mover) SetMaxDowntime(_ context.Context, _ string, d time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.downs = append(m.downs, d)
	return nil
}

func (m *mover) StartPostCopy(context.Context, string) error { return m.post() }

func (m *mover) Abort(context.Context, string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped++
	return nil
}

func (m *mover) Yank(context.Context, string) (int, error) { return 0, nil }

// peer is the destination's agent: what a test does not change works.
type peer struct {
	facts   func(api.FactsRequest) (api.Facts, error)
	reserve func(ctx context.Context, in api.Incoming) (api.Incoming, error)
	renew   func(in api.Incoming) (api.Incoming, error)
	commit  func(n int, in api.Incoming) (api.Incoming, error)
	modify  func(api.TargetsRequest) (api.TargetsResponse, error)
	settle  func(in api.Incoming, act string) (api.Incoming, error)

	mu        sync.Mutex
	asked     []api.FactsRequest
	requests  []api.IncomingRequest
	reserved  map[string]api.Incoming
	connected []api.Target
	commits   int
	removed   int
	settled   []string
}

func (p *peer) Facts(_ context.Context, r api.FactsRequest) (api.Facts, error) {
	p.mu.Lock()
	p.asked = append(p.asked, r)
	p.mu.Unlock()
	return p.facts(r)
}

func (p *peer) Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error) {
	in := api.Incoming{ID: r.Operation, State: "ready"}
	for _, d := range r.Disks {
		in.Disks = append(in.Disks, api.IncomingPlace{Target: d.Target, Path: d.Place.Path, Format: d.Place.Format, Backing: d.Place.Backing, Chain: d.Place.Chain})
	}
	p.mu.Lock()
	p.requests = append(p.requests, r)
	p.reserved[r.Operation] = in
	p.mu.Unlock()
	if p.reserve != nil {
		return p.reserve(ctx, in)
	}
	return in, nil
}

func (p *peer) find(id string) (api.Incoming, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	in, ok := p.reserved[id]
	if !ok {
		return in, api.NewProblem("not-found", "no reservation %q here", id)
	}
	return in, nil
}

func (p *peer) Renew(_ context.Context, id string) (api.Incoming, error) {
	in, err := p.find(id)
	p.mu.Lock()
	renew := p.renew
	p.mu.Unlock()
	if renew != nil {
		return renew(in)
	}
	return in, err
}

func (p *peer) Commit(_ context.Context, id string, _ api.CommitRequest) (api.Incoming, error) {
	in, err := p.find(id)
	if err != nil {
		return in, err
	}
	p.mu.Lock()
	p.commits++
	n := p.commits
	p.mu.Unlock()
	in.State, in.Downtime, in.MemoryBytes = "committed", api.Duration(100*time.Millisecond), 5*mib
	if p.commit != nil {
		return p.commit(n, in)
	}
	return in, nil
}

func (p *peer) Settle(_ context.Context, id string, r api.SettleRequest) (api.Incoming, error) {
	in, err := p.find(id)
	if err != nil {
		return in, err
	}
	p.mu.Lock()
	p.settled = append(p.settled, r.Act)
	settle := p.settle
	p.mu.Unlock()
	if settle != nil {
		return settle(in, r.Act)
	}
	return in, nil
}

func (p *peer) Remove(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reserved, id)
	p.removed++
	return nil
}

func (p *peer) Modify(_ context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	if p.modify != nil && r.Add {
		return p.modify(r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out := api.TargetsResponse{}
	p.connected = nil
	if r.Add {
		p.connected = r.Targets
		for i, t := range r.Targets {
			out.Connected = append(out.Connected, api.ConnectedTarget{Index: i, Path: fmt.Sprintf("iscsi://%s/%s/%d", t.Portal, t.IQN, t.LUN)})
		}
	}
	return out, nil
}

// left says what the destination still holds of a migration.
func (p *peer) left() (reservations, targets int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.reserved), len(p.connected)
}

type hostFn func() api.Host

func (f hostFn) Host(context.Context) (api.Host, error) { return f(), nil }

type inspector struct {
	look  func() (inspect.Instance, error)
	mu    sync.Mutex
	calls int
}

func (i *inspector) Inspect(context.Context, api.Ref, []api.Pool) (inspect.Instance, error) {
	i.mu.Lock()
	i.calls++
	i.mu.Unlock()
	return i.look()
}

func (*inspector) RefMissing(inspect.Disk, *api.Record) bool { return false }

type registry struct {
	mu      sync.Mutex
	asked   int
	dropped []string
}

func (r *registry) Record(string) (api.Template, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return api.Template{}, false
}

func (r *registry) DropRef(_ context.Context, volume string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped = append(r.dropped, volume)
	return nil
}

type targetsFn func(api.TargetsRequest) error

func (f targetsFn) Modify(_ context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	return api.TargetsResponse{}, f(r)
}

type observer struct {
	mu      sync.Mutex
	results []string
}

func (o *observer) MigrationDone(_, result string, _ map[string]time.Duration, _ time.Duration, _, _ int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.results = append(o.results, result)
}

// world is a source host with one running instance, and a destination.
type world struct {
	t         testing.TB
	dir       string
	disk      string // path of vda
	instance  inspect.Instance
	libvirt   *libvirt
	mover     *mover
	peer      *peer
	reg       *registry
	inspector *inspector
	observer  *observer
	store     store.Store
	engine    *operation.Engine
	options   migrate.Options
	targets   []api.TargetsRequest
	*migrate.Service
}

func newWorld(t testing.TB) *world {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	w := &world{t: t, dir: dir, disk: filepath.Join(dir, "vda.qcow2"), store: store.Memory(), reg: &registry{}, observer: &observer{},
		libvirt: &libvirt{domains: map[string]hypervisor.Domain{}, xml: map[string]string{}}}
	must(t, os.WriteFile(w.disk, []byte("the guest's bytes"), 0o600))
	w.mover = &mover{migrate: func(context.Context, hypervisor.MigrateParams) error { w.libvirt.gone("vm"); return nil }}
	w.peer = &peer{reserved: map[string]api.Incoming{}, facts: func(api.FactsRequest) (api.Facts, error) {
		return api.Facts{Host: api.Host{Name: "b", UUID: "host-b"}, LibvirtURI: "qemu+tls://b/system", CPU: api.Check{OK: true},
			Pools: []api.Pool{{Name: "default", Path: "/dest", Active: true, Free: gib}}}, nil
	}}
	running := hypervisor.Domain{Name: "vm", UUID: uuid, State: hypervisor.Running, Persistent: true, Memory: 64 * mib}
	w.libvirt.set(running)
	w.libvirt.xml["vm"] = domainXML("vm", fileDisk("vda", w.disk))
	w.instance = inspect.Instance{Domain: running, XML: w.libvirt.xml["vm"], Disks: []inspect.Disk{{Disk: api.Disk{Target: "vda", Kind: "file", Device: "disk",
		Pool: "default", Path: w.disk, Format: "qcow2", Size: 4 * mib, Chain: []api.Layer{{Path: w.disk, Format: "qcow2", VirtualSize: 4 * mib, Allocated: mib}}}}}}
	w.instance.Parsed, err = domainxml.Parse(w.instance.XML)
	must(t, err)
	w.inspector = &inspector{look: func() (inspect.Instance, error) { return w.instance, nil }}
	w.options = migrate.Options{Hypervisor: w.libvirt, Mover: w.mover, Power: w.libvirt, Inspector: w.inspector, Templates: w.reg,
		Host: hostFn(func() api.Host {
			return api.Host{Name: "a", UUID: "host-a", Pools: []api.Pool{{Name: "default", Path: dir, Active: true}}}
		}),
		Targets: targetsFn(func(r api.TargetsRequest) error { w.targets = append(w.targets, r); return nil }),
		Records: record.Dir(t.TempDir()), Digester: volume.NewDigester(), Dial: func(string) (migrate.Peer, error) { return w.peer, nil },
		Guards:   &guards{w.libvirt, map[string]*guard.Watch{}},
		Observer: w.observer, Log: slog.New(slog.DiscardHandler), Now: time.Now, Lease: time.Minute}
	w.start()
	return w
}

// start is a start of the agent on the journal as it is.
func (w *world) start() {
	w.t.Helper()
	engine, err := operation.Open(operation.Options{Store: w.store})
	must(w.t, err)
	w.t.Cleanup(func() { w.close(engine) })
	w.engine, w.options.Operations = engine, engine
	w.Service = migrate.New(w.options)
}

func (w *world) close(e *operation.Engine) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), deadline)
	defer cancel()
	must(w.t, e.Close(ctx))
}

// restart stops the agent in the middle of what it does and starts it anew.
func (w *world) restart() {
	w.t.Helper()
	w.close(w.engine)
	w.start()
}

func (w *world) resume(id string) api.Operation {
	w.t.Helper()
	must(w.t, w.engine.Resume(w.t.Context()))
	return w.ended(id)
}

func (w *world) ended(id string) api.Operation {
	w.t.Helper()
	op, err := w.engine.Wait(w.t.Context(), id, deadline)
	must(w.t, err)
	if !op.Ended() {
		w.t.Fatalf("the operation does not end: %s in %s", op.Status, op.Phase)
	}
	return op
}

func (w *world) begin(r api.MigrateRequest) api.Operation {
	w.t.Helper()
	r.Destination = "https://b:8470"
	op, err := w.Migrate(w.t.Context(), vm, r, api.Idempotency{})
	must(w.t, err)
	return op
}

func (w *world) migrated(r api.MigrateRequest) api.Operation {
	w.t.Helper()
	return w.ended(w.begin(r).ID)
}

// succeeds migrates, which must come to a good end.
func (w *world) succeeds(r api.MigrateRequest) api.MigrateResult {
	w.t.Helper()
	op := w.migrated(r)
	return w.result(op)
}

func (w *world) result(op api.Operation) (out api.MigrateResult) {
	w.t.Helper()
	if op.Status != api.StatusSucceeded {
		w.t.Fatalf("operation %s: %+v", op.Status, op.Error)
	}
	b, err := json.Marshal(op.Result)
	must(w.t, err)
	must(w.t, json.Unmarshal(b, &out))
	return out
}

// fails migrates, which must end with that problem and leave the instance where
// it was and nothing at the destination.
func (w *world) fails(r api.MigrateRequest, status, code, phase string) *api.Problem {
	w.t.Helper()
	op := w.migrated(r)
	return w.failed(op, status, code, phase)
}

func (w *world) failed(op api.Operation, status, code, phase string) *api.Problem {
	w.t.Helper()
	if op.Status != status || op.Error == nil || op.Error.Code != code || op.Error.Phase != phase {
		w.t.Fatalf("operation %s, error %+v; want %s, %s in %s", op.Status, op.Error, status, code, phase)
	}
	if r, c := w.peer.left(); r != 0 || c != 0 {
		w.t.Errorf("the destination holds %d reservations and %d targets", r, c)
	}
	if !w.exists(w.disk) {
		w.t.Error("the source's volume is gone")
	}
	return op.Error
}

func (w *world) exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// onTarget is a request to move vda onto a LUN of the destination.
func onTarget() api.MigrateRequest {
	return api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vda", Connect: &api.Target{Type: "iscsi", Portal: "192.0.2.1:3260", IQN: "iqn.x", LUN: 1}}}}
}
