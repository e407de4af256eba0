package hypervisor

import (
	"context"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// CompareCPU tells whether this host can run the CPU of a domain, given the
// domain's live XML, whose <cpu> libvirt has filled in with what the guest
// really sees. compatible is false only where libvirt says so in plain words;
// where it cannot be told, it is true and detail begins with "unknown:".
func (c *Client) CompareCPU(ctx context.Context, domainXML string) (compatible bool, detail string, err error) {
	d, err := domainxml.Parse(domainXML)
	if err != nil {
		return false, "", fmt.Errorf("compare CPU: %w", err)
	}
	switch {
	case d.CPU == "":
		return true, "the instance uses the hypervisor's default CPU", nil
	case d.CPUMode == "host-passthrough", d.CPUMode == "maximum":
		return true, fmt.Sprintf("unknown: %s has no description to compare", d.CPUMode), nil
	case d.CPUMode == "host-model":
		return true, "unknown: host-model is only settled when the instance runs", nil
	case !d.CPUModel:
		return true, "the instance names no CPU model", nil
	}
	type verdict struct {
		ok     bool
		detail string
	}
	v, err := onControl(ctx, c, "compare CPU of", d.Name, func(l *link) (verdict, error) {
		// The emulator is this host's choice: the source's path may not exist here.
		r, err := l.conn.CompareHypervisorCPU("", d.Arch, "", d.Type, d.CPU, 0)
		if isCode(err, libvirt.ERR_NO_SUPPORT, libvirt.ERR_OPERATION_UNSUPPORTED, libvirt.ERR_CONFIG_UNSUPPORTED) {
			return verdict{true, "unknown: " + err.(libvirt.Error).Message}, nil
		}
		if err != nil {
			return verdict{}, err
		}
		ok, text := cpuVerdict(r)
		return verdict{ok, text}, nil
	})
	return v.ok, v.detail, err
}
