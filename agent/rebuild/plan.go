package rebuild

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

// Reasons why an instance is not rebuilt.
const (
	Running          = "running"
	Arriving         = "arriving"
	Transient        = "transient"
	SavedState       = "saved-state"
	SnapshotsPresent = "snapshots-present"
	Checkpoints      = "checkpoints-present"
	RootUnknown      = "root-unknown"
	RootUnsuitable   = "root-unsuitable"
	OriginalUnknown  = "original-unknown"
	TemplateNotReady = "template-not-ready"
	DiskTooSmall     = "disk-too-small"
	DiskTooLarge     = "disk-too-large"
	SizeUnknown      = "size-unknown"
	NoSpace          = "no-space"
	PoolNotWritable  = "pool-not-writable"
)

const (
	sector = 512
	// emptyImage is what a qcow2 image takes that holds nothing, at most: its
	// header and tables of references. Its L1 table comes on top.
	emptyImage = 1 << 20
)

// Plan is what was decided, with what is not for the wire.
type Plan struct {
	api.RebuildPlan
	// Spec is of the new volume, without its path.
	Spec volume.Spec `json:"spec"`
	// Base is the file of the template's copy, Digest what it must be; "" for
	// an empty disk, and while the template is yet to be fetched.
	Base       string        `json:"base,omitempty"`
	BaseFormat volume.Format `json:"base_format,omitempty"`
	Digest     string        `json:"digest,omitempty"`
}

// Decide says how an instance is rebuilt, or every reason why it is not. It
// looks nothing up. With any reason the plan must not be carried out.
//
// The new disk is never smaller than the old one nor than its template. It is
// cloned as the old one was: linked to the template's copy, or standing alone.
// An empty one is a qcow2 image that stands alone.
func Decide(f Facts, r api.RebuildRequest) (Plan, []api.Reason) {
	reasons := state(f, r)
	p := Plan{RebuildPlan: api.RebuildPlan{Stop: runs(f.Domain), Start: r.Start || runs(f.Domain)}}
	root, err := RootOf(f.Parsed)
	if err != nil {
		return p, append(reasons, api.Reason{Code: RootUnknown, Detail: err.Error()})
	}
	p.Disk, p.Old = root.Target, old(f, root)
	reasons = append(reasons, unsuitable(f, root)...)
	p.choose(f, r)
	reasons = append(reasons, p.fromTemplate(f, r)...)
	reasons = append(reasons, p.size(f, r)...)
	reasons = append(reasons, p.space(f)...)
	if !p.Old.Owned {
		p.Warnings = append(p.Warnings, fmt.Sprintf("the old volume %s stays: Wherry did not make it", p.Old.Path))
	}
	for i := range reasons {
		if reasons[i].Disk == "" && !slices.Contains([]string{Running, Arriving, Transient, SavedState}, reasons[i].Code) {
			reasons[i].Disk = p.Disk
		}
	}
	return p, reasons
}

// runs also says so of one that crashed and whose QEMU was kept.
func runs(d hypervisor.Domain) bool {
	return d.Active() || d.State == hypervisor.Crashed && d.ID >= 0
}

// state gives what stands in the way that is not of the disk.
func state(f Facts, r api.RebuildRequest) (out []api.Reason) {
	add := func(code, format string, args ...any) {
		out = append(out, api.Reason{Code: code, Detail: fmt.Sprintf(format, args...)})
	}
	switch {
	case f.Domain.Incoming:
		add(Arriving, "the instance is arriving from another host")
	case runs(f.Domain) && !r.Force:
		add(Running, "the instance is %s; stop it, or ask with force", f.Domain.State)
	}
	if !f.Domain.Persistent {
		add(Transient, "libvirt keeps no definition of the instance")
	}
	if f.Saved {
		add(SavedState, "libvirt keeps the instance's memory, which would go on with the old disk; start it, or drop it with `virsh managedsave-remove`")
	}
	if f.Domain.Snapshots > 0 {
		add(SnapshotsPresent, "libvirt has %d snapshots: %s", f.Domain.Snapshots, strings.Join(f.Snapshots, ", "))
	}
	if len(f.Root.Chain) > 0 && f.Root.Chain[0].Snapshots > 0 {
		l := f.Root.Chain[0]
		add(SnapshotsPresent, "image %s has %d internal snapshots: %s", l.Path, l.Snapshots, strings.Join(l.SnapshotNames, ", "))
	}
	if len(f.Checkpoints) > 0 {
		add(Checkpoints, "libvirt has checkpoints for incremental backups, whose bitmaps lie in the old disk: %s; drop them with `virsh checkpoint-delete`, and begin the next backup anew",
			strings.Join(f.Checkpoints, ", "))
	}
	return out
}

