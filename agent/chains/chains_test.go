package chains_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/chains"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// domain is one that libvirt has: what it says of it, and what QEMU does.
type domain struct {
	hypervisor.Domain
	live, inactive string
	nodes          []hypervisor.BlockNode
	blocks, xml    error
	hangs          bool
}

type libvirt struct {
	domains []domain
	err     error
	asked   []string // whose QEMU was asked
}

func (l *libvirt) Domains(context.Context) ([]hypervisor.Domain, error) {
	var out []hypervisor.Domain
	for _, d := range l.domains {
		out = append(out, d.Domain)
	}
	return out, l.err
}

func (l *libvirt) named(name string) domain {
	return l.domains[slices.IndexFunc(l.domains, func(d domain) bool { return d.Name == name })]
}

func (l *libvirt) XML(_ context.Context, name string, inactive bool) (string, error) {
	d := l.named(name)
	if inactive {
		return d.inactive, d.xml
	}
	return d.live, d.xml
}

func (l *libvirt) Blocks(ctx context.Context, name string) ([]hypervisor.BlockNode, error) {
	l.asked = append(l.asked, name)
	d := l.named(name)
	if d.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return d.nodes, d.blocks
}

// world is a pool with a template's copy and a volume on it.
type world struct {
	t         testing.TB
	dir, copy string
	libvirt   libvirt
	*chains.Reader
}

