package domainxml

import (
	"cmp"
	"fmt"

	"libvirt.org/go/libvirtxml"
)

// CreateSpec describes a new domain. Zero values have sensible meanings.
type CreateSpec struct {
	Name, UUID string // UUID "" = libvirt makes one
	VCPUs      int    // 0 = 1
	Memory     int64  // bytes, rounded up to KiB
	KVM        bool   // else QEMU's own translation, which is slow and runs anywhere
	Arch       string // "" = x86_64
	Machine    string // "" = q35 for x86_64, virt for aarch64
	Emulator   string // "" = libvirt's choice
	Disks      []CreateDisk
	NICs       []CreateNIC
	Metadata   string // inside of <metadata>, with its own namespace
	Title      string
	VNCListen  string // "" = no graphics
	SerialLog  string // file that gets a copy of the serial console; "" = none
	// Boot a kernel directly; all "" = from the first disk.
	Kernel, Initrd, Cmdline string
}

// CreateDisk is one disk of a new domain.
type CreateDisk struct {
	Target   string // "" = the first free name of the bus: vda, vdb, ...
	Device   string // disk (default) or cdrom
	Bus      string // "" = virtio, sata for a cdrom
	Type     string // file (default), block, network
	Source   string // as Disk.Source; "" = an empty cdrom
	Format   string // needed: a format is never guessed
	Backing  []BackingLayer
	ReadOnly bool
	Serial   string
}

// CreateNIC is one network interface of a new domain.
type CreateNIC struct {
	Type   string // network (default) or bridge
	Source string // name of the network or bridge
	MAC    string // "" = libvirt makes one
	Model  string // "" = virtio
}

// tcgCPU is a model that QEMU can translate on every host and migrate between
// any two.
const tcgCPU = "qemu64"

// Generate writes the XML of a new domain: virtio devices, a guest agent's
// channel, a serial console, ACPI, and nothing that ties it to one host.
func Generate(s CreateSpec) (string, error) {
	if s.Name == "" || s.Memory <= 0 {
		return "", fmt.Errorf("generate domain %q: a name and memory are needed", s.Name)
	}
	arch := cmp.Or(s.Arch, "x86_64")
	dom := libvirtxml.Domain{
		Type: "qemu", Name: s.Name, UUID: s.UUID, Title: s.Title,
		Memory: &libvirtxml.DomainMemory{Value: uint((s.Memory + 1023) / 1024), Unit: "KiB"},
		VCPU:   &libvirtxml.DomainVCPU{Placement: "static", Value: uint(max(s.VCPUs, 1))},
		OS: &libvirtxml.DomainOS{
			Type:   &libvirtxml.DomainOSType{Arch: arch, Machine: cmp.Or(s.Machine, defaultMachine(arch)), Type: "hvm"},
			Kernel: s.Kernel, Initrd: s.Initrd, Cmdline: s.Cmdline,
		},
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}},
		CPU:        cpuFor(s.KVM, arch),
		Clock:      &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "destroy",
		Devices: devicesFor(s),
	}
	if s.KVM {
		dom.Type = "kvm"
	}
	if s.Kernel == "" {
		dom.OS.BootDevices = []libvirtxml.DomainBootDevice{{Dev: "hd"}}
	}
	if s.Metadata != "" {
		dom.Metadata = &libvirtxml.DomainMetadata{XML: s.Metadata}
	}
	for _, d := range withTargets(s.Disks) {
		disk, err := diskFor(d)
		if err != nil {
			return "", fmt.Errorf("generate domain %q: %w", s.Name, err)
		}
		dom.Devices.Disks = append(dom.Devices.Disks, disk)
	}
	text, err := dom.Marshal()
	if err != nil {
		return "", fmt.Errorf("generate domain %q: %w", s.Name, err)
	}
	if _, err := Parse(text); err != nil {
		return "", fmt.Errorf("generate domain %q: %w", s.Name, err)
	}
	return text, nil
}

func defaultMachine(arch string) string {
	switch arch {
	case "x86_64", "i686":
		return "q35"
	case "aarch64", "riscv64":
		return "virt"
	}
	return "" // libvirt's default for the architecture
}

func cpuFor(kvm bool, arch string) *libvirtxml.DomainCPU {
	switch {
	case kvm:
		return &libvirtxml.DomainCPU{Mode: "host-model"}
	case arch == "x86_64":
		return &libvirtxml.DomainCPU{Mode: "custom", Match: "exact", Model: &libvirtxml.DomainCPUModel{Fallback: "forbid", Value: tcgCPU}}
	}
	return nil
}

func devicesFor(s CreateSpec) *libvirtxml.DomainDeviceList {
	port := uint(0)
	console := libvirtxml.DomainConsole{
		Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
		Target: &libvirtxml.DomainConsoleTarget{Type: "serial", Port: &port},
	}
	serial := libvirtxml.DomainSerial{
		Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
		Target: &libvirtxml.DomainSerialTarget{Port: &port},
	}
	if s.SerialLog != "" {
		serial.Log = &libvirtxml.DomainChardevLog{File: s.SerialLog, Append: "on"}
		console.Log = serial.Log // libvirt makes one device of the two, and wants them alike
	}
	d := &libvirtxml.DomainDeviceList{
		Emulator: s.Emulator,
		Serials:  []libvirtxml.DomainSerial{serial},
		Consoles: []libvirtxml.DomainConsole{console},
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind"}},
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"}},
		}},
		MemBalloon: &libvirtxml.DomainMemBalloon{Model: "virtio"},
		RNGs: []libvirtxml.DomainRNG{{
			Model:   "virtio",
			Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}},
		}},
	}
	for _, n := range s.NICs {
		d.Interfaces = append(d.Interfaces, nicFor(n))
	}
	if s.VNCListen != "" {
		d.Graphics = []libvirtxml.DomainGraphic{{VNC: &libvirtxml.DomainGraphicVNC{AutoPort: "yes", Listen: s.VNCListen}}}
	}
	return d
}

func nicFor(n CreateNIC) libvirtxml.DomainInterface {
	i := libvirtxml.DomainInterface{Model: &libvirtxml.DomainInterfaceModel{Type: cmp.Or(n.Model, "virtio")}}
	if n.MAC != "" {
		i.MAC = &libvirtxml.DomainInterfaceMAC{Address: n.MAC}
	}
	if n.Type == "bridge" {
		i.Source = &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: n.Source}}
	} else {
		i.Source = &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: n.Source}}
	}
	return i
}
