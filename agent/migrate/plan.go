package migrate

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
)

// Reason codes of a plan.
const (
	DirectDownload = "direct-download"
	SameStorage    = "same-storage"
	ReadOnlyMedia  = "read-only-media"
	NoBackingChain = "no-backing-chain"
	ChainVerified  = "chain-verified"
	ChainMissing   = "chain-missing"
	ChainDiffers   = "chain-differs"
	Requested      = "requested"
)

// Decide chooses the storage migration that is safe. It looks nothing up.
// The second result holds every refusal; with any of them the plan must not be
// carried out, and is returned only so that a person can see it.
//
// Libvirt has one storage mode for a whole migration, so one disk on a
// direct-download template makes all of them full clones; disks that are not
// copied have no say (Apache CloudStack PR 13084).
func Decide(in Input) (api.Plan, []api.Reason) {
	plan := api.Plan{Reasons: []api.Reason{}, Disks: []api.PlanDisk{}, Checks: []api.Check{}}
	var copied []Disk
	for _, d := range in.Instance.Disks {
		if pd, skip := skipped(in, d); skip {
			plan.Disks = append(plan.Disks, pd)
			continue
		}
		copied = append(copied, d)
		plan.Disks = append(plan.Disks, copyOf(d))
	}
	var refusals []api.Reason
	plan.Mode, plan.Forced, plan.Reasons, refusals = chooseMode(in, copied)
	for i := range plan.Disks {
		pd := &plan.Disks[i]
		if pd.Action == api.ActionSkip {
			if pd.Reason == SameStorage {
				plan.Reasons = append(plan.Reasons, api.Reason{Code: SameStorage, Disk: pd.Target,
					Detail: "reached from both hosts at the same storage; connected, not copied"})
			}
			continue
		}
		d := find(copied, pd.Target)
		refusals = append(refusals, place(in, d, plan.Mode, pd)...)
	}
	incremental := Incremental(plan)
	for i := range plan.Disks {
		if plan.Disks[i].Action == api.ActionCopy {
			weigh(&plan.Disks[i], incremental)
			plan.Bytes += plan.Disks[i].Bytes
		}
	}
	checks, failed := check(in, plan, copied)
	plan.Checks = checks
	return plan, append(refusals, failed...)
}

// skipped says whether a disk is left out of the copy, and why.
func skipped(in Input, d Disk) (api.PlanDisk, bool) {
	pd := api.PlanDisk{Target: d.Target, Action: api.ActionSkip, DirectDownload: d.DirectDownload,
		Template: d.Template, Chain: d.Chain, Source: sourcePlace(d)}
	if d.Media() {
		pd.Reason = ReadOnlyMedia
		return pd, true
	}
	r := in.request(d.Target)
	if r.Connect != nil {
		return pd, false
	}
	if _, ok := reached(in, d, d.Path); ok && d.Endpoint != nil && r.Pool == "" {
		pd.Reason = SameStorage
		pd.Connect = d.Endpoint
		pd.Destination = &api.DiskPlace{Kind: d.Kind, Path: d.Path, Format: d.Format, Backing: nil}
		return pd, true
	}
	p, path, ok := shared(in, d, r.Pool)
	if !ok {
		return pd, false
	}
	chain, ok := reached(in, d, path)
	if !ok {
		return pd, false
	}
	pd.Reason = SameStorage
	pd.Destination = &api.DiskPlace{Pool: p.Name, Kind: d.Kind, Path: path, Format: d.Format, Chain: chain}
	if len(chain) > 0 {
		pd.Destination.Backing = &chain[0]
	}
	return pd, true
}

// reached gives the backing layers of a disk on common storage as the
// destination reaches them. Layers beside the active one are on that storage
// too, and move with its folder when that has another path there. A layer
// anywhere else may be another file at the destination: it must lie at the same
// path with the same bytes, or the disk is not common at all.
func reached(in Input, d Disk, path string) ([]api.Layer, bool) {
	chain, facts := slices.Clone(d.Backing()), in.facts(d.Target).Layers
	for i := range chain {
		switch l := &chain[i]; {
		case filepath.Dir(l.Path) == filepath.Dir(d.Path):
			l.Path = filepath.Join(filepath.Dir(path), filepath.Base(l.Path))
		case i >= len(facts) || facts[i].State != LayerVerified || facts[i].Path != l.Path:
			return nil, false
		}
	}
	return chain, true
}

