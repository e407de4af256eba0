package hypervisor

import (
	"context"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// cpuVerdict is the answer to whether a domain's CPU can run here.
type cpuVerdict struct {
	compatible bool
	detail     string
}

func unknownCPU(why string) cpuVerdict { return cpuVerdict{true, "unknown: " + why} }

// CompareCPU tells whether this host can run the machine and the CPU of a
// domain, given the domain's live XML, whose <cpu> libvirt has filled in with
// what the guest really sees. compatible is false only where libvirt would
// certainly refuse the domain, and detail says why; where it cannot be told,
// compatible is true and detail begins with "unknown:".
func (c *Client) CompareCPU(ctx context.Context, domainXML string) (compatible bool, detail string, err error) {
	d, err := domainxml.Parse(domainXML)
	if err != nil {
		return false, "", fmt.Errorf("compare CPU: %w", err)
	}
	v, err := onControl(ctx, c, "compare CPU of", d.Name, func(l *link) (cpuVerdict, error) {
		// The emulator is this host's own choice: the source's path may not exist here.
		_, err := l.conn.GetDomainCapabilities("", d.Arch, d.Machine, d.Type, 0)
		if err != nil && !isCode(err, libvirt.ERR_NO_SUPPORT) {
			return cpuVerdict{false, text(err)}, nil
		}
		if v, settled := withoutComparing(d); settled {
			return v, nil
		}
		return l.compareCPU(d)
	})
	return v.compatible, v.detail, err
}

// withoutComparing settles what needs no comparison or allows none.
func withoutComparing(d domainxml.Domain) (v cpuVerdict, settled bool) {
	switch {
	case d.CPU == "":
		return cpuVerdict{true, "the instance uses the hypervisor's default CPU"}, true
	case d.CPUMode == "host-passthrough", d.CPUMode == "maximum":
		return unknownCPU(d.CPUMode + " has no description that could be compared"), true
	case d.CPUMode == "host-model":
		return unknownCPU("host-model is only settled when the instance runs"), true
	case !d.CPUModel:
		return cpuVerdict{true, "the instance names no CPU model"}, true
	}
	return cpuVerdict{}, false
}

// compareCPU asks libvirt, and for the missing features by name.
func (l *link) compareCPU(d domainxml.Domain) (cpuVerdict, error) {
	result, err := l.conn.CompareHypervisorCPU("", d.Arch, "", d.Type, d.CPU, libvirt.CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE)
	switch {
	case isCode(err, libvirt.ERR_CPU_INCOMPATIBLE):
		return judgeCPU(d, text(err)), nil
	case err != nil && l.alive():
		return unknownCPU(text(err)), nil
	case err != nil:
		return cpuVerdict{}, err
	}
	switch result {
	case libvirt.CPU_COMPARE_IDENTICAL:
		return cpuVerdict{true, "the host's CPU is identical to the instance's"}, nil
	case libvirt.CPU_COMPARE_SUPERSET:
		return cpuVerdict{true, "the host's CPU offers all that the instance's has"}, nil
	case libvirt.CPU_COMPARE_INCOMPATIBLE:
		return judgeCPU(d, "the host's CPU lacks what the instance's has"), nil
	}
	return unknownCPU(fmt.Sprintf("libvirt answered %d", result)), nil
}

// judgeCPU: missing features stop a domain only if libvirt is told to insist on
// them. A running domain's XML does (check='full'). Otherwise KVM is checked in
// part unless told not to be, while QEMU's translation starts with what it has.
func judgeCPU(d domainxml.Domain, why string) cpuVerdict {
	if d.CPUCheck == "full" || (d.Type == "kvm" && d.CPUCheck != "none") {
		return cpuVerdict{false, why}
	}
	return unknownCPU("not insisted on (check='" + d.CPUCheck + "'): " + why)
}
