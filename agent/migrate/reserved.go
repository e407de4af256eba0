package migrate

import (
	"fmt"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// reserved makes sure that the destination has made what the plan needs. Where
// a volume is missing libvirt makes an empty one by itself, and where one was
// not filled it copies the active layer alone: the guest would lose what lies
// below, and nobody would notice.
func (m *migration) reserved(in api.Incoming) error {
	if in.State != "ready" {
		if in.Error != nil {
			return in.Error
		}
		return api.NewProblem("peer-failed", "the destination's reservation is %q, not ready", in.State)
	}
	for _, d := range m.state.Plan.Disks {
		if d.Action != api.ActionCopy {
			continue
		}
		at := slices.IndexFunc(in.Disks, func(p api.IncomingPlace) bool { return p.Target == d.Target })
		if at < 0 || in.Disks[at].Path == "" {
			return api.NewProblem("peer-failed", "the destination names no volume for the disk").WithDisk(d.Target)
		}
		what := ""
		switch p := in.Disks[at]; {
		case d.Connect != nil:
		case p.Format != d.Destination.Format:
			what = fmt.Sprintf("is %q, the plan says %q", p.Format, d.Destination.Format)
		case d.Seed != nil && !p.Filled:
			what = "was not filled"
		case d.Clone == api.ModeLinked && (p.Backing == nil || len(p.Chain) == 0):
			what = "stands on nothing"
		}
		if what != "" {
			return api.NewProblem("peer-failed", "the destination's volume %s %s", in.Disks[at].Path, what).WithDisk(d.Target)
		}
	}
	return nil
}

// unchanged makes sure that what is about to move is what the plan is about.
// Preparing may have taken hours: another instance may have the name by now, or
// a disk may have been plugged in that nobody would copy. A drive that the
// guest has emptied meanwhile is no harm.
func (m *migration) unchanged(d hypervisor.Domain, live string) error {
	if d.UUID != m.state.UUID {
		return api.NewProblem("conflict", "%q is another instance now: its UUID is %s, it was %s", m.ref, d.UUID, m.state.UUID)
	}
	parsed, err := domainxml.Parse(live)
	if err != nil {
		return api.NewProblem("libvirt-failed", "reading the XML of %q: %w", m.ref, err)
	}
	for _, x := range parsed.Disks {
		planned := slices.ContainsFunc(m.state.Plan.Disks, func(p api.PlanDisk) bool {
			return p.Target == x.Target && p.Source.Path == x.Source
		})
		if x.Source != "" && !planned {
			return api.NewProblem("conflict", "the instance has changed since the plan was made: disk %q is %s now", x.Target, x.Source).
				WithDisk(x.Target).WithHint("ask for the migration again")
		}
	}
	return nil
}
