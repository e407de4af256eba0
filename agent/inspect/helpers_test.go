package inspect_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const (
	mib  = 1 << 20
	uuid = "6e0f4b2c-0000-4000-8000-000000000001"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// libvirt is a host with one domain.
type libvirt struct {
	domain           hypervisor.Domain
	xml              string
	nodes            []hypervisor.BlockNode
	err              error
	inactive         bool // what XML was asked for
	askedXML, askedQ int
}

func (l *libvirt) Domain(context.Context, string) (hypervisor.Domain, error) { return l.domain, l.err }

func (l *libvirt) XML(_ context.Context, _ string, inactive bool) (string, error) {
	l.inactive = inactive
	l.askedXML++
	return l.xml, nil
}

func (l *libvirt) Blocks(context.Context, string) ([]hypervisor.BlockNode, error) {
	l.askedQ++
	return l.nodes, nil
}

// registry knows templates by path and id, and counts questions.
type registry struct {
	byPath map[string]string
	direct map[string]bool
	refs   map[string]bool
	lost   map[string]string
	asked  int
}

func (r *registry) Lost(path string) (string, bool) {
	r.asked++
	why, lost := r.lost[path]
	return why, lost
}

func (r *registry) ByPath(path string) (string, bool, bool) {
	r.asked++
	id, ok := r.byPath[path]
	return id, r.direct[id], ok
}

func (r *registry) Direct(id string) (direct, known bool) {
	r.asked++
	direct, known = r.direct[id]
	return direct, known
}

func (r *registry) HasRef(id, volume string) bool {
	r.asked++
	return r.refs[id+" "+volume]
}

// world is a folder with images, a domain on them, and the service.
type world struct {
	t       testing.TB
	dir     string
	libvirt *libvirt
	reg     *registry
	service *inspect.Service
}

func newWorld(t testing.TB) *world {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	w := &world{t: t, dir: dir, libvirt: &libvirt{domain: hypervisor.Domain{Name: "vm", UUID: uuid, State: hypervisor.Running}},
		reg: &registry{byPath: map[string]string{}, direct: map[string]bool{}, refs: map[string]bool{}}}
	w.service = &inspect.Service{Hypervisor: w.libvirt, Templates: w.reg, Records: record.Dir(filepath.Join(dir, "records"))}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// qcow2 makes an image, on a backing layer if one is named.
func (w *world) qcow2(name, backing string) string {
	w.t.Helper()
	args := []string{"create", "-q", "-f", "qcow2"}
	if backing != "" {
		args = append(args, "-b", backing, "-F", "qcow2")
	}
	w.img(append(args, w.path(name), "4M")...)
	return w.path(name)
}

func (w *world) img(args ...string) {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), "qemu-img", args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

// patch changes an image's bytes behind everybody's back.
func (w *world) patch(path string, change func([]byte)) {
	w.t.Helper()
	b, err := os.ReadFile(path)
	must(w.t, err)
	change(b)
	must(w.t, os.WriteFile(path, b, 0o600))
}

// forgetFormat makes the header's backing format an extension nobody knows.
func forgetFormat(b []byte) {
	copy(b[bytes.Index(b, []byte{0xe2, 0x79, 0x2a, 0xca}):], []byte{0x12, 0x34, 0x56, 0x78})
}

func setFeature(bit byte) func([]byte) { return func(b []byte) { b[79] |= bit } }

// disk puts one disk into the domain's XML.
func (w *world) disk(kind, source, format string, below ...string) {
	backing := "<backingStore/>"
	for i := len(below) - 1; i >= 0; i-- {
		backing = fmt.Sprintf("<backingStore type='file'><format type='qcow2'/><source file='%s'/>%s</backingStore>", below[i], backing)
	}
	if len(below) == 0 {
		backing = ""
	}
	attr := map[string]string{"file": "file", "block": "dev"}[kind]
	driver := ""
	if format != "" {
		driver = fmt.Sprintf("<driver name='qemu' type='%s'/>", format)
	}
	w.xml(fmt.Sprintf("<disk type='%s' device='disk'>%s<source %s='%s'/>%s<target dev='vda' bus='virtio'/></disk>", kind, driver, attr, source, backing))
}

func (w *world) xml(disks string) {
	w.libvirt.xml = "<domain type='kvm'><name>vm</name><uuid>" + uuid + "</uuid><memory>1024</memory><devices>" + disks + "</devices></domain>"
}

// open says what QEMU has open for vda, active layer first.
func (w *world) open(layers ...hypervisor.Layer) {
	w.libvirt.nodes = []hypervisor.BlockNode{{Target: "vda", Layers: layers}}
}

func layer(path string) hypervisor.Layer {
	return hypervisor.Layer{Path: path, Format: "qcow2", VirtualSize: 4 * mib, Allocated: 100}
}

func (w *world) inspect() inspect.Instance {
	w.t.Helper()
	in, err := w.service.Inspect(w.t.Context(), api.Ref{Project: api.DefaultProject, Name: "vm"}, []api.Pool{{Name: "default", Path: w.dir, Active: true}})
	must(w.t, err)
	return in
}

func (w *world) only() inspect.Disk {
	w.t.Helper()
	in := w.inspect()
	if len(in.Disks) != 1 {
		w.t.Fatalf("%d disks", len(in.Disks))
	}
	return in.Disks[0]
}

func oneOf(got []string, want string) bool {
	if want == "" {
		return len(got) == 0
	}
	return len(got) == 1 && strings.Contains(got[0], want)
}
