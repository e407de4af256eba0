package domainxml

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Domain is what a domain's XML says, as far as it concerns moving it.
type Domain struct {
	Name, UUID    string
	Type          string // kvm or qemu
	Arch, Machine string
	Emulator      string
	VCPUs         int
	Memory        int64 // bytes, at most
	CurrentMemory int64 // bytes; 0 when not given
	Disks         []Disk
	// HostDevices name what ties the domain to this host's hardware, e.g.
	// "pci 0000:3b:00.0", "mdev ...", "interface hostdev", "interface vdpa".
	HostDevices []string
	// OtherBlockers name what else does not migrate, e.g. "filesystem virtiofs
	// /srv", "shmem shm0".
	OtherBlockers []string
	Interfaces    []Interface
	Graphics      []Graphics
	Metadata      string // inside of <metadata>, as written
	CPU           string // the <cpu> element, as written; "" when there is none
	CPUMode       string // custom, host-model, host-passthrough, maximum; "" when not given
	CPUCheck      string // none, partial, full: how far libvirt insists on it; "" when not given
	CPUModel      bool   // <cpu> names a model
	NVRAM         string // path of the NVRAM file
	TPM           bool   // emulated TPM, whose state libvirt carries along
	SecureBoot    bool
}

// Interface is one network interface.
type Interface struct{ Type, Source, MAC, Model, Target string }

// Graphics is one graphics server.
type Graphics struct{ Type, Listen string }

// Disk is one disk of a domain.
type Disk struct {
	Target string // vda
	Device string // disk, cdrom, floppy, lun
	Bus    string
	Type   string // file, block, network, volume, dir, nvme, vhostuser, vhostvdpa
	Format string // driver type; "" when not given: libvirt then means raw
	// Source is the whole path; iscsi://host:port/iqn/lun, rbd:pool/image or
	// protocol:name for network disks; pool/volume for volumes; "" for an empty
	// drive.
	Source            string
	Protocol          string // of a network disk
	Pool, Volume      string // of a volume disk
	ReadOnly          bool
	Shareable         bool
	Transient         bool
	Encrypted         bool // LUKS or the like, with a secret
	Auth              bool // the source needs a secret
	Cache, Discard    string
	Serial            string
	Alias             string         // of the running device
	Chain             []BackingLayer // first backing layer first
	BackingTerminated bool           // the chain ends in an empty backingStore: libvirt does not probe
	Mirror            bool           // a block job is copying it
	StartupPolicy     string
	BootOrder         int // from 1; 0 when the disk has none of its own
}

// BackingLayer is one layer below a disk's active one.
type BackingLayer struct {
	Path   string // as Disk.Source
	Format string
	Type   string // file, block, network; "" means file when written
}

// Disk returns the disk with that target.
func (d Domain) Disk(target string) (Disk, bool) {
	for _, disk := range d.Disks {
		if disk.Target == target {
			return disk, true
		}
	}
	return Disk{}, false
}

// Parse reads domain XML. It refuses, with ErrInvalid, what is not well-formed,
// has a DOCTYPE, is no domain or is absurdly large; what libvirt would refuse
// beyond that is libvirt's to say.
func Parse(text string) (Domain, error) {
	root, err := parseDomain(text)
	if err != nil {
		return Domain{}, err
	}
	os := root.child("os")
	d := Domain{
		Name: root.child("name").value(), UUID: root.child("uuid").value(), Type: root.get("type"),
		Arch: os.child("type").get("arch"), Machine: os.child("type").get("machine"),
		Emulator: root.path("devices", "emulator").value(),
		NVRAM:    os.child("nvram").value(),
	}
	if d.NVRAM == "" {
		d.NVRAM = os.path("nvram", "source").get("file")
	}
	d.SecureBoot = os.child("loader").get("secure") == "yes"
	if d.VCPUs, err = parseVCPUs(root.child("vcpu")); err != nil {
		return Domain{}, err
	}
	if d.Memory, err = parseMemory(root.child("memory")); err != nil {
		return Domain{}, err
	}
	if d.CurrentMemory, err = parseMemory(root.child("currentMemory")); err != nil {
		return Domain{}, err
	}
	if m := root.child("metadata"); m != nil {
		d.Metadata = text[m.tagEnd:m.endTag]
	}
	if cpu := root.child("cpu"); cpu != nil {
		d.CPU, d.CPUMode, d.CPUCheck = text[cpu.start:cpu.end], cpu.get("mode"), cpu.get("check")
		d.CPUModel = cpu.child("model").value() != ""
	}
	for _, n := range root.child("devices").all("disk") {
		d.Disks = append(d.Disks, parseDisk(n))
	}
	readDevices(&d, root)
	return d, nil
}

