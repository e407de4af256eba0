package migrate

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
)

// place decides where a copied disk goes and on what it stands there.
func place(in Input, d Disk, mode string, pd *api.PlanDisk) []api.Reason {
	r := in.request(d.Target)
	pd.Reason, pd.Clone = reasonFor(in, d, mode), mode
	if mode == api.ModeLinked && len(d.Backing()) == 0 {
		pd.Clone = api.ModeFull
	}
	if r.Connect != nil {
		pd.Connect = r.Connect
		pd.Destination = &api.DiskPlace{Kind: kindOfTarget(*r.Connect), Format: "raw"}
		if r.Format != "" && r.Format != "raw" {
			return []api.Reason{{Code: "format-unsupported", Disk: d.Target, Detail: fmt.Sprintf("a connected target holds raw data, not %s", r.Format)}}
		}
		return nil
	}
	p, refusal := choosePool(in, d, r.Pool)
	if refusal != nil {
		return []api.Reason{*refusal}
	}
	format := d.Format
	if r.Format != "" {
		format = r.Format
	}
	dest := &api.DiskPlace{Pool: p.Name, Kind: "file", Format: format,
		Path: filepath.Join(p.Path, fileName(in.Instance.Ref.Name, d, format))}
	pd.Destination = dest
	backing := verified(in, d)
	if pd.Clone == api.ModeLinked {
		if backing == nil {
			l := d.Backing()[0]
			l.Template = d.Stageable[l.Path]
			pd.Stage = []api.Layer{l}
			// Its path there is known once the destination has it.
			backing = []api.Layer{l}
		}
		dest.Backing, dest.Chain = &backing[0], backing
		return nil
	}
	// A base larger than the disk cannot be filled in: only its beginning shows.
	if backing != nil && in.Request.Seed != "off" && backing[0].VirtualSize <= d.Size {
		pd.Seed = &api.Seed{From: "destination", Template: backing[0].Template, Digest: backing[0].Digest, Bytes: allocated(backing), Chain: backing}
	}
	return nil
}

// reasonFor gives the one code that explains a copied disk best.
func reasonFor(in Input, d Disk, mode string) string {
	switch {
	case d.OnDirectDownload():
		return DirectDownload
	case len(d.Backing()) == 0:
		return NoBackingChain
	case in.Request.Mode == api.ModeFull:
		return Requested
	}
	r, ok := linkable(in, d)
	if ok && mode == api.ModeFull {
		// Its own chain would do; another disk made the request a full clone.
		for _, o := range in.Instance.Disks {
			if _, skip := skipped(in, o); !skip && o.OnDirectDownload() {
				return DirectDownload
			}
		}
	}
	return r.Code
}

func kindOfTarget(t api.Target) string {
	switch t.Type {
	case "iscsi", "rbd":
		return "network"
	case "powerflex":
		return "block"
	}
	return "file"
}

// choosePool takes the pool asked for, else the one of the same name, else the
// one with the same folder, else "default".
func choosePool(in Input, d Disk, wanted string) (api.Pool, *api.Reason) {
	missing := func(name string) *api.Reason {
		return &api.Reason{Code: "pool-missing", Disk: d.Target,
			Detail: fmt.Sprintf("the destination has no active pool %q with a folder; it has: %s", name, poolNames(in.Destination.Pools))}
	}
	if wanted != "" {
		if p, ok := in.pool(wanted); ok && usable(p) {
			return p, nil
		}
		return api.Pool{}, missing(wanted)
	}
	if p, ok := in.pool(d.Pool); ok && d.Pool != "" && usable(p) {
		return p, nil
	}
	for _, p := range in.Destination.Pools {
		if usable(p) && p.Path == filepath.Dir(d.Path) {
			return p, nil
		}
	}
	if p, ok := in.pool("default"); ok && usable(p) && d.Pool == "" {
		return p, nil
	}
	name := d.Pool
	if name == "" {
		name = "default"
	}
	return api.Pool{}, missing(name)
}

func usable(p api.Pool) bool { return p.Active && p.Path != "" && filepath.IsAbs(p.Path) }

func poolNames(pools []api.Pool) string {
	var names []string
	for _, p := range pools {
		if usable(p) {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// fileName keeps the source's file name, with the ending of the new format
// where the old one had the ending of its own.
func fileName(instance string, d Disk, format string) string {
	base := filepath.Base(d.Path)
	if d.Kind != "file" || base == "." || base == "/" {
		return fmt.Sprintf("%s-%s.%s", instance, d.Target, format)
	}
	if format != d.Format {
		if stem, ok := strings.CutSuffix(base, "."+d.Format); ok {
			return stem + "." + format
		}
		if stem, ok := strings.CutSuffix(base, ".img"); ok {
			return stem + "." + format
		}
	}
	return base
}

func allocated(layers []api.Layer) int64 {
	var n int64
	for _, l := range layers {
		n += l.Allocated
	}
	return n
}

// Incremental tells which of libvirt's two storage modes carries out the plan:
// true means that only active layers travel (NON_SHARED_INC). In a full clone
// that is sound only if every copied disk goes onto a fresh volume that is
// empty or was filled with the frozen layers; one that is not, and every disk
// is copied whole (NON_SHARED_DISK).
func Incremental(p api.Plan) bool {
	for _, d := range p.Disks {
		if d.Action != api.ActionCopy || d.Clone == api.ModeLinked {
			continue
		}
		if d.Connect != nil {
			return false
		}
		if len(d.Chain) > 1 && d.Seed == nil {
			return false
		}
	}
	return true
}

// weigh estimates what libvirt will move of a disk, from allocated bytes.
func weigh(d *api.PlanDisk, incremental bool) {
	if len(d.Chain) == 0 {
		return
	}
	if incremental {
		d.Bytes = min(d.Chain[0].Allocated, d.Chain[0].VirtualSize)
		return
	}
	d.Seed = nil // of no use when every layer is copied anyway
	d.Bytes = min(allocated(d.Chain), d.Chain[0].VirtualSize)
}