func newWorld(t testing.TB) *world {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	w := &world{t: t, dir: dir}
	w.copy = w.image("wherry-template-1.qcow2", "")
	w.Reader = &chains.Reader{Hypervisor: &w.libvirt, IsCopy: func(path string) bool { return path == w.copy },
		Records: record.Dir(filepath.Join(dir, "records")), InstanceTimeout: 20 * time.Millisecond,
		Pools: func(context.Context) ([]api.Pool, error) {
			return []api.Pool{{Name: "default", Type: "dir", Path: dir, Active: true}}, nil
		}}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) image(name, backing string, more ...string) string {
	w.t.Helper()
	args := append([]string{"create", "-q", "-f", "qcow2"}, more...)
	if backing != "" {
		args = append(args, "-b", backing, "-F", "qcow2")
	}
	args = append(args, w.path(name), "1M")
	if out, err := exec.CommandContext(w.t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		w.t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
	return w.path(name)
}

func xml(disks ...string) string {
	return "<domain type='qemu'><name>vm</name><devices>" + strings.Join(disks, "") + "</devices></domain>"
}

func file(target, format, path string) string {
	return fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='%s'/><source file='%s'/><target dev='%s'/></disk>", format, path, target)
}

func stopped(name, text string) domain {
	return domain{Domain: hypervisor.Domain{Name: name, UUID: name, State: hypervisor.Shutoff, Persistent: true}, inactive: text}
}

func running(name, text string, layers ...string) domain {
	d := domain{Domain: hypervisor.Domain{Name: name, UUID: name, State: hypervisor.Running}, live: text}
	n := hypervisor.BlockNode{Target: "vda"}
	for _, l := range layers {
		n.Layers = append(n.Layers, hypervisor.Layer{Path: l, Format: "qcow2"})
	}
	d.nodes = []hypervisor.BlockNode{n}
	return d
}

func (w *world) users(c template.Chains) []string {
	var out []string
	for _, u := range c.On(template.FileAt(w.copy)) {
		out = append(out, u.Instance+" "+u.Disk+" "+strings.TrimPrefix(u.Volume, w.dir+"/"))
	}
	return out
}

// Who stands on a copy is found by whichever witness knows it; what cannot be
// read is said.
func TestRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(w *world) domain
		want   string // who stands on the copy; "" for nobody
		unread string // what is said of what could not be read
	}{
		{"stopped, by the headers", func(w *world) domain {
			return stopped("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy))))
		}, "vm vda vm.qcow2", ""},
		{"stopped, through a layer outside the pools", func(w *world) domain {
			must(t, os.Mkdir(w.path("elsewhere"), 0o700))
			return stopped("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", w.image("elsewhere/mid.qcow2", w.copy)))))
		}, "vm vda vm.qcow2", ""},
		{"stopped, by a relative name", func(w *world) domain {
			return stopped("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", "wherry-template-1.qcow2"))))
		}, "vm vda vm.qcow2", ""},
		{"stopped, through a link", func(w *world) domain {
			must(t, os.Mkdir(w.path("links"), 0o700))
			must(t, os.Symlink(w.dir, w.path("links/pool")))
			return stopped("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", w.path("links/pool/wherry-template-1.qcow2")))))
		}, "vm vda vm.qcow2", ""},
		{"the copy itself is the disk", func(w *world) domain { return stopped("vm", xml(file("vda", "qcow2", w.copy))) }, "vm vda wherry-template-1.qcow2", ""},
		{"the copy is raw and the disk", func(w *world) domain { return stopped("vm", xml(file("vda", "raw", w.copy))) }, "vm vda wherry-template-1.qcow2", ""},
		{"a medium", func(w *world) domain {
			return stopped("vm", xml("<disk type='file' device='cdrom'><source file='"+w.copy+"'/><target dev='sda'/></disk>"))
		}, "vm sda wherry-template-1.qcow2", ""},
		{"a volume of a pool", func(w *world) domain {
			w.image("vm.qcow2", w.copy)
			return stopped("vm", xml("<disk type='volume' device='disk'><driver type='qcow2'/><source pool='default' volume='vm.qcow2'/><target dev='vda'/></disk>"))
		}, "vm vda vm.qcow2", ""},
		{"a volume of a pool that is not here", func(*world) domain {
			return stopped("vm", xml("<disk type='volume' device='disk'><driver type='qcow2'/><source pool='other' volume='vm.qcow2'/><target dev='vda'/></disk>"))
		}, "", `pool "other"`},
		{"running, as QEMU has it", func(w *world) domain {
			return running("vm", xml(file("vda", "qcow2", w.image("alone.qcow2", ""))), w.path("alone.qcow2"), w.copy)
		}, "vm vda alone.qcow2", ""},
		{"running, as only the header knows", func(w *world) domain {
			return running("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy))), w.path("vm.qcow2"))
		}, "vm vda vm.qcow2", ""},
		{"running, and its next start has another disk", func(w *world) domain {
			d := running("vm", xml(file("vda", "qcow2", w.image("alone.qcow2", ""))), w.path("alone.qcow2"))
			d.Persistent, d.inactive = true, xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy)))
			return d
		}, "vm vda vm.qcow2", ""},
		{"running, with headers that lead nowhere", func(w *world) domain {
			must(t, os.WriteFile(w.path("vm.qcow2"), []byte("no image"), 0o600))
			return running("vm", xml(file("vda", "qcow2", w.path("vm.qcow2"))), w.path("vm.qcow2"), w.copy)
		}, "vm vda vm.qcow2", ""},
		{"QEMU does not answer", func(w *world) domain {
			d := running("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy))))
			d.hangs = true
			return d
		}, "vm vda vm.qcow2", "QEMU"},
		{"QEMU refuses", func(w *world) domain {
			d := running("vm", xml(file("vda", "qcow2", w.image("alone.qcow2", ""))))
			d.blocks = errors.New("monitor is gone")
			return d
		}, "", "monitor is gone"},
		{"it stopped meanwhile", func(w *world) domain {
			d := running("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy))))
			d.blocks = hypervisor.ErrInvalidState
			return d
		}, "vm vda vm.qcow2", ""},
		{"it has gone", func(*world) domain {
			d := running("vm", "")
			d.blocks = fmt.Errorf("blocks: %w", hypervisor.ErrNoDomain)
			return d
		}, "", ""},
		{"its definition cannot be read", func(*world) domain {
			d := stopped("vm", "")
			d.xml = errors.New("no answer")
			return d
		}, "", "no answer"},
		{"its definition is none", func(*world) domain { return stopped("vm", "<pool/>") }, "", "definition"},
		{"a disk is being copied", func(w *world) domain {
			d := running("vm", xml("<disk type='file' device='disk'><driver type='qcow2'/><source file='"+w.image("alone.qcow2", "")+"'/><mirror type='file'/><target dev='vda'/></disk>"), w.path("alone.qcow2"))
			return d
		}, "", "being copied"},
		{"a layer has gone", func(w *world) domain {
			text := xml(file("vda", "qcow2", w.image("vm.qcow2", w.image("mid.qcow2", w.copy))))
			must(t, os.Remove(w.path("mid.qcow2")))
			return stopped("vm", text)
		}, "", "mid.qcow2"},
		{"the copy has gone", func(w *world) domain {
			text := xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy)))
			must(t, os.Remove(w.copy))
			return stopped("vm", text)
		}, "vm vda vm.qcow2", ""},
		{"the copy is no image any more", func(w *world) domain {
			text := xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy)))
			must(t, os.WriteFile(w.copy, []byte("zeros"), 0o600))
			return stopped("vm", text)
		}, "vm vda vm.qcow2", ""},
		{"its volume has gone from a pool that is there", func(w *world) domain {
			return stopped("vm", xml(file("vda", "qcow2", w.path("gone.qcow2"))))
		}, "", ""},
		{"its volume is not there, nor any pool", func(w *world) domain {
			return stopped("vm", xml(file("vda", "qcow2", w.path("unmounted/vm.qcow2"))))
		}, "", "unmounted"},
		{"a backing file in JSON", func(w *world) domain {
			return stopped("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", `json:{"driver":"qcow2","file":{"driver":"file","filename":"`+w.copy+`"}}`))))
		}, "", "not a plain path"},
		{"a chain that loops", func(w *world) domain {
			text := xml(file("vda", "qcow2", w.image("vm.qcow2", w.image("mid.qcow2", w.copy))))
			must(t, os.Remove(w.path("mid.qcow2")))
			must(t, os.Symlink(w.path("vm.qcow2"), w.path("mid.qcow2")))
			return stopped("vm", text)
		}, "", "loops"},
		{"other formats", func(w *world) domain {
			return stopped("vm", xml(file("vda", "vmdk", w.path("a.vmdk")), file("vdb", "raw", w.path("b")),
				"<disk type='network' device='disk'><driver type='qcow2'/><source protocol='rbd' name='p/i'/><target dev='vdc'/></disk>",
				"<disk type='file' device='cdrom'><target dev='sda'/></disk>"))
		}, "", ""},
		{"a format with backing files that is not read here", func(w *world) domain {
			must(t, os.WriteFile(w.path("vm.qed"), nil, 0o600))
			return stopped("vm", xml(file("vda", "qed", w.path("vm.qed"))))
		}, "", "qed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.libvirt.domains = []domain{c.make(w), stopped("other", xml())}
			got, err := w.Read(t.Context())
			must(t, err)
			if users := strings.Join(w.users(got), ", "); users != c.want {
				t.Errorf("on the copy: %q; want %q", users, c.want)
			}
			unread := strings.Join(got.Unread, "; ")
			if c.unread == "" && unread != "" || !strings.Contains(unread, c.unread) {
				t.Errorf("unread: %q; want %q", unread, c.unread)
			}
			if unread != "" && !strings.Contains(unread, `instance "vm"`) {
				t.Errorf("unread: %q does not name the instance", unread)
			}
		})
	}
}