// shared finds the destination's pool that is the disk's own storage: the one
// that holds the source's probe file, or has the same identity. A name proves
// nothing.
func shared(in Input, d Disk, wanted string) (api.Pool, string, bool) {
	f := in.facts(d.Target)
	for _, p := range f.SharedPools {
		if (wanted == "" || wanted == p.Name) && f.SharedPath != "" {
			return p, f.SharedPath, true
		}
	}
	if d.PoolIdentity == "" {
		return api.Pool{}, "", false
	}
	for _, p := range in.Destination.Pools {
		if p.Identity == d.PoolIdentity && (wanted == "" || wanted == p.Name) {
			return p, inFolder(p, d), true
		}
	}
	return api.Pool{}, "", false
}

// inFolder is a disk's path in a pool that is its own storage. The same storage
// may be mounted elsewhere on the other host, where another file can lie at the
// source's path.
func inFolder(p api.Pool, d Disk) string {
	if d.Kind != "file" || p.Path == "" {
		return d.Path
	}
	return filepath.Join(p.Path, filepath.Base(d.Path))
}

func copyOf(d Disk) api.PlanDisk {
	return api.PlanDisk{Target: d.Target, Action: api.ActionCopy, DirectDownload: d.DirectDownload,
		Template: d.Template, Chain: d.Chain, Source: sourcePlace(d)}
}

func sourcePlace(d Disk) api.DiskPlace {
	p := api.DiskPlace{Pool: d.Pool, Kind: d.Kind, Path: d.Path, Format: d.Format}
	if b := d.Backing(); len(b) > 0 {
		p.Backing = &b[0]
	}
	return p
}

// chooseMode applies rules 2 to 4 of the architecture, in their order.
func chooseMode(in Input, copied []Disk) (mode string, forced bool, why []api.Reason, refusals []api.Reason) {
	asked := in.Request.Mode
	for _, d := range copied {
		if d.OnDirectDownload() {
			why = append(why, api.Reason{Code: DirectDownload, Disk: d.Target, Detail: directDetail(d)})
		}
	}
	if len(why) > 0 {
		if asked == api.ModeLinked {
			why = append(why, api.Reason{Code: Requested, Detail: "a linked clone was asked for; a direct-download template forbids it, so the whole request is a full clone"})
		}
		return api.ModeFull, true, why, nil
	}
	if asked == api.ModeFull {
		return api.ModeFull, false, []api.Reason{{Code: Requested, Detail: "a full clone was asked for"}}, nil
	}
	var broken []api.Reason
	backed := 0
	for _, d := range copied {
		if len(d.Backing()) == 0 {
			why = append(why, api.Reason{Code: NoBackingChain, Disk: d.Target, Detail: "stands alone: there is nothing to link to"})
			continue
		}
		backed++
		r, ok := linkable(in, d)
		if !ok {
			broken = append(broken, r)
			continue
		}
		why = append(why, r)
	}
	switch {
	case len(broken) > 0 && asked == api.ModeLinked:
		return api.ModeLinked, false, append(why, broken...), broken
	case len(broken) > 0:
		return api.ModeFull, false, broken, nil
	case backed == 0:
		return api.ModeFull, false, why, nil
	}
	return api.ModeLinked, false, why, nil
}

func directDetail(d Disk) string {
	if d.Template == "" {
		return fmt.Sprintf("stands on %s, a direct-download template: no other host is known to hold the same bytes", d.Backing()[0].Path)
	}
	return fmt.Sprintf("stands on template %q, downloaded by this host: no other host is known to hold the same bytes", d.Template)
}

func find(disks []Disk, target string) Disk {
	for _, d := range disks {
		if d.Target == target {
			return d
		}
	}
	return Disk{}
}
