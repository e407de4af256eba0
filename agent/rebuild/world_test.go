package rebuild_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/chains"
	"github.com/wherry-kvm/wherry/agent/durable/durabletest"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/rebuild"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mib  = 1 << 20
	uuid = "17d3bdbd-009c-4fd9-95f1-14c40c3ddf28"
)

var ref = api.Ref{Project: api.DefaultProject, Name: "vm"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is what outlives the agent: libvirt, files, records, the store.
type host struct {
	*disks
	t     testing.TB
	state string
	store store.Store

	mu      sync.Mutex
	domain  hypervisor.Domain // the instance
	absent  bool
	xml     string // its definition
	live    string // what it runs with
	saved   bool
	others  map[string]string // name to XML of other, stopped instances
	dying   bool              // its guest was told to go down, and will
	deaf    *deaf             // its guest does not; nil: it does
	defined int
	refs    map[string]string // volume to template
	ready   map[string]template
	known   map[string]api.Template
	free    int64
	room    error    // why the pool takes no file
	marks   []string // checkpoints
	// draining is why the host rebuilds nothing.
	draining error
}

// deaf is a guest that does not obey, until its time is over.
type deaf struct {
	asked chan string
	over  chan struct{}
}

// template is one that is ready, and its copy.
type template struct {
	info api.Template
	path string
}

// disks is a pool's folder that hosts have one after the other. Making an image
// costs a process, so each is made once and then copied.
type disks struct {
	t    testing.TB
	pool string
	// inMemory: nor is looked for processes that have a file open, for which the
	// files of all processes of the machine are looked at.
	inMemory bool
	images   map[string][]byte // by the arguments that make it
}

func newDisks(t testing.TB) *disks { return newDisksIn(t, t.TempDir()) }

// newDisksIn has the pool there. In memory a rebuild is an order of magnitude
// faster, since it waits for the disk at each step; but nothing below /dev is
// taken for a folder of volumes, so that no strays are looked for.
func newDisksIn(t testing.TB, pool string) *disks {
	return &disks{t: t, pool: pool, inMemory: strings.HasPrefix(pool, "/dev/"), images: map[string][]byte{}}
}

// Run is qemu-img create, whose last words are the file and its size.
func (d *disks) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	at := len(args) - 2
	if name != "qemu-img" || args[0] != "create" {
		return volume.Exec{}.Run(ctx, name, args...)
	}
	key := strings.Join(slices.Concat(args[:at], args[at+1:]), " ")
	if b, ok := d.images[key]; ok {
		return nil, os.WriteFile(args[at], b, 0o600)
	}
	out, err := volume.Exec{}.Run(ctx, name, args...)
	if err == nil {
		d.images[key], err = os.ReadFile(args[at])
	}
	return out, err
}

// Stream is for what has a progress.
func (d *disks) Stream(ctx context.Context, line func([]byte), name string, args ...string) error {
	return volume.Exec{}.Stream(ctx, line, name, args...)
}