// What a guest has written may lie in a file of its own, which only the header
// of its image names.
func TestDataFiles(t *testing.T) {
	w := newWorld(t)
	mine := w.image("mine.qcow2", "", "-o", "data_file="+w.path("mine.raw"))
	w.image("kept.qcow2", "", "-o", "data_file="+w.path("kept.raw"))
	w.libvirt.domains = []domain{stopped("vm", xml(file("vda", "qcow2", mine)))}
	got, err := w.ReadAll(t.Context())
	must(t, err)
	for _, name := range []string{"mine", "kept"} {
		users := got.On(template.FileAt(w.path(name + ".raw")))
		if len(users) != 1 || users[0].Volume != w.path(name+".qcow2") {
			t.Errorf("%s.raw: users %+v", name, users)
		}
	}
}

// One that is arriving is asked nothing, and counts with what it will open.
func TestArriving(t *testing.T) {
	w := newWorld(t)
	d := running("vm", xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy))))
	d.State, d.Incoming = hypervisor.Paused, true
	w.libvirt.domains = []domain{d}
	got, err := w.Read(t.Context())
	must(t, err)
	if len(w.users(got)) != 1 || len(got.Unread) != 0 || len(w.libvirt.asked) != 0 {
		t.Errorf("users %q, unread %q, asked %q", w.users(got), got.Unread, w.libvirt.asked)
	}
}

