package rebuild_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/rebuild"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

func TestRootOf(t *testing.T) {
	disk := func(target string, order int) domainxml.Disk {
		return domainxml.Disk{Target: target, Device: "disk", BootOrder: order}
	}
	cdrom := domainxml.Disk{Target: "sda", Device: "cdrom", BootOrder: 1}
	for _, row := range []struct {
		name  string
		disks []domainxml.Disk
		want  string
		err   string
	}{
		{name: "the first", disks: []domainxml.Disk{disk("vda", 0), disk("vdb", 0)}, want: "vda"},
		{name: "the first that is no drive", disks: []domainxml.Disk{{Target: "fda", Device: "floppy"}, {Target: "sda", Device: "cdrom"}, disk("vda", 0)}, want: "vda"},
		{name: "the one with a place in the boot order", disks: []domainxml.Disk{disk("vda", 0), disk("vdb", 3)}, want: "vdb"},
		{name: "the first in the boot order, a drive before it", disks: []domainxml.Disk{cdrom, disk("vda", 3), disk("vdb", 2)}, want: "vdb"},
		{name: "none", disks: []domainxml.Disk{cdrom}, err: "no hard disk"},
		{name: "two at one place", disks: []domainxml.Disk{disk("vda", 2), disk("vdb", 2)}, err: `"vda" and "vdb"`},
	} {
		got, err := rebuild.RootOf(domainxml.Domain{Disks: row.disks})
		if got.Target != row.want || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: %q, %v; want %q, %q", row.name, got.Target, err, row.want, row.err)
		}
	}
}

// facts are of an instance that can be rebuilt: stopped, its root disk linked
// to the template one.
func facts() rebuild.Facts {
	return rebuild.Facts{
		Domain: hypervisor.Domain{Name: "vm", ID: -1, State: hypervisor.Shutoff, Persistent: true},
		Parsed: domainxml.Domain{Disks: []domainxml.Disk{{Target: "vda", Device: "disk", Type: "file", Source: "/p/vm.qcow2", Format: "qcow2"}}},
		Record: &api.Record{Disks: []api.RecordDisk{{Target: "vda", Path: "/p/vm.qcow2", Template: "one", Owned: true}}},
		Pools:  []api.Pool{{Name: "off", Path: "/p"}, {Name: "p", Path: "/p/", Active: true}},
		Root: rebuild.Root{Free: 100 * mib, Ref: "one", Base: "one", Chain: volume.Chain{
			{Path: "/p/vm.qcow2", Format: "qcow2", VirtualSize: 6 * mib, Allocated: mib, BackingFile: "/t/one", BackingFormat: "qcow2", ClusterSize: 128 << 10, Compat: "1.1", ExtendedL2: true},
			{Path: "/t/one", Format: "qcow2", VirtualSize: 4 * mib},
		}},
		Template: rebuild.Template{ID: "one", Known: true, Path: "/t/one", Allocated: 3 * mib, Info: api.Template{ID: "one", Format: "qcow2", VirtualSize: 4 * mib, Digest: "sha256:1", DirectDownload: true}},
	}
}