// make makes an image in the pool.
func (d *disks) make(name, size string, more ...string) string {
	d.t.Helper()
	path := filepath.Join(d.pool, name)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	args := append([]string{"create", "-q", "-f", "qcow2"}, more...)
	if _, err := d.Run(ctx, "qemu-img", append(args, path, size)...); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// newHost has the templates one, two (direct download) and large, and the
// instance vm, stopped, linked to one, with a data disk.
func newHost(t testing.TB, more ...func(*host)) *host { return newHostOn(t, newDisks(t), more...) }

func newHostOn(t testing.TB, d *disks, more ...func(*host)) *host {
	h := &host{t: t, disks: d, state: durabletest.Dir(t), store: store.Memory(), others: map[string]string{}, refs: map[string]string{},
		ready: map[string]template{}, known: map[string]api.Template{}, free: 1 << 40,
		domain: hypervisor.Domain{Name: "vm", UUID: uuid, ID: -1, State: hypervisor.Shutoff, Persistent: true}}
	for _, path := range h.volumes() { // of the host that had them before
		must(t, os.Remove(path))
	}
	for name, size := range map[string]int64{"one": 4 * mib, "two": 4 * mib, "large": 8 * mib} {
		path := d.make("wherry-"+name, fmt.Sprint(size))
		info := api.Template{ID: name, Format: "qcow2", VirtualSize: size, Digest: digestOf(path), DirectDownload: name == "two",
			Copies: []api.TemplateCopy{{Pool: "default", Path: path, State: api.CopyReady}}}
		h.ready[name], h.known[name] = template{info, path}, info
	}
	must(t, os.WriteFile(h.data(), make([]byte, 512), 0o600))
	d.make("vm.qcow2", "6M", "-b", h.ready["one"].path, "-F", "qcow2")
	h.refs[h.old()] = "one"
	h.xml = h.definition(h.old(), "qcow2")
	must(t, h.records().Write(api.Record{Project: "default", Name: "vm", UUID: uuid, DomainXML: h.xml, Template: "one", PowerState: "stopped",
		Disks: []api.RecordDisk{
			{Target: "vda", Pool: "default", Volume: "vm.qcow2", Path: h.old(), Format: "qcow2", Template: "one", Owned: true},
			{Target: "vdb", Pool: "default", Volume: "data.raw", Path: h.data(), Format: "raw", Owned: true},
		}}))
	for _, f := range more {
		f(h)
	}
	return h
}

// alone makes the root disk a full clone: an image that stands alone.
func alone(h *host) {
	h.make("vm.qcow2", "6M")
	delete(h.refs, h.old())
}

func digestOf(path string) string { return "sha256:of " + filepath.Base(path) }

func (h *host) old() string  { return filepath.Join(h.pool, "vm.qcow2") }
func (h *host) data() string { return filepath.Join(h.pool, "data.raw") }
func (h *host) records() record.Dir {
	return record.Dir(filepath.Join(h.state, "records"))
}

// definition is in the shape that libvirt gives it, with what must not change
// around the root disk.
func (h *host) definition(root, format string) string {
	return fmt.Sprintf(`<domain type='kvm'>
  <name>vm</name>
  <uuid>%s</uuid>
  <memory unit='KiB'>1024</memory>
  <os><type>hvm</type><nvram>/nvram/vm.fd</nvram></os>
  <devices>
    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='%s' discard='unmap'/>
      <source file='%s'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vdb' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:00:aa:bb:cc'/><source network='default'/></interface>
  </devices>
</domain>`, uuid, format, root, h.data())
}

func running(h *host) {
	h.domain.State, h.domain.ID, h.live = hypervisor.Running, 1, h.xml
	h.editRecord(func(r *api.Record) { r.PowerState = "running" })
}

func (h *host) editRecord(f func(*api.Record)) {
	h.t.Helper()
	r, err := h.records().Read(ref)
	must(h.t, err)
	f(&r)
	must(h.t, h.records().Write(r))
}

// root gives what the definition names.
func (h *host) root() string {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	d, err := domainxml.Parse(h.xml)
	must(h.t, err)
	x, _ := d.Disk("vda")
	return x.Source
}

// volumes lists the pool without the templates and the data disk.
func (h *host) volumes() (out []string) {
	h.t.Helper()
	entries, err := os.ReadDir(h.pool)
	must(h.t, err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "wherry-") && e.Name() != "data.raw" {
			out = append(out, filepath.Join(h.pool, e.Name()))
		}
	}
	return out
}

// errDead is what a process gets that was killed: it does nothing any more.
var errDead = errors.New("killed")

// agent is one life of the agent. It is killed at its n-th point.
type agent struct {
	*host
	engine *operation.Engine
	*rebuild.Service
	now func() time.Time

	gate   sync.Mutex
	points []string
	killAt int // -1: never
	dead   bool
	died   chan struct{}
	fail   map[string]error // what these acts return, without doing anything
	times  int              // how often they do; 0 = each time
	lie    map[string]error // what these acts return, having done it
	after  map[string]func()
	// reserving is called before a volume is made.
	reserving func(path string)
}

func (h *host) agent(more ...func(*agent)) *agent {
	h.t.Helper()
	a := &agent{host: h, killAt: -1, died: make(chan struct{}), fail: map[string]error{}, lie: map[string]error{}, after: map[string]func(){},
		now: func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }}
	for _, f := range more {
		f(a)
	}
	var err error
	a.engine, err = operation.Open(operation.Options{Store: journal{a, h.store}})
	must(h.t, err)
	records := h.records()
	reader := &chains.Reader{Hypervisor: libvirt{a}, Records: records,
		Pools:  func(context.Context) ([]api.Pool, error) { return h.pools(), nil },
		IsCopy: func(path string) bool { return strings.HasPrefix(filepath.Base(path), "wherry-") }}
	a.Service = rebuild.New(rebuild.Options{Hypervisor: libvirt{a}, Definer: libvirt{a}, Power: power{a}, Templates: registry{a}, Bases: registry{a},
		Chains: reader, Digester: registry{a}, Host: a, Volumes: files{a, rebuild.Files{Runner: h.disks}}, Records: records, Keeper: keeper{a},
		Operations: a.engine, Log: slog.New(slog.DiscardHandler), Now: a.now, Free: func(string) (int64, error) { return h.free, nil },
		Room: func(string, int64) error { return h.room }, Refuse: func() error { return h.draining }})
	return a
}