func TestProject(t *testing.T) {
	w := newWorld(t)
	must(t, w.Records.Write(api.Record{Project: "blue", Name: "vm", UUID: "vm"}))
	w.libvirt.domains = []domain{stopped("vm", xml(file("vda", "qcow2", w.copy))), stopped("vm2", xml(file("vda", "qcow2", w.copy)))}
	got, err := w.Read(t.Context())
	must(t, err)
	if got.Uses[0].Project != "blue" || got.Uses[1].Project != api.DefaultProject {
		t.Errorf("uses %+v", got.Uses)
	}
}

func TestReadFails(t *testing.T) {
	w := newWorld(t)
	w.libvirt.err = hypervisor.ErrDown
	if _, err := w.Read(t.Context()); !errors.Is(err, hypervisor.ErrDown) {
		t.Errorf("error %v", err)
	}
	w.libvirt.err = nil
	w.Pools = func(context.Context) ([]api.Pool, error) { return nil, hypervisor.ErrDown }
	if _, err := w.Read(t.Context()); !errors.Is(err, hypervisor.ErrDown) {
		t.Errorf("error %v", err)
	}
}

// A reading that hangs in the kernel keeps nobody beyond the deadline, and no
// second one comes on top of it.
func TestReadHasADeadline(t *testing.T) {
	w := newWorld(t)
	w.Timeout = time.Millisecond
	release := make(chan struct{})
	pools := w.Pools
	w.Pools = func(context.Context) ([]api.Pool, error) { <-release; return pools(t.Context()) }
	if _, err := w.Read(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if _, err := w.ReadAll(t.Context()); !errors.Is(err, chains.ErrBusy) {
		t.Errorf("error %v", err)
	}
	close(release)
	w.Timeout = time.Minute
	for {
		_, err := w.Read(t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, chains.ErrBusy) {
			t.Fatalf("after the hang: %v", err)
		}
	}
}

// Volumes that the store knows of are looked at where no instance has them.
func TestReadVolumes(t *testing.T) {
	w := newWorld(t)
	mine, kept := w.image("mine.qcow2", w.copy), w.image("kept.qcow2", w.copy)
	must(t, os.WriteFile(w.path("raw.img"), []byte("a disk"), 0o600))
	w.libvirt.domains = []domain{stopped("vm", xml(file("vda", "qcow2", mine)))}
	got, err := w.Read(t.Context(), mine, kept, w.path("raw.img"), w.path("gone.qcow2"), w.path("unmounted/vm.qcow2"), "/dev/null")
	must(t, err)
	if users := w.users(got); !slices.Equal(users, []string{"vm vda mine.qcow2", "  kept.qcow2"}) {
		t.Errorf("users %q", users)
	}
	if !slices.Equal(got.Gone, []string{w.path("gone.qcow2")}) || len(got.Unread) != 0 {
		t.Errorf("gone %q, unread %q", got.Gone, got.Unread)
	}
}

// Volumes that no instance has any more still stand on what they stand on.
func TestReadAll(t *testing.T) {
	w := newWorld(t)
	mine := w.image("mine.qcow2", w.copy)
	w.image("kept.qcow2", w.copy)
	w.image("relative.qcow2", "wherry-template-1.qcow2")
	w.image("protocol.qcow2", "file:"+w.copy)
	w.image("alone.qcow2", "")
	must(t, os.WriteFile(w.path("raw.img"), []byte("a disk"), 0o600))
	must(t, os.WriteFile(w.path("broken.qcow2"), []byte("QFI\xfb\x00\x00\x00\x09"), 0o600))
	must(t, syscall.Mkfifo(w.path("pipe"), 0o600))
	must(t, os.Symlink(w.copy, w.path("link")))
	w.libvirt.domains = []domain{stopped("vm", xml(file("vda", "qcow2", mine)))}
	got, err := w.ReadAll(t.Context())
	must(t, err)
	users := w.users(got)
	slices.Sort(users)
	want := []string{"  kept.qcow2", "  protocol.qcow2", "  relative.qcow2", "vm vda mine.qcow2"}
	if !slices.Equal(users, want) || len(got.Unread) != 0 {
		t.Errorf("users %q, unread %q; want %q", users, got.Unread, want)
	}
	w.image("json.qcow2", `json:{"driver":"qcow2","file":{"driver":"file","filename":"`+w.copy+`"}}`)
	if got, err = w.ReadAll(t.Context()); err != nil || len(got.Unread) != 1 || !strings.Contains(got.Unread[0], "json.qcow2") {
		t.Errorf("unread %q, %v", got.Unread, err)
	}
}