func old(f Facts, root domainxml.Disk) api.RebuildDisk {
	d := api.RebuildDisk{Path: root.Source, Format: string(formatOf(root)), Clone: api.ModeFull, Pool: poolOf(root.Source, f.Pools)}
	if len(f.Root.Chain) > 0 {
		l := f.Root.Chain[0]
		d.Size, d.Allocated = l.VirtualSize, l.Allocated
		if l.BackingFile != "" {
			d.Clone = api.ModeLinked
		}
	}
	d.Template = original(f, root.Target)
	if f.Record == nil {
		return d
	}
	for _, x := range f.Record.Disks {
		if x.Target == root.Target {
			d.DirectDownload = x.DirectDownload
			// What the record says of another file it does not say of this one.
			d.Owned = x.Owned && x.Path == root.Source
		}
	}
	return d
}

// poolOf names the active pool in whose folder the file lies.
func poolOf(path string, pools []api.Pool) string {
	for _, p := range pools {
		if p.Active && p.Path != "" && filepath.Dir(path) == filepath.Clean(p.Path) {
			return p.Name
		}
	}
	return ""
}

// unsuitable says why the root disk is not one to replace: a new one beside it
// would not be what the old one is.
func unsuitable(f Facts, root domainxml.Disk) (out []api.Reason) {
	add := func(when bool, format string, args ...any) {
		if when {
			out = append(out, api.Reason{Code: RootUnsuitable, Detail: fmt.Sprintf(format, args...)})
		}
	}
	add(root.Device != "disk", "the root disk is a %s", root.Device)
	add(root.ReadOnly, "the root disk is read-only")
	add(root.Shareable, "the root disk is shared with other instances")
	add(root.Transient, "what the guest writes to the root disk is dropped when it stops")
	add(root.Encrypted, "the root disk is encrypted, and the new one would not be")
	if root.Type != "file" {
		add(true, "the root disk is of the type %s, and only files are replaced", root.Type)
		return out
	}
	add(poolOf(root.Source, f.Pools) == "", "%q lies in no active pool of this host", root.Source)
	add(f.Root.Link, "%s is a symbolic link", root.Source)
	format := formatOf(root)
	add(format != volume.FormatQcow2 && format != volume.FormatRaw, "the root disk has the format %s", format)
	return out
}

// choose decides how the new disk is made.
func (p *Plan) choose(f Facts, r api.RebuildRequest) {
	p.New = api.RebuildDisk{Pool: p.Old.Pool, Format: p.Old.Format, Clone: p.Old.Clone, Owned: true}
	if r.Source.Type == api.SourceEmpty {
		p.New.Format, p.New.Clone = string(volume.FormatQcow2), api.ModeFull
	}
	p.Spec = volume.Spec{Format: volume.Format(p.New.Format)}
	if len(f.Root.Chain) > 0 && p.Spec.Format == volume.FormatQcow2 && f.Root.Chain[0].Format == volume.FormatQcow2 {
		p.Spec = volume.SpecLike("", f.Root.Chain[0])
	}
}

// fromTemplate decides on the template.
func (p *Plan) fromTemplate(f Facts, r api.RebuildRequest) []api.Reason {
	if r.Source.Type == api.SourceEmpty {
		return nil
	}
	t := f.Template
	if t.ID == "" {
		return []api.Reason{{Code: OriginalUnknown, Detail: "which template the disk was made from is neither in the instance's record nor in a ref; name one"}}
	}
	p.New.Template = t.ID
	p.New.DirectDownload = t.Info.DirectDownload && p.New.Clone == api.ModeLinked
	if t.Path == "" {
		if why := unfetchable(t); why != "" {
			return []api.Reason{{Code: TemplateNotReady, Detail: why}}
		}
		p.Fetch = true
		return nil
	}
	p.Base, p.BaseFormat, p.Digest = t.Path, volume.Format(t.Info.Format), t.Info.Digest
	if p.New.Clone == api.ModeLinked {
		p.Spec.Backing, p.Spec.BackingFormat = p.Base, p.BaseFormat
	}
	return nil
}

