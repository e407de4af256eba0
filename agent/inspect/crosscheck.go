package inspect

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

// Disk is one disk with what its images say.
type Disk struct {
	api.Disk
	ClusterSize int64
	Compat      string
	ExtendedL2  bool
	// Issues are faults of the chain that forbid a migration.
	Issues []api.Reason
	// Endpoint is where the disk lies when any host can connect to it.
	Endpoint *api.Target
	// Ino and Dev name the active file at the time of the look; 0 for none.
	Dev, Ino uint64
}

// headers is what the image files say: the chain, and why it ends early.
type headers struct {
	chain volume.Chain
	err   error
}

// combine makes one disk of what the witnesses say. nodes is nil for a stopped
// instance.
func combine(x domainxml.Disk, node *hypervisor.BlockNode, h headers) Disk {
	d := Disk{Disk: api.Disk{Target: x.Target, Kind: x.Type, Device: x.Device, ReadOnly: x.ReadOnly,
		Path: x.Source, Format: x.Format, Chain: []api.Layer{}, Live: node != nil}}
	d.Endpoint = endpoint(x)
	if x.Source == "" {
		return d
	}
	if x.Type == "file" || x.Type == "block" {
		d.fromHeaders(h, node != nil)
	}
	if node != nil {
		d.fromNode(*node, h)
		d.Disagreements = append(d.Disagreements, againstXML(x, *node)...)
	}
	if len(d.Chain) > 0 {
		d.Size, d.Allocated = d.Chain[0].VirtualSize, d.Chain[0].Allocated
	}
	return d
}

func (d *Disk) fromHeaders(h headers, live bool) {
	for i, l := range h.chain {
		d.Chain = append(d.Chain, api.Layer{Path: l.Path, Format: string(l.Format), VirtualSize: l.VirtualSize,
			Allocated: l.Allocated, FileSize: l.FileSize})
		if i == 0 {
			d.ClusterSize, d.Compat, d.ExtendedL2 = l.ClusterSize, l.Compat, l.ExtendedL2
			d.Dev, d.Ino = l.Dev, l.Ino
			if l.Allocated == 0 && d.Kind == "block" {
				d.Chain[0].Allocated = l.VirtualSize
			}
		}
	}
	for i, issue := range h.chain.Issues() {
		switch {
		case issue.Code == volume.IssueIncomplete:
			// The walk's own error says more.
		case issue.Code == volume.IssueDirty && live && i == 0 && len(h.chain) > 0 && issue.Layer == h.chain[0].Path:
			// QEMU has it open with lazy refcounts: dirty is its normal state.
		case issue.Code == volume.IssueSnapshots:
			d.Issues = append(d.Issues, api.Reason{Code: "snapshots-present", Detail: fmt.Sprintf("image %s has %s", issue.Layer, issue.Detail)})
		default:
			d.Issues = append(d.Issues, api.Reason{Code: "chain-unsafe", Detail: fmt.Sprintf("image %s: %s", issue.Layer, issue.Detail)})
		}
	}
	if h.err == nil {
		return
	}
	code := "chain-unsafe"
	if errors.Is(h.err, volume.ErrBackingFormatUnknown) {
		code = "backing-format-unknown"
	}
	d.Issues = append(d.Issues, api.Reason{Code: code, Detail: h.err.Error()})
}

// fromNode compares QEMU's graph with the headers and keeps QEMU's: it is what
// the guest's bytes come from.
func (d *Disk) fromNode(n hypervisor.BlockNode, h headers) {
	if len(n.Layers) == 0 {
		d.Disagreements = append(d.Disagreements, fmt.Sprintf("libvirt names %s, QEMU has the drive empty", d.Path))
		return
	}
	if len(h.chain) > 0 && h.err == nil { // those of media are not read
		d.Disagreements = append(d.Disagreements, againstHeaders(n, h.chain)...)
	}
	chain := make([]api.Layer, len(n.Layers))
	for i, l := range n.Layers {
		chain[i] = api.Layer{Path: l.Path, Format: l.Format, VirtualSize: l.VirtualSize, Allocated: l.Allocated}
		if l.Allocated < 0 || (i == 0 && l.Allocated == 0 && d.Kind != "file") {
			chain[i].Allocated = l.VirtualSize
		}
		if i < len(h.chain) && same(h.chain[i].Path, l.Path) {
			chain[i].FileSize = h.chain[i].FileSize
		}
	}
	d.Chain = chain
	d.Format = n.Layers[0].Format
}

func againstHeaders(n hypervisor.BlockNode, chain volume.Chain) []string {
	if len(n.Layers) != len(chain) {
		return []string{fmt.Sprintf("QEMU has %d layers open, the image headers name %d", len(n.Layers), len(chain))}
	}
	var out []string
	for i, l := range n.Layers {
		c := chain[i]
		switch {
		case !same(l.Path, c.Path):
			out = append(out, fmt.Sprintf("layer %d: QEMU has %s open, the header above it names %s", i, l.Path, c.Path))
		case l.Format != string(c.Format) && !plain(l.Format, c.Format):
			out = append(out, fmt.Sprintf("layer %d (%s): QEMU reads it as %s, it is recorded as %s", i, l.Path, l.Format, c.Format))
		case l.VirtualSize != c.VirtualSize:
			out = append(out, fmt.Sprintf("layer %d (%s): QEMU has %d bytes, the header says %d", i, l.Path, l.VirtualSize, c.VirtualSize))
		}
	}
	return out
}

// plain tells whether QEMU's driver is its optimised form of raw: it leaves
// the format driver out when raw adds nothing to the protocol below.
func plain(driver string, f volume.Format) bool {
	return f == volume.FormatRaw && (driver == "file" || driver == "host_device")
}

// againstXML compares QEMU's graph with the chain in libvirt's live XML.
// Libvirt may know no chain (nothing is said then), or know how it ends.
func againstXML(x domainxml.Disk, n hypervisor.BlockNode) []string {
	if len(n.Layers) == 0 {
		return nil
	}
	var out []string
	if !same(x.Source, n.Layers[0].Path) {
		out = append(out, fmt.Sprintf("libvirt names %s, QEMU has %s open", x.Source, n.Layers[0].Path))
	}
	if len(x.Chain) == 0 && !x.BackingTerminated {
		return out
	}
	if len(x.Chain) != len(n.Layers)-1 {
		return append(out, fmt.Sprintf("libvirt names %d backing layers, QEMU has %d open", len(x.Chain), len(n.Layers)-1))
	}
	for i, b := range x.Chain {
		if l := n.Layers[i+1]; !same(b.Path, l.Path) {
			out = append(out, fmt.Sprintf("backing layer %d: libvirt names %s, QEMU has %s open", i+1, b.Path, l.Path))
		}
	}
	return out
}

// same compares two paths whole, through symbolic links where they exist.
func same(a, b string) bool {
	if a == b {
		return true
	}
	ra, errA := filepath.EvalSymlinks(a)
	rb, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && ra == rb
}