func (h *host) pools() []api.Pool {
	return []api.Pool{{Name: "default", Type: "dir", Path: h.pool, Active: true}}
}

func (a *agent) Host(context.Context) (api.Host, error) { return api.Host{Pools: a.pools()}, nil }

// close ends the process in an orderly way, or buries it.
func (a *agent) close() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := a.engine.Close(ctx); err != nil && !a.isDead() {
		a.t.Error(err)
	}
}

func (a *agent) isDead() bool {
	a.gate.Lock()
	defer a.gate.Unlock()
	return a.dead
}

// point is a place where the process may be killed.
func (a *agent) point(name string) error {
	a.gate.Lock()
	defer a.gate.Unlock()
	if a.dead {
		return errDead
	}
	if len(a.points) == a.killAt {
		a.dead = true
		close(a.died)
		return errDead
	}
	a.points = append(a.points, name)
	return nil
}

// act does something to the world, and may be killed before or after.
func (a *agent) act(name string, do func() error) error {
	if err := a.point("before " + name); err != nil {
		return err
	}
	if err := a.failure(name); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	if f := a.after[name]; f != nil {
		f()
	}
	if err := a.point("after " + name); err != nil {
		return err
	}
	return a.lie[name]
}

func (a *agent) failure(name string) error {
	a.gate.Lock()
	defer a.gate.Unlock()
	err := a.fail[name]
	if err != nil && a.times > 0 {
		if a.times--; a.times == 0 {
			delete(a.fail, name)
		}
	}
	return err
}

func (a *agent) look() error {
	if a.isDead() {
		return errDead
	}
	return nil
}

func (a *agent) acts(name string) (n int) {
	a.gate.Lock()
	defer a.gate.Unlock()
	for _, p := range a.points {
		if p == "before "+name {
			n++
		}
	}
	return n
}

// journal is the store as the process has it.
type journal struct {
	*agent
	store.Store
}

func (j journal) Put(bucket, key string, value []byte) error {
	return j.act("journal", func() error { return j.Store.Put(bucket, key, value) })
}

func (j journal) Update(fn func(store.Tx) error) error {
	return j.act("journal", func() error { return j.Store.Update(fn) })
}

func (j journal) Get(bucket, key string) ([]byte, error) {
	if err := j.look(); err != nil {
		return nil, err
	}
	return j.Store.Get(bucket, key)
}

// keeper writes records as the process does.
type keeper struct{ *agent }

func (k keeper) Write(r api.Record) error {
	return k.act("record", func() error { return k.records().Write(r) })
}

func (k keeper) Remove(ref api.Ref) error {
	return k.act("forget record", func() error { return k.records().Remove(ref) })
}

// libvirt is what the process sees of it.
type libvirt struct{ *agent }