// unfetchable says why a template that is not ready cannot be made so; "" where
// it can be tried.
func unfetchable(t Template) string {
	switch {
	case !t.Known:
		return fmt.Sprintf("template %q is not registered on this host", t.ID)
	case t.Info.RemovedAt != nil:
		return fmt.Sprintf("template %q was removed", t.ID)
	}
	for _, c := range t.Info.Copies {
		// One that failed and is tried no more by itself failed for good; unless
		// somebody had interrupted it.
		if c.State == api.CopyFailed && c.RetryAt == nil && c.Code != "interrupted" {
			return fmt.Sprintf("template %q cannot be fetched to pool %q: %s", t.ID, c.Pool, c.Message)
		}
	}
	return ""
}

// size decides how large the new disk is.
func (p *Plan) size(f Facts, r api.RebuildRequest) (out []api.Reason) {
	least := max(p.Old.Size, f.Template.Info.VirtualSize)
	size := max(least, r.DiskSize)
	// What QEMU shows to a guest is whole sectors.
	size = (size + sector - 1) / sector * sector
	p.New.Size, p.Spec.VirtualSize = size, size
	if most := largest(p.Spec); size > most {
		out = append(out, api.Reason{Code: DiskTooLarge, Detail: fmt.Sprintf("the disk would have %d bytes, and a qcow2 image with clusters of %d bytes has at most %d",
			size, clusterSize(p.Spec), most)})
	}
	if r.DiskSize > 0 {
		for _, limit := range []struct {
			size int64
			what string
		}{{f.Template.Info.VirtualSize, fmt.Sprintf("template %q needs", f.Template.ID)}, {p.Old.Size, "the disk has now"}} {
			if r.DiskSize < limit.size {
				out = append(out, api.Reason{Code: DiskTooSmall, Detail: fmt.Sprintf("disk_size is %d bytes, and %s %d", r.DiskSize, limit.what, limit.size)})
			}
		}
	}
	if size == 0 && !p.Fetch && (f.Template.ID != "" || r.Source.Type == api.SourceEmpty) {
		out = append(out, api.Reason{Code: SizeUnknown, Detail: fmt.Sprintf("how large the old disk was cannot be read (%v); say disk_size", f.Root.ChainErr)})
	}
	return out
}

// space decides whether there is room for the new disk beside the old one. It
// is a lower bound: more is needed as the guest writes, and where the template
// is compressed.
func (p *Plan) space(f Facts) []api.Reason {
	if errors.Is(f.Root.FileErr, unix.EFBIG) {
		return []api.Reason{{Code: DiskTooLarge, Detail: fmt.Sprintf("the file system of pool %q has no files of %d bytes: %v", p.Old.Pool, p.New.Size, f.Root.FileErr)}}
	}
	if f.Root.FileErr != nil {
		return []api.Reason{{Code: PoolNotWritable, Detail: fmt.Sprintf("no file can be made in pool %q, where the new disk is made beside the old one: %v", p.Old.Pool, f.Root.FileErr)}}
	}
	p.Bytes = emptyImage + table(p.Spec)
	if p.New.Clone == api.ModeFull && p.Base != "" {
		p.Bytes += f.Template.Allocated
	}
	if f.Root.FreeErr != nil || p.Old.Pool == "" || f.Root.Free >= p.Bytes {
		return nil // where it is not known, the making of it will tell
	}
	return []api.Reason{{Code: NoSpace, Detail: fmt.Sprintf("pool %q has %d bytes free, and the new disk takes %d beside the old one", p.Old.Pool, f.Root.Free, p.Bytes)}}
}

// refusal makes one problem of all reasons.
func refusal(ref api.Ref, reasons []api.Reason) error {
	if len(reasons) == 0 {
		return nil
	}
	details := make([]string, len(reasons))
	for i, r := range reasons {
		details[i] = r.Detail
	}
	return api.NewProblem("precondition", "%q is not rebuilt: %s", ref, strings.Join(details, "; ")).
		WithReasons(reasons).WithHint("nothing was touched")
}
