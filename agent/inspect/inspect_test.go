package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Three witnesses must say the same of a running instance's disk.
func TestCrossCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(w *world, active, base string)
		want string // part of the one disagreement; "" for none
	}{
		{"agreed", func(*world, string, string) {}, ""},
		{"libvirt knows no chain", func(w *world, active, _ string) { w.disk("file", active, "qcow2") }, ""},
		{"a link to the same file", func(w *world, active, base string) {
			must(w.t, os.Symlink(active, w.path("link")))
			w.disk("file", w.path("link"), "qcow2", base)
		}, ""},
		{"QEMU has another base open", func(w *world, active, _ string) {
			other := w.qcow2("other.qcow2", "")
			w.disk("file", active, "qcow2")
			w.open(layer(active), layer(other))
		}, "other.qcow2 open, the header above it names"},
		{"QEMU has a layer more", func(w *world, active, base string) {
			w.disk("file", active, "qcow2")
			w.open(layer(w.qcow2("snapshot.qcow2", active)), layer(active), layer(base))
			w.disk("file", active, "qcow2")
		}, ""}, // two: checked below
		{"QEMU reads a layer in another format", func(w *world, active, base string) {
			raw := layer(base)
			raw.Format = "raw"
			w.open(layer(active), raw)
		}, "QEMU reads it as raw, it is recorded as qcow2"},
		{"another virtual size", func(w *world, active, base string) {
			small := layer(base)
			small.VirtualSize = mib
			w.open(layer(active), small)
		}, "QEMU has 1048576 bytes, the header says 4194304"},
		{"libvirt names another file", func(w *world, _, base string) {
			twin := w.qcow2("twin.qcow2", base)
			w.disk("file", twin, "qcow2", base)
		}, ""}, // two: checked below
		{"libvirt names another base", func(w *world, active, _ string) {
			w.disk("file", active, "qcow2", w.path("other.qcow2"))
		}, "backing layer 1: libvirt names"},
		{"libvirt names more layers", func(w *world, active, base string) {
			w.disk("file", active, "qcow2", base, w.path("deeper.qcow2"))
		}, "libvirt names 2 backing layers, QEMU has 1 open"},
		{"QEMU has the drive empty", func(w *world, _, _ string) { w.open() }, "QEMU has the drive empty"},
		{"QEMU knows no such drive", func(w *world, _, _ string) { w.libvirt.nodes = nil }, "QEMU has the drive empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			base := w.qcow2("base.qcow2", "")
			active := w.qcow2("disk.qcow2", base)
			w.disk("file", active, "qcow2", base)
			w.open(layer(active), layer(base))
			c.make(w, active, base)
			d := w.only()
			two := strings.HasPrefix(c.name, "QEMU has a layer more") || c.name == "libvirt names another file"
			if two {
				if len(d.Disagreements) != 2 {
					t.Errorf("disagreements %q; want QEMU against both", d.Disagreements)
				}
				return
			}
			if !oneOf(d.Disagreements, c.want) {
				t.Errorf("disagreements %q; want %q", d.Disagreements, c.want)
			}
			if len(d.Issues) != 0 {
				t.Errorf("issues %+v", d.Issues)
			}
		})
	}
}

// QEMU's chain is what the guest's bytes come from, so it is the one shown.
func TestRunningDiskShowsQEMUsChain(t *testing.T) {
	w := newWorld(t)
	base := w.qcow2("base.qcow2", "")
	active := w.qcow2("disk.qcow2", base)
	w.disk("file", active, "qcow2", base)
	top := layer(active)
	top.Allocated = 12345
	w.open(top, layer(base))
	d := w.only()
	if !d.Live || d.Pool != "default" || d.Allocated != 12345 || d.Size != 4*mib || d.ClusterSize != 65536 || d.Compat != "1.1" || d.Ino == 0 {
		t.Errorf("disk %+v", d)
	}
	if len(d.Chain) != 2 || d.Chain[1].Path != base || d.Chain[1].FileSize == 0 {
		t.Errorf("chain %+v; want the base with its file's size", d.Chain)
	}
	if w.libvirt.inactive {
		t.Error("the definition was read, not the running instance")
	}
}