func (l libvirt) Domain(_ context.Context, name string) (hypervisor.Domain, error) {
	if err := l.look(); err != nil {
		return hypervisor.Domain{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if name != "vm" || l.absent {
		return hypervisor.Domain{}, fmt.Errorf("look up %q: %w", name, hypervisor.ErrNoDomain)
	}
	return l.domain, nil
}

func (l libvirt) Domains(context.Context) ([]hypervisor.Domain, error) {
	if err := l.look(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []hypervisor.Domain
	if !l.absent {
		out = append(out, l.domain)
	}
	for name := range l.others {
		out = append(out, hypervisor.Domain{Name: name, UUID: "of " + name, ID: -1, State: hypervisor.Shutoff, Persistent: true})
	}
	return out, nil
}

func (l libvirt) XML(_ context.Context, name string, inactive bool) (string, error) {
	if err := l.look(); err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch other, ok := l.others[name]; {
	case ok:
		return other, nil
	case l.absent:
		return "", fmt.Errorf("read XML of %q: %w", name, hypervisor.ErrNoDomain)
	case !inactive && l.domain.Active():
		return l.live, nil
	}
	return l.xml, nil
}

func (l libvirt) Blocks(context.Context, string) ([]hypervisor.BlockNode, error) {
	return nil, hypervisor.ErrInvalidState
}

func (l libvirt) Snapshots(context.Context, string) ([]string, error) {
	return []string{"before-upgrade", "clean"}, l.look()
}
func (l libvirt) Checkpoints(context.Context, string) ([]string, error) { return l.marks, l.look() }
func (l libvirt) Saved(context.Context, string) (bool, error)           { return l.saved, l.look() }
func (l libvirt) RefreshPool(context.Context, string) error             { return l.look() }
func (l libvirt) WaitState(ctx context.Context, name string, _ ...hypervisor.State) (hypervisor.Domain, error) {
	if err := l.fail["wait"]; err != nil {
		return hypervisor.Domain{}, err
	}
	return l.Domain(ctx, name)
}

func (l libvirt) Define(_ context.Context, xml string) error {
	return l.act("define", func() error {
		if _, err := domainxml.Parse(xml); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.xml = xml
		l.defined++
		return nil
	})
}

// power stops and starts as the process does. A guest that was told to go down
// does so even where nobody waits for it.
type power struct{ *agent }

func (p power) Down(ctx context.Context, _ *operation.Op, _ string, r api.StopRequest) (api.StopResult, error) {
	if p.deaf != nil {
		p.deaf.asked <- r.OnTimeout
		select {
		case <-ctx.Done():
			return api.StopResult{}, context.Cause(ctx)
		case <-p.deaf.over:
			if r.OnTimeout != "force" {
				return api.StopResult{}, api.NewProblem("timeout", "the guest did not power off")
			}
		}
	}
	p.mu.Lock()
	dead := p.look()
	p.dying = p.dying || dead == nil && p.domain.Active()
	p.mu.Unlock()
	return api.StopResult{Rung: api.RungACPI}, p.act("down", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.domain.State, p.domain.ID, p.dying = hypervisor.Shutoff, -1, false
		p.editRecord(func(r *api.Record) { r.PowerState = "stopped" })
		return nil
	})
}

func (p power) Up(context.Context, api.Ref) error {
	return p.act("up", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.absent {
			return api.NewProblem("not-found", "no instance")
		}
		if !p.domain.Active() {
			p.domain.State, p.domain.ID, p.live = hypervisor.Running, 2, p.xml
			if _, err := p.records().Read(ref); err == nil {
				p.editRecord(func(r *api.Record) { r.PowerState = "running" })
			}
		}
		return nil
	})
}

// registry is that of the templates.
type registry struct{ *agent }

func (r registry) Record(id string) (api.Template, bool) { t, ok := r.known[id]; return t, ok }

func (r registry) Ready(_ context.Context, id string) (api.Template, string, error) {
	if t, ok := r.ready[id]; ok {
		return t.info, t.path, nil
	}
	return api.Template{}, "", api.NewProblem("precondition", "template %q is not ready", id)
}

func (r registry) Bring(ctx context.Context, id string, report func(done, total int64)) error {
	return r.act("bring", func() error {
		report(1, 2)
		t := r.known[id]
		t.VirtualSize, t.Digest = 8*mib, digestOf(r.ready["large"].path)
		r.ready[id] = template{t, r.ready["large"].path}
		return ctx.Err()
	})
}

func (r registry) RefOf(volume string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, ok := r.refs[volume]
	return id, ok
}

func (r registry) PutRef(_ context.Context, id, base string, ref api.TemplateRef) error {
	return r.act("put ref", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ready[id].path != base || ref.Instance != "vm" || ref.Disk != "vda" || ref.Project != "default" {
			return fmt.Errorf("ref %+v to %q at %q", ref, id, base)
		}
		r.refs[ref.Volume] = id
		return nil
	})
}

func (r registry) DropRef(_ context.Context, volume string) error {
	return r.act("drop ref", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.refs, volume)
		return nil
	})
}

func (r registry) ByPath(path string) (id string, direct, ok bool) {
	for id, t := range r.ready {
		if t.path == path {
			return id, t.info.DirectDownload, true
		}
	}
	return "", false, false
}

func (r registry) Digest(_ context.Context, path string) (string, error) {
	return digestOf(path), r.act("digest", func() error { return nil })
}

// files are real ones, as long as the process lives.
type files struct {
	*agent
	real rebuild.Files
}

func (f files) Identify(path string) (volume.Owned, error) {
	if err := f.look(); err != nil {
		return volume.Owned{}, err
	}
	return f.real.Identify(path)
}

func (f files) Reserve(path string) (own volume.Owned, err error) {
	if f.reserving != nil {
		f.reserving(path)
	}
	err = f.act("reserve", func() error { own, err = f.real.Reserve(path); return err })
	return own, err
}

func (f files) Format(ctx context.Context, own volume.Owned, s volume.Spec) error {
	return f.act("format", func() error { return f.real.Format(ctx, own, s) })
}

func (f files) Fill(ctx context.Context, base string, format volume.Format, own volume.Owned, s volume.Spec, p volume.Progress) error {
	return f.act("fill", func() error { return f.real.Fill(ctx, base, format, own, s, p) })
}

