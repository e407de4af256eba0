package domainxml

import "strings"

// readDevices notes the devices other than disks that matter when a domain is
// to move.
func readDevices(d *Domain, root *node) {
	dev := root.child("devices")
	if dev == nil {
		return
	}
	for _, n := range dev.children {
		if n.space != "" {
			continue
		}
		switch n.name {
		case "hostdev":
			d.HostDevices = append(d.HostDevices, hostDevice(n))
		case "interface":
			d.addInterface(n)
		case "disk":
			d.addDiskBlocker(n)
		case "filesystem":
			d.OtherBlockers = append(d.OtherBlockers, words("filesystem", n.child("driver").get("type"), n.child("target").get("dir")))
		case "shmem":
			// The master's memory is carried along, a peer's is not.
			if n.get("role") != "master" {
				d.OtherBlockers = append(d.OtherBlockers, words("shmem", n.get("name")))
			}
		case "tpm":
			if n.child("backend").get("type") == "passthrough" {
				d.HostDevices = append(d.HostDevices, words("tpm", n.path("backend", "device").get("path")))
			} else {
				d.TPM = true
			}
		case "rng":
			if b := n.child("backend"); b.get("model") == "egd" {
				d.OtherBlockers = append(d.OtherBlockers, "rng egd")
			}
		case "memory":
			if m := n.get("model"); m == "nvdimm" || m == "virtio-pmem" {
				d.OtherBlockers = append(d.OtherBlockers, words("memory", m, n.path("source", "path").value()))
			}
		case "graphics":
			d.Graphics = append(d.Graphics, Graphics{Type: n.get("type"), Listen: n.get("listen")})
		}
	}
	if ls := root.child("launchSecurity"); ls != nil {
		d.OtherBlockers = append(d.OtherBlockers, words("launchSecurity", ls.get("type")))
	}
}

func words(w ...string) string {
	var out []string
	for _, s := range w {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

func (d *Domain) addInterface(n *node) {
	src := n.child("source")
	i := Interface{
		Type: n.get("type"), MAC: n.child("mac").get("address"), Model: n.child("model").get("type"),
		Target: n.child("target").get("dev"),
	}
	for _, a := range []string{"network", "bridge", "dev", "path"} {
		if v := src.get(a); v != "" {
			i.Source = v
			break
		}
	}
	switch i.Type {
	case "hostdev":
		d.HostDevices = append(d.HostDevices, words("interface hostdev", address(src.child("address"))))
	case "vdpa":
		d.HostDevices = append(d.HostDevices, words("interface vdpa", i.Source))
	}
	d.Interfaces = append(d.Interfaces, i)
}

func (d *Domain) addDiskBlocker(n *node) {
	target := n.child("target").get("dev")
	switch typ := n.get("type"); typ {
	case "nvme", "vhostvdpa":
		d.HostDevices = append(d.HostDevices, words("disk", target, typ))
	case "vhostuser", "dir":
		d.OtherBlockers = append(d.OtherBlockers, words("disk", target, typ))
	}
	if n.child("transient") != nil {
		d.OtherBlockers = append(d.OtherBlockers, words("disk", target, "transient"))
	}
}

func hostDevice(n *node) string {
	src := n.child("source")
	kind := n.get("type")
	if kind == "" {
		kind = n.get("mode") // capabilities: storage, misc, net
	}
	switch kind {
	case "usb":
		if v := src.child("vendor").get("id"); v != "" {
			return words("usb", v+":"+src.child("product").get("id"))
		}
		return words("usb", src.child("address").get("bus"), src.child("address").get("device"))
	case "mdev":
		return words("mdev", src.child("address").get("uuid"))
	case "scsi", "scsi_host":
		return words(kind, src.child("adapter").get("name"), src.get("wwpn"), src.get("name"))
	}
	return words(kind, address(src.child("address")))
}

// address writes a PCI address as lspci does.
func address(n *node) string {
	if n.get("bus") == "" {
		return ""
	}
	hex := func(name string) string { return strings.TrimPrefix(n.get(name), "0x") }
	return hex("domain") + ":" + hex("bus") + ":" + hex("slot") + "." + hex("function")
}