// Of an instance that is stopped or arriving the headers alone speak, and QEMU
// is not asked: it would not answer.
func TestNotRunning(t *testing.T) {
	for name, domain := range map[string]hypervisor.Domain{
		"stopped":  {Name: "vm", UUID: uuid, State: hypervisor.Shutoff},
		"arriving": {Name: "vm", UUID: uuid, State: hypervisor.Paused, Incoming: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			active := w.qcow2("disk.qcow2", w.qcow2("base.qcow2", ""))
			w.disk("file", active, "qcow2")
			w.libvirt.domain = domain
			d := w.only()
			if d.Live || len(d.Chain) != 2 || len(d.Disagreements) != 0 || len(d.Issues) != 0 {
				t.Errorf("disk %+v", d)
			}
			if w.libvirt.askedQ != 0 || !w.libvirt.inactive {
				t.Errorf("QEMU was asked %d times, definition %v", w.libvirt.askedQ, w.libvirt.inactive)
			}
		})
	}
}

func TestIssues(t *testing.T) {
	for _, c := range []struct {
		name    string
		make    func(w *world, active, base string)
		stopped bool
		want    []string
	}{
		{name: "sound"},
		{name: "no format is raw, which a qcow2 image may hold", make: func(w *world, active, _ string) { w.disk("file", active, "") }, stopped: true},
		{name: "internal snapshots", make: func(w *world, active, _ string) { w.img("snapshot", "-c", "one", active) }, want: []string{"snapshots-present"}},
		{name: "marked corrupt", make: func(w *world, _, base string) { w.patch(base, setFeature(2)) }, want: []string{"chain-unsafe"}},
		{name: "dirty, as an open image may be", make: func(w *world, active, _ string) { w.patch(active, setFeature(1)) }},
		{name: "dirty, stopped", make: func(w *world, active, _ string) { w.patch(active, setFeature(1)) }, stopped: true, want: []string{"chain-unsafe"}},
		{name: "a dirty base", make: func(w *world, _, base string) { w.patch(base, setFeature(1)) }, want: []string{"chain-unsafe"}},
		{name: "no backing format", make: func(w *world, active, _ string) { w.patch(active, forgetFormat) }, want: []string{"backing-format-unknown"}},
		{name: "the base is gone", make: func(w *world, _, base string) { must(w.t, os.Remove(base)) }, stopped: true, want: []string{"chain-unsafe"}},
		{name: "no image at all", make: func(w *world, active, _ string) { must(w.t, os.WriteFile(active, []byte("text"), 0o600)) }, stopped: true, want: []string{"chain-unsafe"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			base := w.qcow2("base.qcow2", "")
			active := w.qcow2("disk.qcow2", base)
			w.disk("file", active, "qcow2", base)
			w.open(layer(active), layer(base))
			if c.stopped {
				w.libvirt.domain.State = hypervisor.Shutoff
			}
			if c.make != nil {
				c.make(w, active, base)
			}
			var got []string
			for _, i := range w.only().Issues {
				got = append(got, i.Code)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("issues %v; want %v", got, c.want)
			}
		})
	}
}

// A header may lead into the pools, beside the disk, and to what QEMU has open
// already; nowhere else.
func TestRoots(t *testing.T) {
	for _, c := range []struct {
		name string
		pool bool // the outer folder is a pool
		live bool // QEMU has the outer base open
		want bool
	}{{"elsewhere", false, false, false}, {"in a pool", true, false, true}, {"open in QEMU", false, true, true}} {
		t.Run(c.name, func(t *testing.T) {
			w, outer := newWorld(t), newWorld(t)
			base := outer.qcow2("base.qcow2", "")
			active := w.qcow2("disk.qcow2", base)
			w.disk("file", active, "qcow2")
			w.libvirt.domain.State = hypervisor.Shutoff
			if c.live {
				w.libvirt.domain.State = hypervisor.Running
				w.open(layer(active), layer(base))
			}
			pools := []api.Pool{{Name: "default", Path: w.dir}, {Name: "dev", Path: "/dev"}, {Name: "net", Path: ""}}
			if c.pool {
				pools = append(pools, api.Pool{Name: "outer", Path: outer.dir})
			}
			in, err := w.service.Inspect(t.Context(), api.Ref{Name: "vm"}, pools)
			must(t, err)
			if d := in.Disks[0]; (len(d.Issues) == 0) != c.want {
				t.Errorf("issues %+v; want followed: %v", d.Issues, c.want)
			}
		})
	}
}

