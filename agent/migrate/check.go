package migrate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
)

// check looks at everything that can be known to fail before anything is
// touched, and reports all of it, not the first.
func check(in Input, plan api.Plan, copied []Disk) ([]api.Check, []api.Reason) {
	var checks []api.Check
	var refusals []api.Reason
	add := func(code string, bad []api.Reason, fine string) {
		if len(bad) == 0 {
			checks = append(checks, api.Check{Code: code, OK: true, Detail: fine})
			return
		}
		for _, b := range bad {
			checks = append(checks, api.Check{Code: code, Detail: b.Detail})
		}
		refusals = append(refusals, bad...)
	}
	add("other-host", sameHost(in), fmt.Sprintf("destination is %s", cmp.Or(in.Destination.Host.Name, "another host")))
	add("name-free", nameTaken(in), "name and UUID are free at the destination")
	add("no-snapshots", snapshots(in), "no snapshots")
	add("devices-migratable", devices(in, copied), "every device can be moved")
	add("chains-sound", chains(in, plan, copied), "QEMU, libvirt and the headers agree")
	add("disks-known", unknownDisks(in), "every disk of the request exists")
	add("media-present", media(in), "read-only media are present at the destination")
	add("cpu-compatible", cpu(in), cmp.Or(in.Destination.CPU.Detail, "the destination can run this CPU"))
	add("space", space(in, plan), "enough space at the destination")
	return checks, refusals
}

func sameHost(in Input) []api.Reason {
	if in.Instance.HostUUID != "" && in.Instance.HostUUID == in.Destination.Host.UUID {
		return []api.Reason{{Code: "same-host", Detail: "the destination is this host itself"}}
	}
	return nil
}

func nameTaken(in Input) []api.Reason {
	// On this host the name is taken by the instance itself.
	if in.Destination.NameTaken == "" || len(sameHost(in)) > 0 {
		return nil
	}
	return []api.Reason{{Code: "name-taken", Detail: in.Destination.NameTaken}}
}

func snapshots(in Input) []api.Reason {
	if len(in.Instance.Snapshots) == 0 {
		return nil
	}
	return []api.Reason{{Code: "snapshots-present",
		Detail: fmt.Sprintf("libvirt cannot move an instance with snapshots; it has %d: %s", len(in.Instance.Snapshots), strings.Join(in.Instance.Snapshots, ", "))}}
}

// devices names what cannot be moved. A copy of a disk that others write to
// would go its own way from then on.
func devices(in Input, copied []Disk) []api.Reason {
	var out []api.Reason
	for _, b := range in.Instance.Blockers {
		out = append(out, api.Reason{Code: "device-not-migratable", Detail: b})
	}
	for _, d := range copied {
		if d.Shareable {
			out = append(out, api.Reason{Code: "device-not-migratable", Disk: d.Target,
				Detail: fmt.Sprintf("%s is shareable: others may write to it, and the copy would miss what they write", d.Path)})
		}
	}
	return out
}

// chains reports faults of the chains that would be copied, and, in a linked
// clone, volumes whose template ref is lost: the destination's ref could not
// be derived from it. A disagreement counts for a disk on common storage too:
// the destination would open what the XML names, and not what QEMU has open.
func chains(in Input, plan api.Plan, copied []Disk) []api.Reason {
	var out []api.Reason
	for _, d := range in.Instance.Disks {
		if d.Media() {
			continue
		}
		for _, x := range d.Disagreements {
			out = append(out, api.Reason{Code: "chain-disagrees", Disk: d.Target, Detail: x})
		}
	}
	for _, d := range copied {
		for _, i := range d.Issues {
			i.Disk = d.Target
			out = append(out, i)
		}
		if plan.Mode == api.ModeLinked && d.RefMissing && len(d.Backing()) > 0 {
			out = append(out, api.Reason{Code: "template-ref-missing", Disk: d.Target,
				Detail: fmt.Sprintf("no ref of volume %s to template %q in pool %q", d.Path, d.Template, d.Pool)})
		}
	}
	return out
}

func unknownDisks(in Input) []api.Reason {
	var out []api.Reason
	for _, r := range in.Request.Disks {
		if !slices.ContainsFunc(in.Instance.Disks, func(d Disk) bool { return d.Target == r.Target }) {
			out = append(out, api.Reason{Code: "disk-unknown", Disk: r.Target, Detail: fmt.Sprintf("the instance has no disk %q", r.Target)})
		}
	}
	return out
}

func media(in Input) []api.Reason {
	var out []api.Reason
	for _, d := range in.Instance.Disks {
		if !d.Media() || d.Empty() || d.Kind != "file" {
			continue
		}
		r := api.Reason{Code: "media-missing", Disk: d.Target}
		switch {
		case slices.Contains(in.Destination.MediaDiffers, d.Path):
			r.Detail = fmt.Sprintf("%s is at the destination with other bytes, which the guest would read from then on; copy it there or eject it", d.Path)
		case !in.Destination.Media[d.Path]:
			r.Detail = fmt.Sprintf("%s is not at the destination; copy it there or eject it", d.Path)
		default:
			continue
		}
		out = append(out, r)
	}
	return out
}

func cpu(in Input) []api.Reason {
	if in.Destination.CPU.OK {
		return nil
	}
	return []api.Reason{{Code: "cpu-incompatible", Detail: cmp.Or(in.Destination.CPU.Detail, "the destination cannot run this CPU")}}
}

// space adds up what each pool of the destination must take. A copied disk may
// need as much as all its layers hold; a staged template comes on top.
func space(in Input, plan api.Plan) []api.Reason {
	need, disks := map[string]int64{}, map[string][]string{}
	for _, d := range plan.Disks {
		if d.Action != api.ActionCopy || d.Destination == nil || d.Destination.Pool == "" {
			continue
		}
		n := allocated(d.Chain)
		if d.Clone == api.ModeLinked {
			n = allocated(d.Chain[:min(1, len(d.Chain))]) + allocated(d.Stage)
		} else if len(d.Chain) > 0 {
			n = min(n, d.Chain[0].VirtualSize)
		}
		need[d.Destination.Pool] += n
		disks[d.Destination.Pool] = append(disks[d.Destination.Pool], d.Target)
	}
	var out []api.Reason
	for _, p := range in.Destination.Pools {
		if n := need[p.Name]; n > p.Free {
			out = append(out, api.Reason{Code: "no-space", Disk: strings.Join(disks[p.Name], ","),
				Detail: fmt.Sprintf("pool %q at the destination has %d bytes free, and %d are needed", p.Name, p.Free, n)})
		}
	}
	return out
}
