package hypervisor

import (
	"context"
	"encoding/xml"
	"fmt"
)

// Host is what this host is and can run.
type Host struct {
	Name           string
	UUID           string // libvirt's host UUID; two hosts with one UUID cannot migrate to each other
	LibvirtVersion string // e.g. "9.0.0", of the daemon
	QEMUVersion    string // e.g. "7.2.22"
	Arch           string
	CPUModel       string // libvirt's name for the host's CPU
	CPUs           int    // logical
	Memory         int64  // bytes
	MemoryFree     int64  // bytes
	KVM            bool   // hardware acceleration can be used
	Emulator       string // path of the emulator for the host's architecture, "" when libvirt names none
}

// Host reads the host's facts; several round trips, none to any QEMU.
func (c *Client) Host(ctx context.Context) (Host, error) {
	return onControl(ctx, c, "read host facts", "", func(l *link) (h Host, err error) {
		if h.Name, err = l.conn.GetHostname(); err != nil {
			return h, err
		}
		v, err := l.conn.GetLibVersion()
		if err != nil {
			return h, err
		}
		h.LibvirtVersion = versionText(v)
		if v, err = l.conn.GetVersion(); err == nil {
			h.QEMUVersion = versionText(v)
		}
		text, err := l.conn.GetCapabilities()
		if err != nil {
			return h, err
		}
		caps, err := parseCapabilities([]byte(text))
		if err != nil {
			return h, err
		}
		h.UUID, h.Arch, h.CPUModel = caps.UUID, caps.Arch, caps.CPUModel
		info, err := l.conn.GetNodeInfo()
		if err != nil {
			return h, err
		}
		h.CPUs, h.Memory = int(info.Cpus), int64(info.Memory)*1024
		if free, err := l.conn.GetFreeMemory(); err == nil {
			h.MemoryFree = int64(free)
		}
		h.KVM, h.Emulator = l.acceleration(h.Arch)
		return h, nil
	})
}

// acceleration asks what libvirt can run on the host's own architecture. The
// call fails for "kvm" where /dev/kvm cannot be used.
func (l *link) acceleration(arch string) (kvm bool, emulator string) {
	for _, virt := range []string{"kvm", "qemu"} {
		text, err := l.conn.GetDomainCapabilities("", arch, "", virt, 0)
		if err != nil {
			continue
		}
		var caps struct {
			Path string `xml:"path"`
		}
		if err := xml.Unmarshal([]byte(text), &caps); err != nil {
			continue
		}
		return virt == "kvm", caps.Path
	}
	return false, ""
}

type capabilities struct {
	UUID     string `xml:"host>uuid"`
	Arch     string `xml:"host>cpu>arch"`
	CPUModel string `xml:"host>cpu>model"`
}

func parseCapabilities(text []byte) (c capabilities, err error) {
	if err := xml.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("parse capabilities: %w", err)
	}
	return c, nil
}

// versionText turns libvirt's 9000000 into "9.0.0".
func versionText(v uint32) string {
	return fmt.Sprintf("%d.%d.%d", v/1_000_000, v/1000%1000, v%1000)
}
