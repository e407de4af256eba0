package hypervisor

import (
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

func TestCPUsThatNeedNoComparison(t *testing.T) {
	for cpu, want := range map[string]string{
		"":                               "default CPU",
		"<cpu mode='host-passthrough'/>": "unknown: host-passthrough",
		"<cpu mode='maximum'/>":          "unknown: maximum",
		"<cpu mode='host-model'/>":       "unknown: host-model",
		"<cpu><topology sockets='1' cores='2' threads='1'/></cpu>":     "names no CPU model",
		"<cpu mode='custom' match='exact'><model>qemu64</model></cpu>": "",
	} {
		d, err := domainxml.Parse("<domain type='kvm'><name>d</name>" + cpu + "</domain>")
		if err != nil {
			t.Fatal(err)
		}
		v, settled := withoutComparing(d)
		if settled != (want != "") || (settled && (!v.compatible || !strings.Contains(v.detail, want))) {
			t.Errorf("%s: %+v, settled %v, want %q", cpu, v, settled, want)
		}
	}
}

func TestMissingFeaturesStopOnlyWhatInsistsOnThem(t *testing.T) {
	for _, tc := range []struct {
		virt, check string
		compatible  bool
	}{
		{"kvm", "full", false}, {"kvm", "partial", false}, {"kvm", "", false}, {"kvm", "none", true},
		{"qemu", "full", false}, {"qemu", "partial", true}, {"qemu", "", true}, {"qemu", "none", true},
	} {
		v := judgeCPU(domainxml.Domain{Type: tc.virt, CPUCheck: tc.check}, "lacks avx512f")
		if v.compatible != tc.compatible || !strings.Contains(v.detail, "lacks avx512f") || strings.HasPrefix(v.detail, "unknown:") != tc.compatible {
			t.Errorf("%s check=%q: %+v", tc.virt, tc.check, v)
		}
	}
}
