package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// Causes that end a migration from here.
var (
	errStalled = errors.New("no byte moved within the stall timeout")
	errTimeout = errors.New("the migration's timeout is over")
)

// perform has libvirt carry the instance over, and makes sure of what came of
// it.
func (m *migration) perform(ctx context.Context) error {
	defer m.takePart()()
	params, err := m.params(ctx)
	if err != nil {
		return err
	}
	// A lease that ran out in the meantime took the volumes with it. From here
	// on it is renewed all the time.
	in, err := m.peer.Renew(ctx, m.op.ID())
	if err != nil {
		return peerProblem(err, m.state.Request.Destination)
	}
	if err := m.reserved(in); err != nil {
		return err
	}
	if err := lostVolume(in.Lost); err != nil {
		return err
	}
	if m.state.SentBefore, err = m.Power.SentMark(ctx, m.ref.Name); err != nil {
		return inspect.Problem(m.ref, err) // whatever it has sent later could not be told from that
	}
	m.state.Performing, m.state.Began, m.state.Ran = true, m.Now(), ran(m.inst.Domain)
	if err := m.save(); err != nil {
		return err
	}
	// The agent may stop while libvirt goes on by itself: then nothing is
	// aborted, and the next start adopts the migration.
	moving, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), operation.ErrShutdown) {
			cancel(context.Cause(ctx))
		}
	})
	defer stop()
	m.setGuard(ctx, false)
	done := make(chan error, 1)
	go func() { done <- m.Mover.Migrate(moving, m.ref.Name, params) }()
	w := m.newWatcher(cancel)
	err = w.follow(ctx, done)
	if errors.Is(err, operation.ErrShutdown) {
		return err // without cancel: the mover would take it for the wish to stop
	}
	if !errors.Is(err, errHalves) { // which nothing may end: it can be taken up again
		cancel(nil)
	}
	err = m.conclude(ctx, err)
	w.account()
	return err
}

// conclude finds out where the instance runs after libvirt's call returned.
func (m *migration) conclude(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, hypervisor.ErrNotPersisted) {
		if err != nil {
			m.state.Warnings = append(m.state.Warnings, fmt.Sprintf("the destination did not keep the definition: %v", err))
		}
		m.state.Moved = true
		return nil
	}
	agent := ctx
	ctx, stop := operation.Detach(ctx)
	defer stop()
	verdict, why, settleErr := m.settle(ctx)
	switch {
	case errors.Is(settleErr, errGoesOn):
		return m.followOn(agent, err, false)
	case settleErr != nil:
		return settleErr
	case verdict == KeepDestination:
		m.state.Moved = true
		m.state.Warnings = append(m.state.Warnings, fmt.Sprintf("libvirt reported %v, but %s", err, why))
		return nil
	case verdict == KeepSource:
		return m.moveProblem(ctx, err, why)
	}
	return m.needsDecision(ctx, why, err)
}

// moveProblem says why libvirt did not move the instance, and where it is: it
// may have shut down meanwhile.
func (m *migration) moveProblem(ctx context.Context, err error, where string) error {
	code, hint := "migration-failed", "the instance runs on at the source, untouched"
	if where != runsAtSource && where != runsAtSourceAlone {
		hint = "the source keeps the instance, untouched: " + where
	}
	switch {
	case errors.Is(err, errStalled):
		code = "stalled"
	case errors.Is(err, errTimeout):
		code = "timeout"
	case errors.Is(err, errNotConverging):
		code = "not-converging"
		hint += ". Ask with auto_converge, post_copy, a longer max_downtime or on_not_converging: pause, or when it has less to do"
	case errors.Is(err, operation.ErrCancelled):
		code = "cancelled"
	}
	if m.peerLost() && where == runsAtSourceAlone && (code == "stalled" || code == "migration-failed") {
		code = "peer-lost" // which is why, whoever noticed it first
		hint = "the instance has run on at the source, untouched. The destination takes back by itself what it made, when its lease runs out"
	}
	if where == hasShutDown && code != "cancelled" {
		// Whatever libvirt makes of it: there was nobody left to move.
		return api.NewProblem("instance-ended", "%s while it was being moved: %w", hasShutDown, err).
			WithHint("nothing has moved: it is off, with its disks as it left them; start it, and ask again")
	}
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Code == volumeLost {
		return p.WithHint("%s; find out who removes files from the destination's pool, and ask again", hint)
	}
	p := api.NewProblem(code, "%w", err).WithHint("%s", hint)
	if code != "migration-failed" {
		return p // a disk that libvirt names now failed because it was stopped
	}
	for _, d := range m.state.Plan.Disks {
		if d.Action == api.ActionCopy && mentions(err.Error(), d.Target) {
			p.Disk = d.Target
		}
	}
	if f, ok := m.noRoom(ctx, err); ok {
		p = api.NewProblem(code, "%w: %s", err, f.detail()).WithDisk(cmp.Or(f.disk, p.Disk)).WithHint("%s; %s", hint, f.hint())
	}
	return p
}

