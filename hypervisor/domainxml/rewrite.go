package domainxml

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// DiskRewrite gives one disk another source. The disk is found by its target
// and its present source together, both compared whole.
type DiskRewrite struct {
	Target    string // vda
	OldSource string // as Disk.Source
	Type      string // file, block, network
	Source    string // as Disk.Source
	Format    string
	// Auth is the login at a network source; one without a user is no login, and
	// nil keeps the old one where the protocol stays the same.
	Auth *Auth
	// Backing is the chain below, first backing layer first. It is always
	// written to its end; empty means that the disk stands alone.
	Backing []BackingLayer
}

// Auth is a login whose password libvirt keeps as the secret of that usage.
type Auth struct{ User, Usage string }

// RewriteOptions say what to change.
type RewriteOptions struct {
	Disks []DiskRewrite
	// GraphicsListen, an IPv4 or IPv6 address, replaces the address that VNC and
	// SPICE servers listen on. Loopback and wildcard addresses stay, they are as
	// good on any host. "" changes nothing.
	GraphicsListen string
	// CharPaths replaces paths of serial ports, consoles, parallel ports and
	// channels, compared whole. What it does not name stays.
	CharPaths map[string]string
	Name      string // new name of the domain; "" keeps it
}

// Rewrite makes the destination's XML from the source's. Each disk rewrite must
// match exactly one disk, or it is an error that names the path. Sockets and
// files whose paths libvirt made up for this host lose them, so that the
// destination makes its own. Everything else stays byte for byte.
func Rewrite(text string, o RewriteOptions) (string, error) {
	root, err := parseDomain(text)
	if err != nil {
		return "", err
	}
	p := &patch{text: text}
	if err := rewriteDisks(p, root, o.Disks); err != nil {
		return "", err
	}
	if err := rewriteGraphics(p, root, o.GraphicsListen); err != nil {
		return "", err
	}
	rewriteChars(p, root, o.CharPaths)
	if o.Name != "" {
		n := root.child("name")
		if n == nil || len(n.children) > 0 {
			return "", fmt.Errorf("%w: no name to replace", ErrInvalid)
		}
		p.replace(n.start, n.end, "<name>"+escape(o.Name)+"</name>")
	}
	return p.apply()
}

// SetDisk gives the disk with that target another file, whatever it had
// before. It is for XML of the user's own; backing is as in DiskRewrite.
func SetDisk(text, target, path, format string, backing ...BackingLayer) (string, error) {
	root, err := parseDomain(text)
	if err != nil {
		return "", err
	}
	for _, n := range root.child("devices").all("disk") {
		if n.child("target").get("dev") == target {
			p := &patch{text: text}
			r := DiskRewrite{Target: target, Type: "file", Source: path, Format: format, Backing: backing}
			if err := rewriteDisk(p, n, r); err != nil {
				return "", err
			}
			return p.apply()
		}
	}
	return "", fmt.Errorf("set disk %q: the domain has no such target", target)
}

func rewriteDisks(p *patch, root *node, rewrites []DiskRewrite) error {
	done := map[string]bool{}
	disks := root.child("devices").all("disk")
	for _, r := range rewrites {
		if done[r.Target] {
			return fmt.Errorf("rewrite disk %q: given twice", r.Target)
		}
		done[r.Target] = true
		var found *node
		for _, n := range disks {
			if d := parseDisk(n); d.Target == r.Target && d.Source == r.OldSource {
				found = n
			}
		}
		if found == nil {
			return fmt.Errorf("rewrite disk %q: no disk with that target has the source %q", r.Target, r.OldSource)
		}
		if err := rewriteDisk(p, found, r); err != nil {
			return err
		}
	}
	return nil
}

// rewriteDisk edits the parts of one <disk>.
func rewriteDisk(p *patch, n *node, r DiskRewrite) error {
	if r.Source == "" || r.Format == "" {
		return fmt.Errorf("rewrite disk %q: source and format are needed", r.Target)
	}
	old := parseDisk(n)
	source, err := newSource(p, n, old, r)
	if err != nil {
		return fmt.Errorf("rewrite disk %q: %w", r.Target, err)
	}
	backing, err := backingXML(r.Backing)
	if err != nil {
		return fmt.Errorf("rewrite disk %q: %w", r.Target, err)
	}
	p.setAttr(n, "type", r.Type)
	front := rewriteDriver(p, n, r.Format)
	keepAuth := sameProtocol(old, r) && r.Auth == nil

	// The new source takes the old one's place and brings the backing along
	// where there was none; further ones, which libvirt would not write, go.
	placedSource, placedBacking := false, false
	hasBacking := n.child("backingStore") != nil
	for _, c := range n.children {
		if c.space != "" {
			continue
		}
		switch c.name {
		case "source":
			if placedSource {
				p.remove(c)
				continue
			}
			placedSource = true
			with := source
			if !hasBacking {
				with, placedBacking = with+backing, true
			}
			p.replace(c.start, c.end, with)
		case "backingStore":
			if placedBacking {
				p.remove(c)
				continue
			}
			placedBacking = true
			p.replace(c.start, c.end, backing)
		case "mirror":
			p.remove(c)
		case "auth":
			if !keepAuth {
				p.remove(c)
			}
		}
	}
	if !placedSource {
		front += source
	}
	if !placedBacking {
		front += backing
	}
	if front != "" {
		p.insertFirst(n, front)
	}
	return nil
}

