package domainxml

import (
	"cmp"
	"encoding/xml"
	"fmt"

	"libvirt.org/go/libvirtxml"
)

// diskFor makes the i-th disk.
func diskFor(i int, d CreateDisk) (disk libvirtxml.DomainDisk, err error) {
	device := cmp.Or(d.Device, "disk")
	bus := cmp.Or(d.Bus, map[bool]string{true: "sata", false: "virtio"}[device == "cdrom"])
	target := cmp.Or(d.Target, targetName(bus, i))
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