// mentions finds libvirt's way of naming a disk in its error texts. It only
// adds the disk's name to an error, and decides nothing.
func mentions(text, target string) bool {
	word := func(b byte) bool {
		return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
	}
	for i := 0; i+len(target) <= len(text); i++ {
		if text[i:i+len(target)] == target && (i == 0 || !word(text[i-1])) && (i+len(target) == len(text) || !word(text[i+len(target)])) {
			return true
		}
	}
	return false
}

// params makes libvirt's parameters from the plan. Live and persistent XML are
// both rewritten: libvirt 9.0 would keep this host's paths in the definition.
func (m *migration) params(ctx context.Context) (hypervisor.MigrateParams, error) {
	r := m.state.Request
	p := hypervisor.MigrateParams{DestURI: m.state.Facts.LibvirtURI, Incremental: Incremental(m.state.Plan),
		AutoConverge: r.AutoConverge, PostCopy: r.PostCopy, TLS: m.TLS,
		BandwidthMiB: mebibytes(m.firstLimit())}
	if a := m.state.Facts.Address; a != "" {
		p.MigrateURI = migrateURI(a)
	}
	for _, d := range m.state.Plan.Disks {
		if d.Action == api.ActionCopy {
			p.Disks = append(p.Disks, d.Target)
		}
		// Of block devices and network images libvirt knows it by itself.
		p.Shared = p.Shared || d.Reason == SameStorage && d.Source.Kind == "file"
	}
	options := domainxml.RewriteOptions{Disks: m.rewrites(), GraphicsListen: m.state.Facts.GraphicsListen}
	live, err := m.Hypervisor.XMLMigratable(ctx, m.ref.Name)
	if err != nil {
		return p, inspect.Problem(m.ref, err)
	}
	d, err := m.Hypervisor.Domain(ctx, m.ref.Name)
	if err != nil {
		return p, inspect.Problem(m.ref, err)
	}
	if err := m.unchanged(d, live); err != nil {
		return p, err
	}
	m.inst.Domain = d // preparing may have taken hours
	if p.DestXML, err = domainxml.Rewrite(live, options); err != nil {
		return p, api.NewProblem("internal", "rewriting the XML: %w", err)
	}
	if !d.Persistent {
		return p, nil
	}
	next, err := m.Hypervisor.XML(ctx, m.ref.Name, true)
	if err != nil {
		return p, inspect.Problem(m.ref, err)
	}
	if p.PersistXML, err = domainxml.Rewrite(next, options); err != nil {
		return p, api.NewProblem("internal", "rewriting the persistent XML: %w", err).
			WithHint("the definition for the next start names other disks than the running instance; compare `virsh dumpxml` with `virsh dumpxml --inactive`")
	}
	return p, nil
}

// mebibytes rounds up: a limit below one MiB/s must not become none.
func mebibytes(bytes int64) uint64 {
	n := uint64(max(bytes, 0))
	mib := n >> 20
	if n&(1<<20-1) != 0 {
		mib++
	}
	return mib
}

func migrateURI(address string) string {
	for i := range len(address) {
		if address[i] == ':' {
			return "tcp://[" + address + "]"
		}
	}
	return "tcp://" + address
}
