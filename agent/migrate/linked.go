package migrate

import (
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
)

// States of a backing layer at the destination, as [api.LayerFacts] says them.
const (
	LayerVerified   = "verified"
	LayerDiffers    = "differs"
	LayerMissing    = "missing"
	LayerUnreadable = "unreadable"
)

// linkable says whether a disk may be a linked clone at the destination, with
// the reason either way. Equal names and sizes prove nothing: only a digest
// does, because libvirt compares no layers and would corrupt the disk.
func linkable(in Input, d Disk) (api.Reason, bool) {
	if r := in.request(d.Target); r.Connect != nil || (r.Format != "" && r.Format != "qcow2") || d.Format != "qcow2" {
		return api.Reason{Code: Requested, Disk: d.Target, Detail: "its place or format at the destination cannot hold a linked clone"}, false
	}
	f := in.facts(d.Target)
	for i, l := range d.Backing() {
		state, detail := LayerMissing, ""
		switch {
		case l.Digest == "":
			state, detail = LayerUnreadable, "there is no digest to know the same bytes by"
		case i < len(f.Layers):
			state, detail = f.Layers[i].State, f.Layers[i].Detail
		}
		if state == LayerVerified {
			continue
		}
		if in.Request.StageTemplates {
			if stageable(d) {
				return api.Reason{Code: ChainVerified, Disk: d.Target,
					Detail: fmt.Sprintf("backing layer %s is copied to the destination first and verified there", l.Path)}, true
			}
			detail = "it cannot be staged: only a disk on a single layer that is a template of the source can"
		}
		return layerReason(d.Target, l, state, detail), false
	}
	return api.Reason{Code: ChainVerified, Disk: d.Target, Detail: verifiedDetail(d, f)}, true
}

func layerReason(disk string, l api.Layer, state, detail string) api.Reason {
	r := api.Reason{Code: ChainMissing, Disk: disk, Detail: fmt.Sprintf("backing layer %s is missing at the destination", l.Path)}
	switch state {
	case LayerDiffers:
		r.Code = ChainDiffers
		r.Detail = fmt.Sprintf("backing layer %s exists at the destination with other bytes", l.Path)
	case LayerUnreadable:
		r.Detail = fmt.Sprintf("backing layer %s cannot be read", l.Path)
	}
	if detail != "" {
		r.Detail += ": " + detail
	}
	return r
}

func verifiedDetail(d Disk, f api.DiskFacts) string {
	first := f.Layers[0]
	if first.Path == d.Backing()[0].Path {
		return fmt.Sprintf("backing layer %s is the same bytes at the destination", first.Path)
	}
	return fmt.Sprintf("backing layer %s is the same bytes at the destination, where it lies at %s", d.Backing()[0].Path, first.Path)
}

// stageable tells whether the missing base of a disk can be copied first.
func stageable(d Disk) bool {
	b := d.Backing()
	return len(b) == 1 && d.Stageable[b[0].Path] != ""
}

// verified gives the destination's backing layers of a disk, top first, or nil
// when any of them is not the same bytes.
func verified(in Input, d Disk) []api.Layer {
	f := in.facts(d.Target)
	backing := d.Backing()
	if len(backing) == 0 || len(f.Layers) < len(backing) {
		return nil
	}
	out := make([]api.Layer, len(backing))
	for i, l := range backing {
		if f.Layers[i].State != LayerVerified {
			return nil
		}
		l.Path, l.Digest, l.Template = f.Layers[i].Path, f.Layers[i].Digest, f.Layers[i].Template
		out[i] = l
	}
	return out
}
