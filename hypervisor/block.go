package hypervisor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// BlockNode is one block device as QEMU has it open.
type BlockNode struct {
	Target string  // vda; "" when no disk of the XML has the device's alias
	Device string  // the device's alias, e.g. "virtio-disk0"
	Layers []Layer // active layer first, then each backing layer; empty for an empty drive
}

// Layer is one image of a chain, as QEMU has it open.
type Layer struct {
	Path        string // file or device path, or iscsi://host:port/iqn/lun, rbd:pool/image, or QEMU's own words
	Format      string // qcow2, raw, ...
	VirtualSize int64  // bytes
	Allocated   int64  // bytes on the storage; -1 when the storage cannot tell
	NodeName    string // of the format layer; "" when two nodes could be meant
	ReadOnly    bool
	Encrypted   bool
	// BackingFile and BackingFormat are what the image itself records; the next
	// layer is what QEMU really opened.
	BackingFile, BackingFormat string
	DirtyFlag                  bool // qcow2's dirty bit was found set at opening
	Corrupt                    bool // qcow2's corrupt bit
	DataFile                   string
	InternalSnapshots          int
	ClusterSize                int64  // bytes, 0 when the format has none
	Compat                     string // qcow2: "0.10" or "1.1"
	ExtendedL2                 bool
}

// Blocks returns the block graph of a running domain, disk by disk, as QEMU
// itself has it. ErrInvalidState when the domain does not run. Do not ask an
// incoming domain.
func (c *Client) Blocks(ctx context.Context, name string) ([]BlockNode, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	targets, err := c.targets(ctx, name)
	if err != nil {
		return nil, err
	}
	block, err := c.query(ctx, name, "query-block", nil)
	if err != nil {
		return nil, err
	}
	named, err := c.query(ctx, name, "query-named-block-nodes", map[string]bool{"flat": true})
	if err != nil {
		return nil, err
	}
	nodes, err := parseBlocks(block, named)
	if err != nil {
		return nil, fmt.Errorf("block graph of %q: %w", name, err)
	}
	for i := range nodes {
		nodes[i].Target = targets[nodes[i].Device]
	}
	return nodes, nil
}

// targets maps the alias of each disk to its target, from the live XML.
func (c *Client) targets(ctx context.Context, name string) (map[string]string, error) {
	text, err := c.xml(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	d, err := domainxml.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("XML of %q: %w", name, err)
	}
	out := make(map[string]string, len(d.Disks))
	for _, disk := range d.Disks {
		out[disk.Alias] = disk.Target
	}
	return out, nil
}

// imageInfo is QEMU's ImageInfo (qapi/block-core.json), as far as needed.
type imageInfo struct {
	Filename      string            `json:"filename"`
	Format        string            `json:"format"`
	VirtualSize   int64             `json:"virtual-size"`
	ActualSize    *int64            `json:"actual-size"`
	ClusterSize   int64             `json:"cluster-size"`
	Encrypted     bool              `json:"encrypted"`
	DirtyFlag     bool              `json:"dirty-flag"`
	BackingFile   string            `json:"backing-filename"`
	BackingFormat string            `json:"backing-filename-format"`
	Snapshots     []json.RawMessage `json:"snapshots"`
	Backing       *imageInfo        `json:"backing-image"`
	Specific      struct {
		Data json.RawMessage `json:"data"`
	} `json:"format-specific"`
}

// deviceInfo is QEMU's BlockDeviceInfo.
type deviceInfo struct {
	NodeName string     `json:"node-name"`
	Driver   string     `json:"drv"`
	File     string     `json:"file"`
	ReadOnly bool       `json:"ro"`
	Image    *imageInfo `json:"image"`
}

// maxLayers bounds a chain; libvirt's own limit is 200.
const maxLayers = 256

// parseBlocks joins the replies of query-block, which has the chains, and of
// query-named-block-nodes, which has the names of the nodes.
func parseBlocks(block, named []byte) ([]BlockNode, error) {
	var devices []struct {
		Device   string      `json:"device"`
		QDev     string      `json:"qdev"`
		Inserted *deviceInfo `json:"inserted"`
	}
	if err := json.Unmarshal(block, &devices); err != nil {
		return nil, fmt.Errorf("parse query-block: %w", err)
	}
	var nodes []deviceInfo
	if err := json.Unmarshal(named, &nodes); err != nil {
		return nil, fmt.Errorf("parse query-named-block-nodes: %w", err)
	}
	out := make([]BlockNode, 0, len(devices))
	for _, d := range devices {
		n := BlockNode{Device: cmp.Or(aliasOf(d.QDev), d.Device)}
		if d.Inserted != nil && d.Inserted.Image != nil {
			layers, err := chainOf(d.Inserted, nodes)
			if err != nil {
				return nil, fmt.Errorf("device %q: %w", n.Device, err)
			}
			n.Layers = layers
		}
		out = append(out, n)
	}
	return out, nil
}

// aliasOf takes libvirt's device alias out of QEMU's object path: virtio disks
// are /machine/peripheral/virtio-disk0/virtio-backend, others just the alias.
func aliasOf(qdev string) string {
	rest, ok := strings.CutPrefix(qdev, "/machine/peripheral/")
	if !ok {
		return qdev
	}
	alias, _, _ := strings.Cut(rest, "/")
	return alias
}

