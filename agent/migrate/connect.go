package migrate

import (
	"context"
	"fmt"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// connect sends the destination the targets that its disks need (ModifyTargets)
// and checks that each got a path.
func (m *migration) connect(ctx context.Context) error {
	var targets []api.Target
	var disks []int
	for i, d := range m.state.Plan.Disks {
		if d.Connect != nil {
			targets = append(targets, m.withSecret(*d.Connect))
			disks = append(disks, i)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	m.state.Connected, m.state.Connecting = targets, true
	if err := m.save(); err != nil {
		return err
	}
	m.op.Undo("disconnect targets at the destination", m.disconnect)
	r, err := m.peer.Modify(ctx, api.TargetsRequest{Add: true, Targets: targets})
	if err != nil {
		return m.targetProblem(err, disks)
	}
	for n, i := range disks {
		d := &m.state.Plan.Disks[i]
		at := slices.IndexFunc(r.Connected, func(c api.ConnectedTarget) bool { return c.Index == n && c.Path != "" })
		if at < 0 {
			return api.NewProblem("no-connected-path", "no connected path was returned: the destination gave %d paths for %d targets", len(r.Connected), len(targets)).
				WithDisk(d.Target).WithHint("look at the destination agent's log for target %d", n)
		}
		d.Destination.Path = r.Connected[at].Path
		if size := r.Connected[at].Size; d.Action == api.ActionCopy && size != 0 && len(d.Chain) > 0 && size != d.Chain[0].VirtualSize {
			return api.NewProblem("target-failed", "the connected target has %d bytes, the disk %d: they must be equal", size, d.Chain[0].VirtualSize).
				WithDisk(d.Target).WithHint("resize the target, or choose another")
		}
	}
	return nil
}

// targetProblem keeps the destination's own words and names the disk.
func (m *migration) targetProblem(err error, disks []int) error {
	p := api.AsProblem(peerProblem(err, m.state.Request.Destination))
	if p.Disk == "" {
		for _, f := range p.Fields {
			var n int
			if _, scan := fmt.Sscanf(f.Field, "targets[%d]", &n); scan == nil && n < len(disks) {
				p.Disk = m.state.Plan.Disks[disks[n]].Target
			}
		}
		if p.Disk == "" && len(disks) == 1 {
			p.Disk = m.state.Plan.Disks[disks[0]].Target
		}
	}
	return p
}

// withSecret adds the CHAP login that the record keeps for the same target.
func (m *migration) withSecret(t api.Target) api.Target {
	if m.inst.Record == nil || t.CHAP != nil {
		return t
	}
	for _, r := range m.inst.Record.Targets {
		if r.Type == t.Type && r.SecretUsage() == t.SecretUsage() {
			t.CHAP = r.CHAP
		}
	}
	return t
}

// login is how QEMU logs in to the LUN that a disk moves onto: the LUN's own
// login, or none. The one of the place that the disk leaves is no good there.
// Nil for what is no LUN.
func (m *migration) login(d api.PlanDisk) *domainxml.Auth {
	if d.Connect == nil || d.Connect.Type != "iscsi" {
		return nil
	}
	t := m.withSecret(*d.Connect)
	if t.CHAP == nil {
		return &domainxml.Auth{}
	}
	return &domainxml.Auth{User: t.CHAP.User, Usage: t.SecretUsage()}
}

func (m *migration) disconnect(ctx context.Context) error {
	if len(m.state.Connected) == 0 {
		return nil
	}
	if err := m.reach(ctx); err != nil {
		return err
	}
	_, err := m.peer.Modify(ctx, api.TargetsRequest{Targets: m.state.Connected})
	return err
}