// rewriteDriver sets the format, and returns a driver element to insert where
// the disk has none.
func rewriteDriver(p *patch, n *node, format string) string {
	drv := n.child("driver")
	if drv == nil {
		return "<driver name='qemu' type='" + escape(format) + "'/>"
	}
	p.setAttr(drv, "type", format)
	if format != "qcow2" {
		// libvirt accepts these for qcow2 only.
		p.dropAttr(drv, "discard_no_unref")
		if c := drv.child("metadata_cache"); c != nil {
			p.remove(c)
		}
	}
	return ""
}

// newSource writes the <source> for a rewrite. Of the old one it keeps what
// does not depend on where the bytes are: the start-up policy, encryption, and
// for the same protocol who may log in. The index, labels, slices, and
// libvirt's private data belong to the old place.
func newSource(p *patch, n *node, old Disk, r DiskRewrite) (string, error) {
	attrs, inner, err := sourceXML(r.Type, r.Source)
	if err != nil {
		return "", err
	}
	src := n.child("source")
	if a, ok := attrOf(src, "startupPolicy"); ok && r.Type != "network" {
		attrs += " startupPolicy='" + escape(a.value) + "'"
	}
	keep := map[string]bool{"encryption": true}
	if sameProtocol(old, r) {
		keep["auth"], keep["initiator"], keep["config"] = r.Auth == nil, true, true
		if inner == "" {
			keep["host"] = true
		}
	}
	if src != nil {
		for _, c := range src.children {
			if c.space == "" && keep[c.name] {
				inner += p.text[c.start:c.end]
			}
		}
	}
	if r.Auth != nil && r.Auth.User != "" {
		inner += "<auth username='" + escape(r.Auth.User) + "'><secret type='" + protocolOf(r.Source) + "' usage='" + escape(r.Auth.Usage) + "'/></auth>"
	}
	if inner == "" {
		return "<source" + attrs + "/>", nil
	}
	return "<source" + attrs + ">" + inner + "</source>", nil
}

func attrOf(n *node, name string) (attr, bool) {
	if n == nil {
		return attr{}, false
	}
	return n.attr(name)
}

// sameProtocol: a secret is good for one protocol only.
func sameProtocol(old Disk, r DiskRewrite) bool {
	return old.Type == "network" && r.Type == "network" && old.Protocol == protocolOf(r.Source)
}

// backingXML writes a chain with its end.
func backingXML(layers []BackingLayer) (string, error) {
	var out strings.Builder
	for _, l := range layers {
		typ := l.Type
		if typ == "" {
			typ = "file"
		}
		if l.Path == "" || l.Format == "" {
			return "", fmt.Errorf("backing layer %q needs a path and a format", l.Path)
		}
		attrs, inner, err := sourceXML(typ, l.Path)
		if err != nil {
			return "", err
		}
		src := "<source" + attrs + "/>"
		if inner != "" {
			src = "<source" + attrs + ">" + inner + "</source>"
		}
		out.WriteString("<backingStore type='" + typ + "'><format type='" + escape(l.Format) + "'/>" + src)
	}
	out.WriteString("<backingStore/>")
	out.WriteString(strings.Repeat("</backingStore>", len(layers)))
	return out.String(), nil
}

func rewriteGraphics(p *patch, root *node, listen string) error {
	if listen == "" {
		return nil
	}
	addr, err := netip.ParseAddr(strings.Trim(listen, "[]"))
	if err != nil {
		return fmt.Errorf("graphics listen address: %w", err)
	}
	listen = addr.String()
	for _, g := range root.child("devices").all("graphics") {
		if t := g.get("type"); t != "vnc" && t != "spice" {
			continue
		}
		if movable(g.get("listen")) {
			p.setAttr(g, "listen", listen)
		}
		for _, l := range g.all("listen") {
			if l.get("type") == "address" && movable(l.get("address")) {
				p.setAttr(l, "address", listen)
			}
		}
	}
	return nil
}

// movable: an address of this one host, which no other host has.
func movable(listen string) bool {
	if listen == "" || listen == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(strings.Trim(listen, "[]"))
	if err != nil {
		return true // a host name
	}
	return !addr.IsLoopback() && !addr.IsUnspecified()
}

// generated knows the paths that libvirt makes up for channels, which hold the
// domain's number on this host: .../channel/target/domain-3-vm1/NAME up to 9.x,
// /run/libvirt/qemu/channel/3-vm1/NAME later, and the name alone before 1.3.
var generated = regexp.MustCompile(`^(/var/lib/libvirt/qemu|/run/libvirt/qemu|/var/run/libvirt/qemu)/channel/`)

func rewriteChars(p *patch, root *node, paths map[string]string) {
	dev := root.child("devices")
	if dev == nil {
		return
	}
	for _, n := range dev.children {
		if n.space != "" {
			continue
		}
		switch n.name {
		case "serial", "console", "parallel", "channel":
		default:
			continue
		}
		for _, src := range n.all("source") {
			path := src.get("path")
			if to, ok := paths[path]; ok && path != "" {
				p.setAttr(src, "path", to)
				continue
			}
			if n.name == "channel" && n.get("type") == "unix" && generated.MatchString(path) {
				p.dropAttr(src, "path")
			}
		}
	}
}
