package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// clean removes from this host what the instance has left behind. The instance
// is safe at the destination, so nothing here fails the migration: what could
// not be removed is a warning that names it.
func (m *migration) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, libvirtPatience)
	defer cancel()
	warn := func(format string, args ...any) {
		m.state.Warnings = append(m.state.Warnings, fmt.Sprintf(format, args...))
	}
	leftover := insist(ctx, func() error { return m.dismiss(ctx) })
	m.state.Remains = leftover != nil
	m.lift() // nothing is left to hold, and who has a volume open keeps it
	if leftover != nil {
		warn("the copy that libvirt left here remains, and with it the source's volumes: %v", leftover)
	}
	if leftover == nil && !m.state.Request.KeepSourceVolumes {
		for _, v := range m.state.Sources {
			by := ""
			err := insist(ctx, func() (err error) { by, err = m.usedBy(ctx, v.Owned); return err })
			if err != nil {
				warn("source volume %s of disk %s was kept: whether another instance uses it is not known: %v", v.Owned.Path, v.Target, err)
				continue
			}
			if by != "" {
				warn("source volume %s of disk %s was kept: instance %q uses it", v.Owned.Path, v.Target, by)
				continue
			}
			if err := v.Owned.Remove(); err != nil {
				warn("source volume %s of disk %s was kept: %v", v.Owned.Path, v.Target, err)
				continue
			}
			if err := m.Templates.DropRef(ctx, v.Owned.Path); err != nil {
				warn("the template ref of %s remains: %v", v.Owned.Path, err)
			}
		}
	}
	if len(m.state.Targets) > 0 {
		err := insist(ctx, func() error {
			_, err := m.Targets.Modify(ctx, api.TargetsRequest{Targets: m.state.Targets})
			return err
		})
		if err != nil {
			warn("targets of this host remain connected: %v", err)
		}
	}
	if errors.Is(context.Cause(ctx), operation.ErrShutdown) {
		return operation.ErrShutdown // the next start does the rest
	}
	if err := m.Records.Remove(m.ref); err != nil {
		warn("the record remains: %v", err)
	}
	for _, p := range m.pools() {
		if err := m.Hypervisor.RefreshPool(ctx, p); err != nil {
			m.Log.Warn("refreshing a pool", "pool", p, "error", err)
		}
	}
	for _, w := range m.state.Warnings {
		m.Log.Warn("migration", "operation", m.op.ID(), "warning", w)
	}
	return nil
}

// insist does it again while libvirt is not connected: it may have been restarted,
// and an agent that has just started is not connected yet. What stays behind for
// that would stay for good.
func insist(ctx context.Context, do func() error) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		if !errors.Is(err, hypervisor.ErrDown) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// dismiss ends the copy that libvirt left on this host, where it lost its way
// after the instance had moved: paused since the switchover, or only defined.
// One that runs, or is on its way back already, is not touched.
func (m *migration) dismiss(ctx context.Context) error {
	if !m.state.Leftover {
		return nil
	}
	d, err := m.Hypervisor.Domain(ctx, m.ref.Name)
	switch {
	case errors.Is(err, hypervisor.ErrNoDomain):
		return nil
	case err != nil:
		return err
	case d.UUID != m.state.UUID || d.Incoming:
		return nil
	case d.State == hypervisor.Running:
		return fmt.Errorf("%q runs here", m.ref)
	}
	if d.Active() {
		if err := m.Power.Destroy(ctx, m.ref.Name); err != nil {
			return err
		}
	}
	if !d.Persistent {
		return nil
	}
	return m.Power.Undefine(ctx, m.ref.Name)
}

func (m *migration) pools() []string {
	var out []string
	for _, v := range m.state.Sources {
		if v.Pool != "" && !slices.Contains(out, v.Pool) {
			out = append(out, v.Pool)
		}
	}
	return out
}