// parseDomain parses text and insists on a domain with a name and devices of
// the shape that the rest relies on.
func parseDomain(text string) (*node, error) {
	root, err := parseTree(text)
	if err != nil {
		return nil, err
	}
	if root.name != "domain" || root.space != "" {
		return nil, fmt.Errorf("%w: root element is <%s>, not <domain>", ErrInvalid, root.name)
	}
	if len(root.all("devices")) > 1 {
		return nil, fmt.Errorf("%w: more than one <devices>", ErrInvalid)
	}
	seen := map[string]bool{}
	for _, n := range root.child("devices").all("disk") {
		target := n.child("target").get("dev")
		if target == "" {
			return nil, fmt.Errorf("%w: a disk has no target", ErrInvalid)
		}
		if seen[target] {
			return nil, fmt.Errorf("%w: two disks have the target %q", ErrInvalid, target)
		}
		seen[target] = true
	}
	return root, nil
}

func parseVCPUs(n *node) (int, error) {
	if n == nil {
		return 1, nil // libvirt's default
	}
	v, err := strconv.Atoi(n.value())
	if err != nil || v < 1 {
		return 0, fmt.Errorf("%w: vcpu %q", ErrInvalid, n.value())
	}
	return v, nil
}

// units are libvirt's names of sizes (virScaleInteger): a bare letter and the
// *iB names are powers of 1024, KB and the like powers of 1000.
var units = map[string]int64{
	"b": 1, "bytes": 1, "byte": 1,
	"k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tib": 1 << 40,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
}

func parseMemory(n *node) (int64, error) {
	if n == nil {
		return 0, nil
	}
	unit := n.get("unit")
	if unit == "" {
		unit = "KiB"
	}
	scale, ok := units[strings.ToLower(unit)]
	v, err := strconv.ParseInt(n.value(), 10, 64)
	if !ok || err != nil || v < 0 || v > math.MaxInt64/scale {
		return 0, fmt.Errorf("%w: %s %q %s", ErrInvalid, n.name, n.value(), unit)
	}
	return v * scale, nil
}

func parseDisk(n *node) Disk {
	src, drv, target := n.child("source"), n.child("driver"), n.child("target")
	d := Disk{
		Target: target.get("dev"), Bus: target.get("bus"), Device: n.get("device"), Type: n.get("type"),
		Format: drv.get("type"), Cache: drv.get("cache"), Discard: drv.get("discard"),
		ReadOnly: n.child("readonly") != nil, Shareable: n.child("shareable") != nil, Transient: n.child("transient") != nil,
		Encrypted: n.child("encryption") != nil || src.child("encryption") != nil,
		Auth:      n.child("auth") != nil || src.child("auth") != nil,
		Serial:    n.child("serial").value(), Alias: n.child("alias").get("name"),
		Mirror: n.child("mirror") != nil, StartupPolicy: src.get("startupPolicy"),
	}
	d.BootOrder, _ = strconv.Atoi(n.child("boot").get("order")) // libvirt accepts numbers only
	if d.Device == "" {
		d.Device = "disk"
	}
	if d.Type == "" {
		d.Type = "file"
	}
	d.Source, d.Protocol = sourceOf(d.Type, src)
	if d.Type == "volume" {
		d.Pool, d.Volume = src.get("pool"), src.get("volume")
	}
	for b := n.child("backingStore"); b != nil; b = b.child("backingStore") {
		typ := b.get("type")
		if typ == "" && b.child("source") == nil {
			d.BackingTerminated = true
			break
		}
		path, _ := sourceOf(typ, b.child("source"))
		d.Chain = append(d.Chain, BackingLayer{Path: path, Format: b.child("format").get("type"), Type: typ})
	}
	return d
}
