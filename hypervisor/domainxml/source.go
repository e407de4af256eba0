package domainxml

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

const iscsiPort = "3260"

// ISCSISource is the one way to write an iSCSI LUN: with its port, IPv6
// addresses in brackets, and the LUN as a number.
func ISCSISource(portal, iqn, lun string) string {
	host, port, err := net.SplitHostPort(portal)
	if err != nil {
		host, port = strings.Trim(portal, "[]"), iscsiPort
	}
	return "iscsi://" + net.JoinHostPort(host, port) + "/" + iqn + "/" + lun
}

// sourceOf reads a <source> element of a disk or backing layer of that type.
func sourceOf(typ string, src *node) (path, protocol string) {
	if src == nil {
		return "", ""
	}
	switch typ {
	case "file", "":
		return src.get("file"), ""
	case "block":
		return src.get("dev"), ""
	case "dir":
		return src.get("dir"), ""
	case "volume":
		if src.get("pool") == "" {
			return "", ""
		}
		return src.get("pool") + "/" + src.get("volume"), ""
	case "network":
		return networkSource(src), src.get("protocol")
	case "vhostuser":
		return src.get("path"), ""
	case "vhostvdpa":
		return src.get("dev"), ""
	}
	return "", ""
}

func networkSource(src *node) string {
	protocol, name := src.get("protocol"), src.get("name")
	host := src.child("host")
	switch protocol {
	case "iscsi":
		iqn, lun, ok := strings.Cut(name, "/")
		if !ok {
			lun = "0" // QEMU's and libvirt's default
		}
		return ISCSISource(portalOf(host, iscsiPort), iqn, lun)
	case "rbd":
		return "rbd:" + name
	}
	if host == nil {
		return protocol + ":" + name
	}
	if socket := host.get("socket"); socket != "" {
		return protocol + "+unix:" + socket + "/" + name
	}
	return protocol + "://" + portalOf(host, "") + "/" + name
}

func portalOf(host *node, port string) string {
	name := host.get("name")
	if p := host.get("port"); p != "" {
		port = p
	}
	if port == "" {
		return name
	}
	return net.JoinHostPort(strings.Trim(name, "[]"), port)
}

// sourceXML writes what goes into <source ...>: its attributes, and the
// children it needs.
func sourceXML(typ, source string) (attrs, children string, err error) {
	switch typ {
	case "file":
		return " file='" + escape(source) + "'", "", nil
	case "block":
		return " dev='" + escape(source) + "'", "", nil
	case "network":
		return networkXML(source)
	}
	return "", "", fmt.Errorf("cannot write a source of type %q", typ)
}

func networkXML(source string) (attrs, children string, err error) {
	if name, ok := strings.CutPrefix(source, "rbd:"); ok {
		// Monitors and user come from the host's ceph.conf.
		return " protocol='rbd' name='" + escape(name) + "'", "", nil
	}
	u, err := url.Parse(source)
	if err != nil {
		return "", "", fmt.Errorf("network source %q: %w", source, err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	if u.Host == "" || name == "" || (u.Scheme != "iscsi" && u.Scheme != "nbd") {
		return "", "", fmt.Errorf("network source %q: want iscsi://host:port/iqn/lun, nbd://host:port/export or rbd:pool/image", source)
	}
	port := u.Port()
	if port == "" && u.Scheme == "iscsi" {
		port = iscsiPort
	}
	host := "<host name='" + escape(u.Hostname()) + "'"
	if port != "" {
		host += " port='" + escape(port) + "'"
	}
	return " protocol='" + u.Scheme + "' name='" + escape(name) + "'", host + "/>", nil
}

func protocolOf(source string) string {
	scheme, _, _ := strings.Cut(source, ":")
	return scheme
}
