package domainxml

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"

	"libvirt.org/go/libvirtxml"
)

// withTargets gives every disk a bus and a target: the first free name of its
// bus, as an administrator would count.
func withTargets(disks []CreateDisk) []CreateDisk {
	taken := map[string]bool{}
	for _, d := range disks {
		taken[d.Target] = true
	}
	out := slices.Clone(disks)
	for i := range out {
		d := &out[i]
		d.Device = cmp.Or(d.Device, "disk")
		if d.Bus == "" && d.Device == "cdrom" {
			d.Bus = "sata"
		}
		d.Bus = cmp.Or(d.Bus, "virtio")
		for n := 0; d.Target == ""; n++ {
			if name := targetName(d.Bus, n); !taken[name] {
				d.Target, taken[name] = name, true
			}
		}
	}
	return out
}

// diskFor makes one disk that withTargets has completed.
func diskFor(d CreateDisk) (disk libvirtxml.DomainDisk, err error) {
	device, bus, target := d.Device, d.Bus, d.Target
	typ := cmp.Or(d.Type, "file")
	if d.Source == "" && device != "cdrom" {
		return disk, fmt.Errorf("disk %q has no source", target)
	}
	if d.Source != "" && d.Format == "" {
		return disk, fmt.Errorf("disk %q has no format, and none is guessed", target)
	}
	text := "<disk type='" + escape(typ) + "' device='" + escape(device) + "'>"
	text += "<driver name='qemu' type='" + escape(cmp.Or(d.Format, "raw")) + "'"
	if device == "disk" {
		text += " discard='unmap'"
	}
	text += "/>"
	if d.Source != "" {
		attrs, inner, err := sourceXML(typ, d.Source)
		if err != nil {
			return disk, fmt.Errorf("disk %q: %w", target, err)
		}
		backing, err := backingXML(d.Backing)
		if err != nil {
			return disk, fmt.Errorf("disk %q: %w", target, err)
		}
		text += "<source" + attrs + ">" + inner + "</source>" + backing
	}
	text += "<target dev='" + escape(target) + "' bus='" + escape(bus) + "'/>"
	if d.Serial != "" {
		text += "<serial>" + escape(d.Serial) + "</serial>"
	}
	if d.ReadOnly || device == "cdrom" {
		text += "<readonly/>"
	}
	text += "</disk>"
	if err := xml.Unmarshal([]byte(text), &disk); err != nil {
		return disk, fmt.Errorf("disk %q: %w", target, err)
	}
	return disk, nil
}

// targetName is vda, vdb, ... vdz, vdaa for virtio, and sda for other buses.
func targetName(bus string, i int) string {
	prefix := "sd"
	if bus == "virtio" {
		prefix = "vd"
	}
	name := ""
	for i++; i > 0; i = (i - 1) / 26 {
		name = string(rune('a'+(i-1)%26)) + name
	}
	return prefix + name
}