// A medium is shown as QEMU has it; its headers were never read, so there is
// nothing that they could contradict.
func TestMedia(t *testing.T) {
	w := newWorld(t)
	iso := w.path("boot.iso")
	must(t, os.WriteFile(iso, make([]byte, mib), 0o600))
	w.xml(`<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='` + iso + `'/><target dev='sda'/><readonly/></disk>` +
		`<disk type='file' device='cdrom'><target dev='sdb'/><readonly/></disk>`)
	w.libvirt.nodes = []hypervisor.BlockNode{{Target: "sda", Layers: []hypervisor.Layer{{Path: iso, Format: "raw", VirtualSize: mib}}}, {Target: "sdb"}}
	for _, d := range w.inspect().Disks {
		if len(d.Disagreements) != 0 || len(d.Issues) != 0 {
			t.Errorf("%s: disagreements %q, issues %+v", d.Target, d.Disagreements, d.Issues)
		}
	}
}

func TestEndpoints(t *testing.T) {
	iscsi := func(host string) string {
		return "<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='iscsi' name='iqn.2026-01.x:y/3'><host name='" + host + "' port='3260'/></source><target dev='vda'/></disk>"
	}
	for _, c := range []struct {
		name, disk string
		want       *api.Target
	}{
		{"iscsi", iscsi("192.0.2.1"), &api.Target{Type: "iscsi", Portal: "192.0.2.1:3260", IQN: "iqn.2026-01.x:y", LUN: 3}},
		{"iscsi by IPv6", iscsi("2001:db8::1"), &api.Target{Type: "iscsi", Portal: "[2001:db8::1]:3260", IQN: "iqn.2026-01.x:y", LUN: 3}},
		{"loopback is another machine on each host", iscsi("127.0.0.1"), nil},
		{"IPv6 loopback", iscsi("::1"), nil},
		{"localhost", iscsi("localhost"), nil},
		{"rbd", "<disk type='network' device='disk'><source protocol='rbd' name='vms/disk1'/><target dev='vda'/></disk>", &api.Target{Type: "rbd", Pool: "vms", Image: "disk1"}},
		{"powerflex", "<disk type='block' device='disk'><source dev='/dev/disk/by-id/emc-vol-4a54a8ba6df0690f-38457641000000b9'/><target dev='vda'/></disk>",
			&api.Target{Type: "powerflex", SystemID: "4a54a8ba6df0690f", VolumeID: "38457641000000b9"}},
		{"a local block device", "<disk type='block' device='disk'><source dev='/dev/sdq'/><target dev='vda'/></disk>", nil},
		{"nbd", "<disk type='network' device='disk'><source protocol='nbd' name='x'><host name='h' port='10809'/></source><target dev='vda'/></disk>", nil},
		{"a file of that name", "<disk type='file' device='disk'><source file='/tmp/emc-vol-4a-38'/><target dev='vda'/></disk>", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.libvirt.domain.State = hypervisor.Shutoff
			w.xml(c.disk)
			got := w.only().Endpoint
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
				t.Errorf("endpoint %+v; want %+v", got, c.want)
			}
		})
	}
}

func TestProblem(t *testing.T) {
	for _, c := range []struct {
		err  error
		code string
	}{{hypervisor.ErrNoDomain, "not-found"}, {hypervisor.ErrDown, "libvirt-down"}, {context.DeadlineExceeded, "timeout"}, {errors.New("other"), "libvirt-failed"}} {
		w := newWorld(t)
		w.libvirt.err = fmt.Errorf("look up: %w", c.err)
		if _, err := w.service.Inspect(t.Context(), api.Ref{Name: "vm"}, nil); api.CodeOf(err) != c.code {
			t.Errorf("%v: problem %v; want %s", c.err, err, c.code)
		}
	}
	if inspect.Problem(api.Ref{}, nil) != nil {
		t.Error("no error became a problem")
	}
}

// A base that is gone, and is a template's, is called by the template's name.
func TestLostTemplate(t *testing.T) {
	w := newWorld(t)
	base := w.qcow2("base.qcow2", "")
	active := w.qcow2("disk.qcow2", base)
	w.disk("file", active, "qcow2", base)
	w.open(layer(active), layer(base))
	must(t, os.Remove(base))
	w.reg.lost = map[string]string{base: `template "rocky9", which is lost`}
	if d := w.only(); len(d.Issues) != 1 || d.Issues[0].Code != "chain-unsafe" || !strings.HasSuffix(d.Issues[0].Detail, `it stands on template "rocky9", which is lost`) {
		t.Errorf("issues %+v", d.Issues)
	}
}