// filters are drivers that pass through to the layer below and are no image.
var filters = []string{"copy-on-read", "throttle", "mirror_top", "commit_top", "copy-before-write", "cbw", "blkdebug", "preallocate", "blklogwrites"}

func chainOf(top *deviceInfo, nodes []deviceInfo) ([]Layer, error) {
	var layers []Layer
	depth := 0
	for img := top.Image; img != nil; img = img.Backing {
		if depth++; depth > maxLayers {
			return nil, fmt.Errorf("chain of more than %d layers", maxLayers)
		}
		if slices.Contains(filters, img.Format) && img.Backing != nil {
			continue
		}
		l := layerOf(img)
		if node := nodeOf(img, top, len(layers) == 0, nodes); node != nil {
			l.NodeName, l.ReadOnly = node.NodeName, node.ReadOnly
		} else {
			l.ReadOnly = len(layers) > 0 || top.ReadOnly
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// nodeOf finds the format node of a layer: the inserted one for the active
// layer, else the only node with the layer's driver and file.
func nodeOf(img *imageInfo, top *deviceInfo, active bool, nodes []deviceInfo) *deviceInfo {
	if active && top.Driver == img.Format {
		return top
	}
	var found *deviceInfo
	for i, n := range nodes {
		if n.Driver != img.Format || n.Image == nil || n.Image.Filename != img.Filename {
			continue
		}
		if found != nil {
			return nil
		}
		found = &nodes[i]
	}
	return found
}

// protocols are drivers of storage, not of formats: such a layer is a raw image.
// Newer libvirt puts no raw node on top of a raw image's storage.
var protocols = []string{"file", "host_device", "host_cdrom", "iscsi", "rbd", "nbd", "nfs", "gluster", "ssh", "http", "https", "ftp", "ftps", "nvme", "io_uring", "nvme-io_uring", "virtio-blk-vhost-vdpa", "virtio-blk-vhost-user", "virtio-blk-vfio-pci"}

func layerOf(img *imageInfo) Layer {
	format := img.Format
	if slices.Contains(protocols, format) {
		format = "raw"
	}
	l := Layer{
		Path: imagePath(img.Filename), Format: format, VirtualSize: img.VirtualSize, Allocated: -1,
		Encrypted: img.Encrypted, BackingFile: img.BackingFile, BackingFormat: img.BackingFormat,
		DirtyFlag: img.DirtyFlag, InternalSnapshots: len(img.Snapshots), ClusterSize: img.ClusterSize,
	}
	if img.ActualSize != nil {
		l.Allocated = *img.ActualSize
	}
	// The data of other formats has other members, or is not an object at all.
	var q struct {
		Compat     string `json:"compat"`
		Corrupt    bool   `json:"corrupt"`
		ExtendedL2 bool   `json:"extended-l2"`
		DataFile   string `json:"data-file"`
	}
	if img.Format == "qcow2" && json.Unmarshal(img.Specific.Data, &q) == nil {
		l.Compat, l.Corrupt, l.ExtendedL2, l.DataFile = q.Compat, q.Corrupt, q.ExtendedL2, q.DataFile
	}
	return l
}

// imagePath turns QEMU's name of an image into the form that
// domainxml.Disk.Source has. What it does not know stays as QEMU wrote it.
func imagePath(filename string) string {
	text, isJSON := strings.CutPrefix(filename, "json:")
	if !isJSON {
		return canonicalURL(filename)
	}
	var n blockdevNode
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return filename
	}
	for depth := 0; depth < maxLayers && n.File != nil; depth++ {
		n = *n.File // the format layer wraps the protocol layer
	}
	switch n.Driver {
	case "file", "host_device", "host_cdrom":
		if n.Filename != "" {
			return n.Filename
		}
	case "iscsi":
		if n.Portal != "" && n.Target != "" {
			return domainxml.ISCSISource(n.Portal, n.Target, string(cmp.Or(n.LUN, "0")))
		}
	case "rbd":
		if n.Pool != "" && n.Image != "" {
			return "rbd:" + n.Pool + "/" + n.Image
		}
	}
	return filename
}

// blockdevNode is a json: file name, as far as needed.
type blockdevNode struct {
	Driver   string        `json:"driver"`
	Filename string        `json:"filename"`
	File     *blockdevNode `json:"file"`
	Portal   string        `json:"portal"`
	Target   string        `json:"target"`
	LUN      json.Number   `json:"lun"`
	Pool     string        `json:"pool"`
	Image    string        `json:"image"`
}

// canonicalURL gives iscsi URLs the port they leave out.
func canonicalURL(name string) string {
	rest, ok := strings.CutPrefix(name, "iscsi://")
	if !ok {
		return name
	}
	portal, path, ok := strings.Cut(rest, "/")
	iqn, lun, ok2 := strings.Cut(path, "/")
	if !ok || !ok2 {
		return name
	}
	if _, _, err := net.SplitHostPort(portal); err != nil && strings.Contains(portal, "@") {
		return name
	}
	return domainxml.ISCSISource(portal, iqn, lun)
}