func (f files) Resemble(own volume.Owned, path string) error {
	return f.act("resemble", func() error { return f.real.Resemble(own, path) })
}

func (f files) Finish(own volume.Owned, s volume.Spec) error {
	return f.act("finish", func() error { return f.real.Finish(own, s) })
}

func (f files) Remove(own volume.Owned) error {
	return f.act("remove "+map[bool]string{true: "old", false: "new"}[own.Path == f.old()], func() error { return f.remove(own) })
}

func (f files) remove(own volume.Owned) error {
	if !f.inMemory {
		return f.real.Remove(own)
	}
	switch err := own.Verify(); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return os.Remove(own.Path)
}

// begun starts a rebuild.
func (a *agent) begun(r api.RebuildRequest) api.Operation {
	a.t.Helper()
	op, err := a.Rebuild(a.t.Context(), ref, r, api.Idempotency{})
	must(a.t, err)
	return op
}

func (a *agent) ended(id string) api.Operation {
	a.t.Helper()
	op, err := a.engine.Wait(a.t.Context(), id, 20*time.Second)
	must(a.t, err)
	if !op.Ended() {
		a.t.Fatalf("operation %+v did not end", op)
	}
	return op
}

func (a *agent) run(r api.RebuildRequest) (api.Operation, api.RebuildResult) {
	a.t.Helper()
	op := a.ended(a.begun(r).ID)
	var result api.RebuildResult
	if op.Status == api.StatusSucceeded {
		must(a.t, json.Unmarshal(op.Result, &result))
	}
	return op, result
}

func (a *agent) succeeds(r api.RebuildRequest) api.RebuildResult {
	a.t.Helper()
	op, result := a.run(r)
	if op.Status != api.StatusSucceeded {
		a.t.Fatalf("%s: %v", op.Status, op.Error)
	}
	return result
}

func original() api.RebuildRequest {
	return api.RebuildRequest{Source: api.RebuildSource{Type: api.SourceOriginal}}
}

func from(id string) api.RebuildRequest {
	return api.RebuildRequest{Source: api.RebuildSource{Type: api.SourceTemplate, Template: id}}
}

func empty() api.RebuildRequest {
	return api.RebuildRequest{Source: api.RebuildSource{Type: api.SourceEmpty}}
}

// sound wants one root disk that can be booted from, and everything else to say
// the same: the record, the refs, the pool. It tells whether it is the old one.
func (h *host) sound() (old bool) {
	h.t.Helper()
	root := h.root()
	old = root == h.old()
	d, err := domainxml.Parse(h.xml)
	must(h.t, err)
	x, _ := d.Disk("vda")
	chain, err := volume.Walk(root, volume.Format(x.Format), []string{h.pool})
	if err != nil || len(chain.Issues()) > 0 {
		h.t.Errorf("root disk %s: %v %v", root, err, chain.Issues())
	}
	want := []string{root}
	if got := h.volumes(); !slices.Equal(got, want) {
		h.t.Errorf("volumes %q; want %q", got, want)
	}
	rec, err := h.records().Read(ref)
	if err != nil || rec.Disks[len(rec.Disks)-2].Path != root || rec.Disks[len(rec.Disks)-2].Target != "vda" || !rec.Disks[len(rec.Disks)-2].Owned || rec.Disks[len(rec.Disks)-1].Path != h.data() {
		h.t.Errorf("record %+v, %v; want root disk %s", rec.Disks, err, root)
	}
	if rec.Template != rec.Disks[len(rec.Disks)-2].Template {
		h.t.Errorf("record of template %q, its disk of %q", rec.Template, rec.Disks[len(rec.Disks)-2].Template)
	}
	want = nil
	if len(chain) > 1 {
		want = []string{root}
	}
	if got := slices.Collect(maps.Keys(h.refs)); !slices.Equal(got, want) || len(chain) > 1 && h.ready[h.refs[root]].path != chain[1].Path {
		h.t.Errorf("refs %v; want one of %s to what it stands on", h.refs, root)
	}
	if h.domain.Active() {
		live, err := domainxml.Parse(h.live)
		must(h.t, err)
		if x, _ := live.Disk("vda"); x.Source != root {
			h.t.Errorf("it runs on %s and is defined with %s", x.Source, root)
		}
		if rec.PowerState != "running" {
			h.t.Errorf("power state %q of what runs", rec.PowerState)
		}
	}
	if h.dying {
		h.t.Error("its guest was told to go down, and nobody saw to the end of it")
	}
	return old
}