func TestDecide(t *testing.T) {
	linked := volume.Spec{Format: "qcow2", VirtualSize: 6 * mib, ClusterSize: 128 << 10, Compat: "1.1", ExtendedL2: true, Backing: "/t/one", BackingFormat: "qcow2"}
	base := func(more ...func(*rebuild.Plan)) rebuild.Plan {
		p := rebuild.Plan{Spec: linked, Base: "/t/one", BaseFormat: "qcow2", Digest: "sha256:1", RebuildPlan: api.RebuildPlan{Disk: "vda", Bytes: mib,
			Old: api.RebuildDisk{Path: "/p/vm.qcow2", Pool: "p", Format: "qcow2", Size: 6 * mib, Allocated: mib, Clone: "linked", Template: "one", Owned: true},
			New: api.RebuildDisk{Pool: "p", Format: "qcow2", Size: 6 * mib, Clone: "linked", Template: "one", DirectDownload: true, Owned: true}}}
		for _, f := range more {
			f(&p)
		}
		return p
	}
	for _, row := range []struct {
		name string
		r    api.RebuildRequest
		f    func(*rebuild.Facts)
		want func(*rebuild.Plan)
	}{
		{name: "original", r: original()},
		{name: "started", r: api.RebuildRequest{Source: original().Source, Start: true}, want: func(p *rebuild.Plan) { p.Start = true }},
		{name: "running, with force", r: api.RebuildRequest{Source: original().Source, Force: true},
			f: func(f *rebuild.Facts) { f.Domain.State = hypervisor.Paused }, want: func(p *rebuild.Plan) { p.Stop, p.Start = true, true }},
		{name: "stopped, with force", r: api.RebuildRequest{Source: original().Source, Force: true}},
		{name: "crashed, its QEMU kept", r: api.RebuildRequest{Source: original().Source, Force: true},
			f: func(f *rebuild.Facts) { f.Domain.State, f.Domain.ID = hypervisor.Crashed, 3 }, want: func(p *rebuild.Plan) { p.Stop, p.Start = true, true }},
		{name: "crashed, and gone", r: original(), f: func(f *rebuild.Facts) { f.Domain.State = hypervisor.Crashed }},
		{name: "empty", r: empty(), f: func(f *rebuild.Facts) { f.Template = rebuild.Template{} }, want: func(p *rebuild.Plan) {
			p.Spec.Backing, p.Spec.BackingFormat, p.Base, p.BaseFormat, p.Digest = "", "", "", "", ""
			p.New.Clone, p.New.Template, p.New.DirectDownload = "full", "", false
		}},
		{name: "empty in place of a raw disk", r: empty(),
			f: func(f *rebuild.Facts) {
				f.Template, f.Parsed.Disks[0].Format = rebuild.Template{}, ""
				f.Root.Chain = volume.Chain{{Path: "/p/vm.qcow2", Format: "raw", VirtualSize: 6 * mib}}
			},
			want: func(p *rebuild.Plan) {
				p.Spec, p.Base, p.BaseFormat, p.Digest = volume.Spec{Format: "qcow2", VirtualSize: 6 * mib}, "", "", ""
				p.Old.Format, p.Old.Clone, p.Old.Allocated = "raw", "full", 0
				p.New.Clone, p.New.Template, p.New.DirectDownload = "full", "", false
			}},
		{name: "a full clone stays one, and is not of the template's flag", r: original(),
			f: func(f *rebuild.Facts) { f.Root.Chain = f.Root.Chain[:1]; f.Root.Chain[0].BackingFile = "" },
			want: func(p *rebuild.Plan) {
				p.Spec.Backing, p.Spec.BackingFormat = "", ""
				p.Old.Clone, p.New.Clone, p.New.DirectDownload, p.Bytes = "full", "full", false, 4*mib
			}},
		{name: "a raw one stays raw", r: original(),
			f: func(f *rebuild.Facts) {
				f.Parsed.Disks[0].Format = "raw"
				f.Root.Chain = volume.Chain{{Path: "/p/vm.qcow2", Format: "raw", VirtualSize: 6 * mib}}
			},
			want: func(p *rebuild.Plan) {
				p.Spec = volume.Spec{Format: "raw", VirtualSize: 6 * mib}
				p.Old.Format, p.Old.Clone, p.Old.Allocated = "raw", "full", 0
				p.New.Format, p.New.Clone, p.New.DirectDownload, p.Bytes = "raw", "full", false, 4*mib
			}},
		{name: "a larger template", r: from("one"), f: func(f *rebuild.Facts) { f.Template.Info.VirtualSize = 8 * mib },
			want: func(p *rebuild.Plan) { p.New.Size, p.Spec.VirtualSize = 8*mib, 8*mib }},
		{name: "a larger template, and larger still", r: api.RebuildRequest{Source: from("one").Source, DiskSize: 9 * mib}, f: func(f *rebuild.Facts) { f.Template.Info.VirtualSize = 8 * mib },
			want: func(p *rebuild.Plan) { p.New.Size, p.Spec.VirtualSize = 9*mib, 9*mib }},
		{name: "grown", r: api.RebuildRequest{Source: empty().Source, DiskSize: 9 * mib}, f: func(f *rebuild.Facts) { f.Template = rebuild.Template{} }, want: func(p *rebuild.Plan) {
			p.Spec.Backing, p.Spec.BackingFormat, p.Base, p.BaseFormat, p.Digest = "", "", "", "", ""
			p.New.Clone, p.New.Template, p.New.DirectDownload = "full", "", false
			p.New.Size, p.Spec.VirtualSize = 9*mib, 9*mib
		}},
		{name: "a template that comes first", r: from("one"), f: func(f *rebuild.Facts) {
			f.Template.Path, f.Template.NotReady = "", "downloading"
			f.Template.Info.Copies = []api.TemplateCopy{{State: api.CopyDownloading}}
		}, want: func(p *rebuild.Plan) {
			p.Fetch, p.Base, p.BaseFormat, p.Digest, p.Spec.Backing, p.Spec.BackingFormat = true, "", "", "", "", ""
		}},
		{name: "a template whose fetch was interrupted", r: from("one"), f: func(f *rebuild.Facts) {
			f.Template.Path = ""
			f.Template.Info.Copies = []api.TemplateCopy{{State: api.CopyFailed, Code: "interrupted"}}
		}, want: func(p *rebuild.Plan) {
			p.Fetch, p.Base, p.BaseFormat, p.Digest, p.Spec.Backing, p.Spec.BackingFormat = true, "", "", "", "", ""
		}},
		{name: "an old disk that is lost", r: original(), f: func(f *rebuild.Facts) { f.Root.Chain, f.Root.ChainErr = nil, errors.New("no such file") },
			want: func(p *rebuild.Plan) {
				p.Spec = volume.Spec{Format: "qcow2", VirtualSize: 4 * mib}
				p.Old.Size, p.Old.Allocated, p.Old.Clone = 0, 0, "full"
				p.New.Size, p.New.Clone, p.New.DirectDownload, p.Bytes = 4*mib, "full", false, 4*mib
			}},
		{name: "one that Wherry did not make", r: original(), f: func(f *rebuild.Facts) { f.Record = nil }, want: func(p *rebuild.Plan) {
			p.Old.Owned, p.Warnings = false, []string{"the old volume /p/vm.qcow2 stays: Wherry did not make it"}
		}},
		{name: "a record of another file", r: original(), f: func(f *rebuild.Facts) { f.Record.Disks[0].Path = "/p/before.qcow2" }, want: func(p *rebuild.Plan) {
			p.Old.Owned, p.Warnings = false, []string{"the old volume /p/vm.qcow2 stays: Wherry did not make it"}
		}},
		{name: "space that is not known", r: original(), f: func(f *rebuild.Facts) { f.Root.Free, f.Root.FreeErr = 0, errors.New("stat") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := facts()
			if row.f != nil {
				row.f(&f)
			}
			got, reasons := rebuild.Decide(f, row.r)
			if len(reasons) > 0 {
				t.Fatalf("refused: %+v", reasons)
			}
			want := base()
			if row.want != nil {
				row.want(&want)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got): %s", d)
			}
			if got.Fetch {
				return
			}
			spec := got.Spec
			spec.Path = "/p/new"
			if err := spec.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDecideRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		r    api.RebuildRequest
		f    func(*rebuild.Facts)
		want []string // code, and :word in its detail
	}{
		{"running", original(), func(f *rebuild.Facts) { f.Domain.State = hypervisor.Running }, []string{"running:running"}},
		{"paused", original(), func(f *rebuild.Facts) { f.Domain.State = hypervisor.Paused }, []string{"running:paused"}},
		{"arriving, force or not", api.RebuildRequest{Source: original().Source, Force: true}, func(f *rebuild.Facts) { f.Domain.State, f.Domain.Incoming = hypervisor.Paused, true }, []string{"arriving:"}},
		{"transient", original(), func(f *rebuild.Facts) { f.Domain.Persistent = false }, []string{"transient:"}},
		{"saved memory", original(), func(f *rebuild.Facts) { f.Saved = true }, []string{"saved-state:managedsave"}},
		{"libvirt's snapshots", original(), func(f *rebuild.Facts) { f.Domain.Snapshots, f.Snapshots = 2, []string{"a", "b"} }, []string{"snapshots-present:2 snapshots: a, b"}},
		{"internal snapshots", original(), func(f *rebuild.Facts) {
			f.Root.Chain[0].Snapshots, f.Root.Chain[0].SnapshotNames = 1, []string{"inside"}
		}, []string{"snapshots-present:1 internal snapshots: inside"}},
		{"checkpoints", original(), func(f *rebuild.Facts) { f.Checkpoints = []string{"monday", "tuesday"} }, []string{"checkpoints-present:monday, tuesday; drop them"}},
		{"no disk", original(), func(f *rebuild.Facts) { f.Parsed.Disks = nil }, []string{"root-unknown:"}},
		{"a LUN", original(), func(f *rebuild.Facts) { f.Parsed.Disks[0].Device = "lun" }, []string{"root-unsuitable:lun"}},
		{"a block device", original(), func(f *rebuild.Facts) { f.Parsed.Disks[0].Type = "block" }, []string{"root-unsuitable:block"}},
		{"read-only", original(), func(f *rebuild.Facts) { f.Parsed.Disks[0].ReadOnly = true }, []string{"root-unsuitable:read-only"}},
		{"shared", original(), func(f *rebuild.Facts) { f.Parsed.Disks[0].Shareable = true }, []string{"root-unsuitable:shared"}},
		{"dropped at a stop", original(), func(f *rebuild.Facts) { f.Parsed.Disks[0].Transient = true }, []string{"root-unsuitable:dropped"}},
		{"encrypted", original(), func(f *rebuild.Facts) { f.Parsed.Disks[0].Encrypted = true }, []string{"root-unsuitable:encrypted"}},
		{"a link", original(), func(f *rebuild.Facts) { f.Root.Link = true }, []string{"root-unsuitable:link"}},
		{"of another format", original(), func(f *rebuild.Facts) { f.Parsed.Disks[0].Format = "vmdk" }, []string{"root-unsuitable:vmdk"}},
		{"in no pool", original(), func(f *rebuild.Facts) { f.Pools = f.Pools[:1] }, []string{"root-unsuitable:pool"}},
		{"original unknown", original(), func(f *rebuild.Facts) { f.Template = rebuild.Template{} }, []string{"original-unknown:"}},
		{"no such template", from("x"), func(f *rebuild.Facts) { f.Template = rebuild.Template{ID: "x"} }, []string{"template-not-ready:not registered"}},
		{"a removed template", from("one"), func(f *rebuild.Facts) {
			f.Template.Path, f.Template.Info.RemovedAt = "", &time.Time{}
		}, []string{"template-not-ready:removed"}},
		{"a template that failed for good", from("one"), func(f *rebuild.Facts) {
			f.Template.Path, f.Template.Info.Copies = "", []api.TemplateCopy{{Pool: "p", State: api.CopyFailed, Code: "checksum", Message: "it is another"}}
		}, []string{"template-not-ready:it is another"}},
		{"smaller than the template", api.RebuildRequest{Source: from("one").Source, DiskSize: 7 * mib}, func(f *rebuild.Facts) { f.Template.Info.VirtualSize = 8 * mib }, []string{"disk-too-small:8388608"}},
		{"smaller than it was", api.RebuildRequest{Source: from("one").Source, DiskSize: 5 * mib}, nil, []string{"disk-too-small:6291456"}},
		{"smaller than both", api.RebuildRequest{Source: from("one").Source, DiskSize: mib}, nil, []string{"disk-too-small:4194304", "disk-too-small:6291456"}},
		{"larger than its tables reach", api.RebuildRequest{Source: original().Source, DiskSize: 8<<50 + 512}, func(f *rebuild.Facts) {
			f.Root.Chain[0].ExtendedL2 = false
		}, []string{"disk-too-large:131072 bytes has at most 9007199254740992"}},
		{"larger than extended tables reach", api.RebuildRequest{Source: original().Source, DiskSize: 4<<50 + 512}, nil, []string{"disk-too-large:131072 bytes has at most 4503599627370496"}},
		{"larger than any file here", api.RebuildRequest{Source: original().Source, DiskSize: 1 << 60}, func(f *rebuild.Facts) {
			f.Parsed.Disks[0].Format, f.Root.FileErr = "raw", &os.PathError{Op: "make a file in", Path: "/p", Err: unix.EFBIG}
			f.Root.Chain = volume.Chain{{Path: "/p/vm.qcow2", Format: "raw", VirtualSize: 6 * mib}}
		}, []string{"disk-too-large:/p: file too large"}},
		{"a pool that takes no files", original(), func(f *rebuild.Facts) {
			f.Root.FileErr = &os.PathError{Op: "write to", Path: "/p", Err: unix.EROFS}
		}, []string{"pool-not-writable:write to /p: read-only file system"}},
		{"no space for the tables of a huge disk", api.RebuildRequest{Source: original().Source, DiskSize: 4 << 50}, func(f *rebuild.Facts) { f.Root.Free = 33*mib - 1 }, []string{"no-space:34603008"}},
		{"empty, of a size that nobody knows", empty(), func(f *rebuild.Facts) { f.Template, f.Root.Chain = rebuild.Template{}, nil }, []string{"size-unknown:"}},
		{"no space for an image", original(), func(f *rebuild.Facts) { f.Root.Free = mib - 1 }, []string{"no-space:1048575"}},
		{"no space for a copy", original(), func(f *rebuild.Facts) { f.Root.Free, f.Root.Chain = 4*mib-1, nil }, []string{"no-space:4194304"}},
		{"all at once", api.RebuildRequest{Source: from("x").Source, DiskSize: mib}, func(f *rebuild.Facts) {
			f.Domain = hypervisor.Domain{State: hypervisor.Running, Snapshots: 1}
			f.Snapshots, f.Saved, f.Root.Free, f.Root.Link = []string{"s"}, true, 0, true
			f.Root.Chain[0].Snapshots, f.Parsed.Disks[0].ReadOnly = 1, true
			f.Template = rebuild.Template{ID: "x"}
		}, []string{"running:", "transient:", "saved-state:", "snapshots-present:", "snapshots-present:", "root-unsuitable:", "root-unsuitable:", "template-not-ready:", "disk-too-small:", "no-space:"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := facts()
			if row.f != nil {
				row.f(&f)
			}
			_, reasons := rebuild.Decide(f, row.r)
			ok := slices.EqualFunc(row.want, reasons, func(want string, r api.Reason) bool {
				code, word, _ := strings.Cut(want, ":")
				return r.Code == code && strings.Contains(r.Detail, word) && r.Detail != ""
			})
			if !ok {
				t.Errorf("reasons %+v; want %q", reasons, row.want)
			}
		})
	}
}

// The original is looked for where it is known best.
func TestOriginal(t *testing.T) {
	h := newHost(t)
	a := h.agent()
	defer a.close()
	want := func(id string) {
		t.Helper()
		p, err := a.Plan(t.Context(), ref, original())
		if id == "" {
			if api.CodeOf(err) != "precondition" || api.AsProblem(err).Reasons[0].Code != rebuild.OriginalUnknown {
				t.Errorf("plan %+v, %v; want it unknown", p, err)
			}
			return
		}
		if err != nil || p.New.Template != id || p.Old.Template != id {
			t.Errorf("from %q, %v; want %q", p.New.Template, err, id)
		}
	}
	h.editRecord(func(r *api.Record) { r.Disks[0].Template = "two" })
	want("two")
	h.editRecord(func(r *api.Record) { r.Disks[0].Template = "" })
	h.refs[h.old()] = "large"
	want("large")
	delete(h.refs, h.old())
	want("one") // by the chain
	alone(h)
	want("")
	must(t, h.records().Remove(ref))
	want("")
}
